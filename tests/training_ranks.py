"""Two processes that train together under Lightning's DDP; `results` starts them once for all.

Each case is a function of the rank and of how many ranks there are that returns the weights after a fit. Run
as a program: training_ranks.py RANK FOLDER.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import pytorch as lightning
from torch import Tensor, distributed

from tokenzoo.audio.encodec import EncodecConfig
from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig
from tokenzoo.audio.training import AudioTraining

STEPS, ITEMS, SAMPLES = 4, 4, 160
Case = Callable[[int, int], dict[str, Tensor]]

CONFIG = EncodecConfig(
    num_codebooks=2,
    num_codes=8,
    latent_dim=6,
    seanet=SeanetConfig(filters=2, ratios=(2, 2), causal=True),
    preprocess=AudioPreprocess(16_000),
)
LOSSES: dict[str, Any] = {"mel_windows": [16, 32], "mel_bands": [4, 8]}
# Without feature matching, whose distance is relative to the size of each process's own maps.
ADVERSARY: dict[str, Any] = {
    "discriminators": ["periods", "stft"],
    "periods": [2],
    "stft_windows": [32],
    "width": 2,
    "features": 0.0,
    "lecam": 0.1,
    "start_step": 1,
    "learning_rate": 1e-3,
}


class Share(lightning.LightningDataModule):
    """The batches of one rank: its share of the items of each batch, in their order."""

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        sounds = 0.3 * torch.randn(STEPS, ITEMS, 1, SAMPLES, generator=generator)
        self._batches = sounds.chunk(ranks, dim=1)[rank]

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches)

    def train_dataloader(self) -> Share:
        return self

    def val_dataloader(self) -> Share:
        return self


def fitted(rank: int, ranks: int, **settings: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    told = {
        "losses": LOSSES,
        "lengths": {"full": 1.0},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1, "decay_steps": 100},
        "ema_decay": 0.5,
    }
    module = AudioTraining("encodec", CONFIG.to_dict(), **(told | settings))
    # Chance of a start differs with the number of items that were drawn for before it.
    for stage in module.tokenizer.quantizer.stages:
        stage.codebook.normal_(std=0.3)
        stage.sums.copy_(stage.codebook)
        stage.started.fill_(1)
    lightning.Trainer(
        accelerator="cpu",
        devices=ranks,
        max_steps=STEPS,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        strategy="ddp" if ranks > 1 else "auto",
    ).fit(module, datamodule=Share(rank, ranks))
    assert module.global_step == STEPS
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def plain(rank: int, ranks: int) -> dict[str, Tensor]:
    return fitted(rank, ranks)


def adversarial(rank: int, ranks: int) -> dict[str, Tensor]:
    return fitted(rank, ranks, adversary=ADVERSARY)


CASES: tuple[Case, ...] = (plain, adversarial)


@cache
def results() -> dict[str, list[dict[str, Tensor]]]:
    """What each case returned, by name, in the order of the ranks. A rank that hangs is an error."""
    with TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-W", "ignore", __file__]
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
    return {case.__name__: [each[case.__name__] for each in found] for case in CASES}


def main(rank: int, folder: Path) -> None:
    # Lightning takes a group that is there, and starts no process where LOCAL_RANK says that this is one.
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    torch.save({case.__name__: case(rank, 2) for case in CASES}, folder / f"{rank}.pt")
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
