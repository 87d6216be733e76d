"""How well a codebook is used."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Usage:
    """Over all hits that were counted, mean over codebooks; float32 scalars.

    share       of the codes that were hit at all
    perplexity  how many equally likely codes would be as unpredictable, 1 ... K
    """

    share: Tensor
    perplexity: Tensor


class UsageCount:
    """Sums `Quantized.usage` over steps: one batch has too few tokens to hit a large codebook."""

    def __init__(self) -> None:
        self._hits: Tensor | None = None

    def add(self, usage: Tensor) -> None:
        """usage (K,) or (Q, K) int64 hits."""
        self._hits = usage if self._hits is None else self._hits + usage

    def take(self) -> Usage | None:
        """What was counted since the last time, None if nothing; counting starts anew."""
        if self._hits is None:
            return None
        shares = (self._hits / self._hits.sum(-1, keepdim=True).clamp(min=1)).double()
        self._hits = None
        perplexity = torch.special.entr(shares).sum(-1).exp().mean()
        return Usage((shares > 0).double().mean().float(), perplexity.float())
