"""Two Lightning trainers that talk by gloo: each trains the cases and leaves the weights.

Run as a program: two_trainers.py FOLDER, with LOCAL_RANK, MASTER_ADDR and MASTER_PORT set.
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

    from tokenzoo.image.data import ImageFolderData
    from tokenzoo.image.patch_gan import PatchGan
    from tokenzoo.image.training import ImageTraining
    from tokenzoo.zoo.adversary import Adversary

    # The second rank starts elsewhere: it must get the weights of the first.
    torch.manual_seed(rank)
    module = ImageTraining(**CASES[case], ema_decay=0.5)
    module.configure_optimizers = lambda: torch.optim.SGD(module.tokenizer.parameters(), lr=0.1)
    if module.adversary is not None:
        module.adversary = Adversary([PatchGan(4, 2)], module.adversary.settings)
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


def alone(folder: Path) -> dict[str, dict[str, Tensor]]:
    """What one trainer makes of the cases, in this process."""
    return {case: train(case, _pictures(folder), 1, 0) for case in CASES}


def together(folder: Path) -> list[dict[str, dict[str, Tensor]]]:
    """What the first and the second of two make of them."""
    _pictures(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    jobs = []
    for rank in range(2):
        command = [sys.executable, "-W", "ignore", __file__, str(folder)]
        environment = os.environ | shared | {"MASTER_PORT": port, "LOCAL_RANK": str(rank)}
        jobs.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        told = [job.communicate(timeout=300)[1] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert [job.returncode for job in jobs] == [0, 0], "\n".join(told)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _pictures(folder: Path) -> Path:
    path = folder / "pictures.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (BATCH * STEPS, 16, 16, 3), np.uint8))
    return path


def main(folder: Path) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    found = {case: train(case, folder / "pictures.npy", 2, rank) for case in CASES}
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
