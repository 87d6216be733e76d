"""Token-Shuffle (Ma et al. 2025, arXiv 2504.17789): s x s neighbouring visual tokens as one, and back.

Visual tokens need far fewer dimensions than a language model has. So each is squeezed from d to d / s^2
dimensions, and the s^2 tokens of a window are laid side by side in one vector of d: the language model reads
s^2 times fewer. What it says of a window is cut into s^2 pieces again, each widened from d / s^2 to d:

    shuffle(x)   = MLP_n(merge_s(squeeze x)),     (B, N, d) -> (B, N / s^2, d)
    unshuffle(y) = widen(split_s(MLP_n y)),       (B, N / s^2, d) -> (B, N, d)

with n = 2 residual MLP blocks on either side; inside a block is what the transformers here have, LayerNorm
and an MLP. `Shuffle` and `Unshuffle` take any tokens: in the paper the embedded ids of a discrete tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from einops import rearrange
from torch import Tensor, nn

from ..zoo.config import check_range
from ..zoo.facts import Facts
from ..zoo.tokens import Tokens
from ..zoo.transformer import MLP_RATIO, NORM_EPS
from .visual_tokenizer import VisualConfig, VisualTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenShuffleConfig(VisualConfig):
    """Windows of visual tokens.

    window  s, tokens a side of a window
    blocks  n, residual MLP blocks on either side
    dim     d, a multiple of s^2
    """

    tokenizer_type: ClassVar[str] = "token-shuffle"

    window: int = 2
    blocks: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("window", self.window, 1, self.side)
        check_range("blocks", self.blocks, 0, 64)
        if self.side % self.window:
            raise ValueError(
                f"window={self.window} on a feature map of {self.side} a side: expected a divisor"
            )
        if self.dim % self.window**2:
            raise ValueError(f"dim={self.dim} with window={self.window}: expected a multiple of its square")

    def facts(self) -> Facts:
        """All but identity."""
        return self._facts("token-shuffle", (self.side // self.window) ** 2)


class TokenShuffle(VisualTokenizer):
    """Images as a row of windows; `decode_latents` gives the tokens of all places back."""

    config_type = TokenShuffleConfig
    config: TokenShuffleConfig

    def __init__(self, config: TokenShuffleConfig) -> None:
        super().__init__(config)
        self.project_in = nn.Linear(self.encoder.width, config.dim)
        self.shuffle = Shuffle(config.dim, config.window, config.blocks)
        self.unshuffle = Unshuffle(config.dim, config.window, config.blocks)

    def tokens_of(self, features: Tensor) -> Tensor:
        return self.shuffle(self.project_in(features).flatten(1, 2), self.config.side)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """The visual tokens of all places, row by row: (B, side**2, d)."""
        return self.unshuffle(tokens.values.to(self.dtype), self.config.side)


class Shuffle(nn.Module):
    """Tokens of a map of `side` places a side, row by row: (B, side * w, d) -> (B, side * w / s^2, d)."""

    def __init__(self, dim: int, window: int, blocks: int = 2) -> None:
        super().__init__()
        self.window = window
        self.squeeze = nn.Linear(dim, dim // window**2)
        self.blocks = nn.Sequential(*(MlpBlock(dim) for _ in range(blocks)))

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        return self.blocks(merge_windows(self.squeeze(tokens), side, self.window))


class Unshuffle(nn.Module):
    """The way back: (B, side * w / s^2, d) -> (B, side * w, d)."""

    def __init__(self, dim: int, window: int, blocks: int = 2) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.Sequential(*(MlpBlock(dim) for _ in range(blocks)))
        self.widen = nn.Linear(dim // window**2, dim)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        return self.widen(split_windows(self.blocks(tokens), side, self.window))


class MlpBlock(nn.Module):
    """x + MLP(LayerNorm(x)), the identity at first: (..., d) -> (..., d)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.up = nn.Linear(dim, MLP_RATIO * dim)
        self.down = nn.Linear(MLP_RATIO * dim, dim)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def merge_windows(tokens: Tensor, side: int, window: int) -> Tensor:
    """Windows of a map laid side by side: (B, side * w, D) -> (B, side * w / s^2, s^2 D), all row by row."""
    return rearrange(tokens, "b (h y w x) d -> b (h w) (y x d)", h=side // window, y=window, x=window)


def split_windows(tokens: Tensor, side: int, window: int) -> Tensor:
    """The exact inverse of `merge_windows`."""
    return rearrange(tokens, "b (h w) (y x d) -> b (h y w x) d", h=side // window, y=window, x=window)
