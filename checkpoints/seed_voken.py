"""What the Lightning checkpoints of TencentARC/SEED-Voken hold besides the weights that training moves.

Beside them lie an average, under `model_ema.` and the name without its dots, which the official evaluation
uses, and the losses with their discriminator.
"""

from __future__ import annotations

from collections.abc import Collection

from .conv_names import LOSS_PREFIX

EMA_PREFIX = "model_ema."


def best_copies(names: Collection[str]) -> dict[str, str]:
    """By the name of each tensor that is read, the plain name of what it holds; losses are not read.

    best_copies(["conv_in.bias", "norm.bias", "model_ema.conv_inbias", "model_ema.decay", "loss.logvar"])
    is {"model_ema.conv_inbias": "conv_in.bias", "norm.bias": "norm.bias"}
    """
    present = frozenset(names)
    copies = {}
    for name in names:
        if not name.startswith((EMA_PREFIX, LOSS_PREFIX)):
            average = EMA_PREFIX + name.replace(".", "")
            copies[average if average in present else name] = name
    return copies
