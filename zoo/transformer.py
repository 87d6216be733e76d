"""The pre-norm transformer that the image families share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

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
    """Multi-head self-attention with packed query, key and value projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        heads = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if keep is None else keep[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-norm block: LayerNorm (eps 1e-5), attention, LayerNorm, MLP with exact GELU; each half residual.

    x        (B, N, D) float
    keep     (B, N) bool, True where a token may be attended to; None when all may
    returns  (B, N, D) float; rows where keep is False are meaningless

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

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), keep)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A LayerNorm, then `size.layers` blocks: (B, N, D), keep (B, N) bool or None -> (B, N, D)."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width, eps=NORM_EPS)
        self.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.layers))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, keep)
        return x
