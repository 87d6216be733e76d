"""Two processes that train together under Lightning's DDP; `results` starts them once for all.

Each case is a function of the rank and of how many ranks there are that returns the weights after a fit. Run
as a program: python -m tests.training_ranks RANK FOLDER.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from lightning import pytorch as lightning
from torch import Tensor, distributed

from tokenzoo.image.patch_gan import PatchGan
from tokenzoo.zoo.adversary import Adversary
from tokenzoo.zoo.codebook_quantizer import CodebookQuantizer
from tokenzoo.zoo.training import TokenizerTraining

from .toys import list_toys
from .toys_training import families, pictures
from .training_audio import ADVERSARY, DECODING, SAMPLES, new_module, tones

STEPS, ITEMS = 2, 4
IMAGES = families()
Case = Callable[[int, int], dict[str, Tensor]]


class Dealt(lightning.LightningDataModule):
    """The batches of one rank: the items of each batch are dealt in turn, as `Batches` does."""

    def __init__(self, batches: Tensor, rank: int, ranks: int) -> None:
        super().__init__()
        self._batches = batches[:, rank::ranks]

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches)

    def train_dataloader(self) -> Dealt:
        return self

    def val_dataloader(self) -> Dealt:
        return self


def fitted(module: TokenizerTraining, items: Tensor, rank: int, ranks: int) -> dict[str, Tensor]:
    """The whole module after a few steps, with what moved under "moved".

    Gradient descent without momentum: Adam would make steps of gradients that are rounding alone.
    """
    for part in module.tokenizer.modules():
        # Each process draws masks of its own.
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        # A start and a revival draw among the latents of the rank.
        if isinstance(part, CodebookQuantizer):
            part.revival = None
            if part.start:
                part.started.fill_(1)
    module.is_new = False
    before = _copy(module)
    if rank:
        for parameter in module.tokenizer.parameters():
            parameter.data += 0.1  # the second rank starts elsewhere: it must get the weights of the first
    learning = [each for each in module.parameters() if each.requires_grad]
    module.configure_optimizers = lambda: torch.optim.SGD(learning, lr=0.1)
    module.lr_schedulers = lambda: torch.optim.lr_scheduler.ConstantLR(module.optimizers())  # pyright: ignore
    if module.adversary is not None:
        judges = module.adversary.parameters()
        module.adversary.optimizer = torch.optim.SGD(judges, lr=0.1)  # pyright: ignore
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=STEPS,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=Dealt(items.unflatten(0, (STEPS, ITEMS)), rank, ranks))
    assert module.global_step == STEPS
    after = _copy(module)
    return after | {
        f"moved {name}": after[name] - old for name, old in before.items() if old.is_floating_point()
    }


def image(rank: int, ranks: int, *, family: str, **settings: Any) -> dict[str, Tensor]:
    case = IMAGES[family]
    torch.manual_seed(0)
    module = case.build().finetune(ema_decay=0.5, **(case.settings | settings))
    if module.adversary is not None:
        module.adversary = Adversary([PatchGan(4, 2)], module.adversary.settings)
    size = getattr(module.tokenizer.config, "image_size", 8)
    return fitted(module, pictures(size, STEPS * ITEMS), rank, ranks)


def audio(rank: int, ranks: int, *, toy: str, samples: int = SAMPLES, **settings: Any) -> dict[str, Tensor]:
    module = new_module(toy, ema_decay=0.5, **settings)
    sounds = torch.from_numpy(tones(STEPS * ITEMS, samples, channels=module.facts.channels or 1))
    return fitted(module, sounds, rank, ranks)


# Feature matching is left out: its distance is relative to the size of each process's own maps.
CASES: dict[str, Case] = {
    **{family: partial(image, family=family) for family in IMAGES},
    **{toy: partial(audio, toy=toy) for toy in DECODING},
    # Of a single token each group norm would see two numbers, and make gradients of what rounds off.
    "xcodec2": partial(audio, toy="xcodec2", samples=8 * 320),
    "one-d-piece, judged": partial(
        image, family="one-d-piece", adversary={"weight": 0.5, "lecam": 0.1}, balance=True
    ),
    "encodec, judged": partial(
        audio, toy="encodec", adversary=ADVERSARY | {"features": 0.0, "lecam": 0.1, "start_step": 1}
    ),
}


def _copy(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@cache
def results() -> dict[str, list[dict[str, Tensor]]]:
    """What each case returned, by name, in the order of the ranks. A rank that hangs is an error."""
    with TemporaryDirectory() as folder:
        # Alone on the path: beside it lie folders with names of other packages.
        (Path(folder) / "tests").symlink_to(Path(__file__).parent)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": folder}
        command = [sys.executable, "-W", "ignore", "-m", "tests.training_ranks"]
        ranks = [
            subprocess.Popen(
                [*command, str(rank), folder],
                env=environment | {"LOCAL_RANK": str(rank)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            told = [rank.communicate(timeout=300)[1] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(told)
        found = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]
    return {case: [each[case] for each in found] for case in CASES}


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    # Lightning takes a group that is there, and starts no process where LOCAL_RANK says that this is one.
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    with pytest.MonkeyPatch.context() as patch:
        list_toys(patch)
        torch.save({name: case(rank, 2) for name, case in CASES.items()}, folder / f"{rank}.pt")
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
