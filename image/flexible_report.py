"""What the fixed-to-flexible recipe does on photographs that were not trained on, at a size for a CPU.

    python -m tokenzoo.image.photo_pool data/photographs
    python -m tokenzoo.image.flexible_report data/photographs

Prints a table: a tiny TiTok of one length, asked for fewer tokens, before and after `flexible` and tail-drop
fine-tuning of its decoder. docs/training.md has that of one run. The networks are hundreds of times smaller
than the recipe of configs/: the table compares lengths, it does not say how good a TiTok is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..zoo.transformer import TransformerSize
from .flexible import flexible
from .metrics import psnr
from .preprocess import ImagePreprocess
from .titok import TiTok, TiTokConfig

SIDE, TOKENS, BATCH = 32, 16, 64
LENGTHS = (1, 2, 4, 8, 12, 16)
SIZE = TransformerSize(width=128, layers=3, heads=4)
CONFIG = TiTokConfig(
    num_tokens=TOKENS,
    latent_dim=12,
    encoder=SIZE,
    decoder=SIZE,
    image_size=SIDE,
    preprocess=ImagePreprocess(size=SIDE),
    encoder_patch_size=4,
    decoder_patch_size=4,
    num_codes=1024,
    legacy=False,
)


def fixed_tokenizer(photographs: Path, steps: int, *, seed: int = 0) -> TiTok:
    """A TiTok of one length, from random weights of this seed."""
    from .training import ImageTraining

    torch.manual_seed(seed)
    return _trained(ImageTraining("titok", CONFIG.to_dict(), **_settings(1e-3)), photographs, steps)


def made_flexible(fixed: TiTok, photographs: Path, steps: int) -> TiTok:
    """Its decoder fine-tuned under tail drop; encoder and quantizer stay."""
    lengths = {"distribution": "uniform", "full": 0.2}
    settings = _settings(5e-4) | {"freeze": "encoder,quantizer", "lengths": lengths}
    return _trained(flexible(fixed).finetune(**settings), photographs, steps)


@torch.no_grad()
def scores(tokenizer: TiTok, images: Tensor) -> list[float]:
    """Mean PSNR in dB of images (B, 3, SIDE, SIDE) at each of LENGTHS."""
    tokens = tokenizer.encode(images)
    return [float(psnr(tokenizer.decode(tokens.keep(count)), images).mean()) for count in LENGTHS]


def held_out(photographs: Path, count: int) -> Tensor:
    """The middles of held-out pictures, evenly spaced: (at most `count`, 3, SIDE, SIDE) in [0, 1].

    ValueError for another folder than photo_pool's, before anything is trained.
    """
    for name in ("train.npy", "held_out.npy"):
        if not (photographs / name).is_file():
            raise ValueError(
                f"{photographs} has no {name}: run python -m tokenzoo.image.photo_pool {photographs}"
            )
    pictures = np.load(photographs / "held_out.npy", mmap_mode="r")
    if min(pictures.shape[1:3]) < SIDE or count < 1:
        raise ValueError(f"{count} pictures of {pictures.shape[1:3]}: expected at least 1, of {SIDE} or more")
    count = min(count, len(pictures))
    chosen = np.linspace(0, len(pictures) - 1, count).astype(int)
    margin = (pictures.shape[1] - SIDE) // 2
    middles = pictures[chosen, margin : margin + SIDE, margin : margin + SIDE]
    return torch.from_numpy(np.ascontiguousarray(middles)).permute(0, 3, 1, 2) / 255


def report(photographs: Path, *, steps: int, more: int, count: int) -> str:
    """Markdown: a row before, a row after."""
    images = held_out(photographs, count)
    fixed = fixed_tokenizer(photographs, steps)
    copy = made_flexible(fixed, photographs, more)
    assert torch.equal(copy.encode(images).ids, fixed.encode(images).ids)
    used = len(fixed.encode(images).ids.unique())
    rows = {
        f"fixed, {steps} steps": scores(flexible(fixed), images),
        f"flexible, {more} steps more": scores(copy, images),
    }
    lines = [f"| tokens kept | {' | '.join(map(str, LENGTHS))} |", "|---|" + "---:|" * len(LENGTHS)]
    lines += [f"| {name} | {' | '.join(f'{each:.1f}' for each in row)} |" for name, row in rows.items()]
    return "\n".join(
        [*lines, "", f"{len(images)} held-out photographs; {used} of {CONFIG.num_codes} codes in use."]
    )


def _settings(learning_rate: float) -> dict[str, Any]:
    optimizer = {"learning_rate": learning_rate, "warmup_steps": 100, "min_learning_rate": learning_rate / 20}
    return {"losses": {"mse": 0.0, "log_mse": 1.0}, "optimizer": optimizer, "ema_decay": 0.995}


def _trained(module: Any, photographs: Path, steps: int) -> TiTok:
    from lightning.pytorch import Trainer

    from .data import ImageFolderData

    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, ImageFolderData(str(photographs / "train.npy"), batch_size=BATCH))
    tokenizer = module.tokenizer.eval()
    assert isinstance(tokenizer, TiTok)
    return tokenizer


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path, help="what tokenzoo.image.photo_pool wrote")
    parser.add_argument("--steps", type=int, default=4000, help="of the tokenizer of one length")
    parser.add_argument("--more", type=int, default=2000, help="of its decoder, under tail drop")
    parser.add_argument("--count", type=int, default=256, help="held-out pictures (default: %(default)s)")
    told = parser.parse_args(argv)
    if min(told.steps, told.more) < 1:
        parser.error(f"--steps {told.steps} --more {told.more}: expected at least 1 of each")
    try:
        print(report(told.photographs, steps=told.steps, more=told.more, count=told.count))
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
