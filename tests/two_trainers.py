"""Two Lightning trainers that talk by gloo, or one alone: each trains the cases and leaves the weights.

Run as a program: two_trainers.py WORLD_SIZE FOLDER, with LOCAL_RANK, MASTER_ADDR and MASTER_PORT set.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

BATCH, STEPS = 4, 3
TITOK = {
    "num_tokens": 4,
    "latent_dim": 4,
    "encoder": {"width": 16, "layers": 1, "heads": 2},
    "decoder": {"width": 16, "layers": 1, "heads": 2},
    "image_size": 16,
    "preprocess": {"size": 16},
    "encoder_patch_size": 8,
    "decoder_patch_size": 8,
    "num_codes": 8,
    "legacy": False,
    "nested": True,
}
# Entropy terms whose statistics are those of all ranks.
LFQ = {
    "bits": 4,
    "conv": {"channels": 32, "multipliers": [1, 1], "blocks": 1},
    "preprocess": {"size": 16},
}
GAN = {"weight": 0.5, "features": 0.5, "lecam": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "titok": {
        "tokenizer_type": "titok",
        "config": TITOK,
        "lengths": {"distribution": "fixed", "counts": [3]},
        "adversary": GAN,
        "balance": True,
    },
    "lfq": {"tokenizer_type": "open-magvit2", "config": LFQ},
}


def train(case: str, array: Path, world_size: int, rank: int) -> dict[str, Tensor]:
    """The whole module after a few steps. Gradient descent without momentum: Adam would make steps of
    gradients that are rounding alone."""
    from lightning import pytorch as lightning

    from tokenzoo.image import training
    from tokenzoo.image.data import ImageFolderData
    from tokenzoo.image.patch_gan import PatchGan

    training.PatchGan = lambda: PatchGan(4, 2)  # pyright: ignore[reportPrivateImportUsage]
    # The second rank starts elsewhere: it must get the weights of the first.
    torch.manual_seed(rank)
    module = training.ImageTraining(**CASES[case], ema_decay=0.5)
    module.configure_optimizers = lambda: torch.optim.SGD(module.tokenizer.parameters(), lr=0.1)
    if module.adversary is not None:
        module.adversary.optimizer = torch.optim.SGD(module.adversary.parameters(), lr=0.1)  # pyright: ignore
    module.lr_schedulers = lambda: torch.optim.lr_scheduler.ConstantLR(module.optimizers())  # pyright: ignore
    data = ImageFolderData(str(array), validation_share=0.0, batch_size=BATCH // world_size, flip=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def run_all(folder: Path) -> list[dict[str, dict[str, Tensor]]]:
    """What one trainer alone makes of the cases, then the first and the second of two."""
    array = folder / "pictures.npy"
    np.save(array, np.random.default_rng(0).integers(0, 256, (BATCH * STEPS, 16, 16, 3), np.uint8))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    jobs = []
    for world_size, rank in ((1, 0), (2, 0), (2, 1)):
        own = {"MASTER_PORT": port, "LOCAL_RANK": str(rank)} if world_size > 1 else {}
        command = [sys.executable, "-W", "ignore", __file__, str(world_size), str(folder)]
        environment = os.environ | shared | own
        jobs.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        told = [job.communicate(timeout=300)[1] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert [job.returncode for job in jobs] == [0, 0, 0], "\n".join(told)
    return [torch.load(folder / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt")]


def main(world_size: int, folder: Path) -> None:
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    found = {case: train(case, folder / "pictures.npy", world_size, rank) for case in CASES}
    torch.save(found, folder / f"{world_size}-{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
