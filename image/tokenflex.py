"""TokenFLEX (Hu et al. 2025, arXiv 2504.03154): one model for any number of visual tokens.

The projector pools the vision encoder's map to n x n places and gates what is left,

    T = W_3 (SiLU(W_1 x) * W_2 x),    x = LayerNorm(AdaptivePool_n(features)),

and at every training step n is drawn anew, so that no length is ever out of the ordinary:

    policy = LengthPolicy(256, "fixed", counts=model.facts.keeps, per="batch")
    reads = model(images, lengths=policy.sample(len(images))).signal

What this leaves open is as in the projector that the same authors' Ristretto came with (LiAutoAD, MIT): a map
that n does not divide is stretched to the next multiple first, and the gate is three times as wide. The draw
is even here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.config import check_range
from ..zoo.facts import Facts
from ..zoo.transformer import TransformerSize
from .matryoshka import pool_windows
from .preprocess import ImagePreprocess
from .visual_tokenizer import PooledConfig, PooledTokenizer

# SigLIP's statistics (Zhai et al. 2023, arXiv 2303.15343) and its shape-optimised size, So400m/14.
_HALVES = (0.5, 0.5, 0.5)
_SO400M = TransformerSize(width=1152, layers=27, heads=16)


@dataclass(frozen=True, kw_only=True)
class TokenFlexConfig(PooledConfig):
    """TokenFLEX over SigLIP-So400m at 378 pixels, 27 x 27 places, by default.

    expand  width of the gate, in widths of the vision encoder
    """

    tokenizer_type: ClassVar[str] = "tokenflex"

    sides: tuple[int, ...] = (8, 12, 16)
    expand: int = 3
    image_size: int = 378
    vision: TransformerSize | None = _SO400M
    mean: tuple[float, float, float] = _HALVES
    std: tuple[float, float, float] = _HALVES
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(size=378))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("expand", self.expand, 1, 16)

    def facts(self) -> Facts:
        """All but identity."""
        return self._pooled_facts("tokenflex")


class TokenFlex(PooledTokenizer):
    """A picture in as many tokens as the task is worth."""

    config_type = TokenFlexConfig
    config: TokenFlexConfig

    def __init__(self, config: TokenFlexConfig) -> None:
        super().__init__(config)
        self.projector = SwiGlu(self.encoder.width, config.expand * self.encoder.width, config.dim)

    def pooled(self, features: Tensor, side: int) -> Tensor:
        return self.projector(adaptive_pool(features, side))


class SwiGlu(nn.Module):
    """LayerNorm, then a gated projection (Shazeer 2020, arXiv 2002.05202): (..., width) -> (..., dim)."""

    def __init__(self, width: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.down(F.silu(self.gate(x)) * self.up(x))


def adaptive_pool(features: Tensor, side: int) -> Tensor:
    """A map (B, h, h, C) pooled to side x side, row by row: (B, side**2, C).

    Where `side` does not divide h, the map is first stretched to the next multiple, bilinearly, from corner
    to corner.
    """
    room = -(-features.shape[1] // side) * side
    if room != features.shape[1]:
        planes = features.permute(0, 3, 1, 2)
        planes = F.interpolate(planes, size=(room, room), mode="bilinear", align_corners=True)
        features = planes.permute(0, 2, 3, 1)
    return pool_windows(features, side)
