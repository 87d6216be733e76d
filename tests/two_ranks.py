"""Two processes that talk by gloo: the cases that run in them, and `results`, which starts them once for all.

Each case is a function of the rank that returns tensors. Run as a program: two_ranks.py RANK FOLDER.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Generator, Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tokenzoo.zoo import collective
from tokenzoo.zoo.codebook_care import KMeansStart, Revival
from tokenzoo.zoo.ema_quantizer import EMAVectorQuantizer
from tokenzoo.zoo.lfq import LookupFreeQuantizer
from tokenzoo.zoo.simvq import SimVQ
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

Case = Callable[[int], dict[str, Tensor]]
DIM, CODES = 4, 8


def rows(seed: int, count: int = 24) -> Tensor:
    return torch.randn(count, DIM, generator=Generator().manual_seed(seed))


def parts(seed: int) -> tuple[Tensor, Tensor]:
    """A batch in unequal halves."""
    return rows(seed)[:15], rows(seed)[15:]


def ema(**options: object) -> EMAVectorQuantizer:
    torch.manual_seed(0)
    return EMAVectorQuantizer(CODES, DIM, decay=0.8, **options)  # pyright: ignore[reportArgumentType]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def messages(rank: int) -> dict[str, Tensor]:
    own = torch.arange(6.0).view(2, 3) + 10 * rank
    first, second = collective.sum_over_ranks(own, own[0, :2])
    return {
        "first": first,
        "second": second,
        "broadcast": collective.broadcast_from_first(own.T),
        "gather": collective.gather(own.T),
        "rows": collective.gather_rows(own[: 1 + rank]),
        "rows of one": collective.gather_rows(own[: 2 * rank]),
        "ranks": torch.tensor(collective.num_ranks()),
    }


def mean(rank: int) -> dict[str, Tensor]:
    """The loss is a function of the mean over all rows; DDP averages the gradients."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(DIM, 3))
    batch = parts(0)[rank]
    whole = collective.mean_over_ranks(model(batch).softmax(1).mean(0), len(batch))
    torch.special.entr(whole).sum().backward()
    empty = collective.mean_over_ranks((batch if rank else batch[:0]).mean(0), len(batch) if rank else 0)
    gradient = model.module.weight.grad
    assert gradient is not None
    return {"mean": whole.detach(), "gradient": gradient, "of one": empty}


def statistics(rank: int) -> dict[str, Tensor]:
    quantizer = ema()
    for seed in range(3):
        quantizer(parts(seed)[rank])
    return state(quantizer)


def empty_rank(rank: int) -> dict[str, Tensor]:
    """Rank 1 never has a row: with start, revival and padding, nobody waits for it forever."""
    quantizer = ema(start=KMeansStart(batches=2), revival=Revival(every=1))
    for seed in range(4):
        batch = rows(seed) if rank == 0 else rows(seed)[:0]
        quantizer(batch, generator=Generator().manual_seed(seed))
    quantizer(rows(5), valid=torch.full((24,), rank == 0))
    quantizer(rows(6)[:0])
    return state(quantizer)


def start(rank: int) -> dict[str, Tensor]:
    quantizer = ema(start=KMeansStart(batches=2))
    for seed in range(2):
        quantizer(parts(seed)[rank], generator=Generator().manual_seed(7))
    return state(quantizer)


def learned_start(rank: int) -> dict[str, Tensor]:
    """Chance differs between the ranks, the codes do not."""
    torch.manual_seed(rank)
    quantizer = VectorQuantizer(CODES, DIM, start=KMeansStart(), revival=Revival(every=1))
    for seed in range(3):
        quantizer(parts(seed)[rank])
    return state(quantizer)


def revival(rank: int) -> dict[str, Tensor]:
    """Half of the codes are far away; rows of both ranks replace them."""
    quantizer = ema(revival=Revival(every=1, share=0.5))
    with torch.no_grad():
        quantizer.codebook[:4] += 1e3
        quantizer.sums.copy_(quantizer.codebook)
        quantizer.counts[:4] = 0
    torch.manual_seed(rank)
    before = quantizer.codebook.clone()
    quantizer.decay = 1 - 1e-9
    quantizer(parts(0)[rank])
    return {"before": before, **state(quantizer)}


def training(rank: int) -> dict[str, Tensor]:
    """Codes and a map that the optimizer learns, under DDP: equal on all ranks after a step."""
    torch.manual_seed(0)
    results: dict[str, Tensor] = {}
    for quantizer in (VectorQuantizer(CODES, DIM), SimVQ(CODES, DIM)):
        wrapped = DistributedDataParallel(quantizer)
        optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.5)
        wrapped(rows(rank)).loss.backward()
        optimizer.step()
        results |= {f"{type(quantizer).__name__} {name}": each for name, each in state(quantizer).items()}
    return results


def lookup_free(rank: int) -> dict[str, Tensor]:
    """The entropy is that of the mean over all rows; a rank without rows takes part."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(DIM, 6))
    quantizer = entropy_quantizer()
    loss = quantizer(model(parts(0)[rank])).loss
    loss.backward()
    empty = quantizer(model(rows(1) if rank else rows(1)[:0])).loss
    gradient = model.module.weight.grad
    assert gradient is not None
    return {"loss": loss.detach(), "gradient": gradient, "of one": empty.detach()}


def entropy_quantizer() -> LookupFreeQuantizer:
    return LookupFreeQuantizer(6, commitment_weight=0, sample_entropy_weight=0, inverse_temperature=1).train()


CASES: tuple[Case, ...] = (
    messages, mean, statistics, empty_rank, start, learned_start, revival, training, lookup_free,
)  # fmt: skip


@cache
def results() -> dict[str, list[dict[str, Tensor]]]:
    """What each case returned, by name, in the order of the ranks. A rank that hangs is an error."""
    with TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-W", "ignore", __file__]
        ranks = [
            subprocess.Popen(
                [*command, str(rank), folder], env=environment, stderr=subprocess.PIPE, text=True
            )
            for rank in range(2)
        ]
        try:
            told = [rank.communicate(timeout=240)[1] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(told)
        found = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]
    return {case.__name__: [each[case.__name__] for each in found] for case in CASES}


def main(rank: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    torch.save({case.__name__: case(rank) for case in CASES}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
