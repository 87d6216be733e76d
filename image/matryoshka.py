"""Matryoshka Multimodal Models, M3 (Cai et al. 2024, arXiv 2405.17430): nested sets of tokens by pooling.

The vision encoder's map, projected as in LLaVA-1.5, is the finest set X_M; every coarser one is the mean over
windows of the next finer,

    X_{i-1} = AvgPool(X_i),

24 x 24 to 12 x 12, 6 x 6, 3 x 3 and 1. Training weighs all of them alike at every step (section 3):

    min  1/M sum_i  -log P(answer | X_i, question)

What the equations leave open is as in the authors' code, mu-cai/matryoshka-mm ec30cd3: it pools after the
projector, by windows that do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from ..zoo.facts import Facts
from ..zoo.tokens import Tokens
from .visual_tokenizer import PooledConfig, PooledTokenizer


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(PooledConfig):
    """M3 over CLIP ViT-L/14 at 336 pixels by default; each side divides the next, so that the sets nest."""

    tokenizer_type: ClassVar[str] = "matryoshka"

    def __post_init__(self) -> None:
        super().__post_init__()
        for coarse, fine in pairwise((*self.sides, self.side)):
            if fine % coarse:
                raise ValueError(
                    f"sides={self.sides} on a feature map of {self.side} a side: expected divisors, "
                    f"{coarse} does not divide {fine}"
                )

    def facts(self) -> Facts:
        """All but identity."""
        return self._pooled_facts("matryoshka")


class Matryoshka(PooledTokenizer):
    """The same picture as nested sets of tokens, the coarser ones the means of the finer."""

    config_type = MatryoshkaConfig
    config: MatryoshkaConfig

    def __init__(self, config: MatryoshkaConfig) -> None:
        super().__init__(config)
        self.projector = nn.Sequential(
            nn.Linear(self.encoder.width, config.dim), nn.GELU(), nn.Linear(config.dim, config.dim)
        )

    def pooled(self, features: Tensor, side: int) -> Tensor:
        return pool_windows(self.projector(features), side)

    def nested_sets(self, signal: Tensor) -> tuple[Tokens, ...]:
        """X_1 ... X_M of one pass of the vision encoder, coarse to fine and with gradient, for the objective.

        signal  (B, 3, S, S) float in [0, 1]
        """
        grid = self.projector(self.encoder(signal))
        return tuple(self._stamped(pool_windows(grid, side)) for side in self.config.sides)


def pool_windows(grid: Tensor, side: int) -> Tensor:
    """Means over the windows that make a map side x side: (B, h, w, D) -> (B, side**2, D), row by row.

    h and w are multiples of `side`.
    """
    windows = grid.unflatten(2, (side, -1)).unflatten(1, (side, -1))
    return windows.mean(dim=(2, 4)).flatten(1, 2)
