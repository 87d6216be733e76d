"""The pre-norm transformer that the image families share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.attention import attention
from ..kernels.packing import Packing, packed_attention
from .config import check_range

MLP_RATIO = 4
NORM_EPS = 1e-5


@dataclass(frozen=True)
class TransformerSize:
    """Size of one transformer: features, number of blocks, attention heads."""

    width: int
    layers: int
    heads: int

    def __post_init__(self) -> None:
        check_range("width", self.width, 1, 16384)
        check_range("layers", self.layers, 1, 256)
        check_range("heads", self.heads, 1, 256)
        if self.width % self.heads:
            raise ValueError(f"width={self.width} with heads={self.heads}: expected a multiple of the heads")


class Attention(nn.Module):
    """Multi-head self-attention with packed query, key and value projections; rows as `Block` has them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, rows: Tensor | Packing | None = None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        if isinstance(rows, Packing):
            return self.out(packed_attention(query, key, value, rows).flatten(-2))
        mixed = attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), keep=rows)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Pre-norm block: LayerNorm (eps 1e-5), attention, LayerNorm, MLP with exact GELU; each half residual.

    x        (B, N, D) float, or packed (T, D)
    rows     which tokens belong together: None, all of a row; (B, N) bool, those of a row where it is True;
             with packed tokens their Packing
    returns  as x; tokens where `rows` is False are meaningless

    Source: bytedance/1d-tokenizer, ResidualAttentionBlock (after OpenCLIP).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, x: Tensor, rows: Tensor | Packing | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), rows)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A LayerNorm, then `size.layers` blocks.

    x        (B, N, D) float
    keep     (B, N) bool, True where a token is there, anywhere in its row; None when all are
    returns  (B, N, D) float; rows where keep is False are meaningless

    With `keep` the kept tokens alone are computed, packed. Compiled and exported graphs, whose shapes cannot
    depend on values, compute all tokens and hide the others by a mask. Both give what each item gives alone.
    """

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width, eps=NORM_EPS)
        self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.layers))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is None or torch.compiler.is_compiling():
            return self._mix(x, keep)
        packing = Packing.of(keep)
        return packing.unpack(self._mix(packing.pack(x), packing))

    def _mix(self, x: Tensor, rows: Tensor | Packing | None) -> Tensor:
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, rows)
        return x
