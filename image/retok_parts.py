"""The two networks of ReTok: plain tensors in, plain tensors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.attention import attention
from ..zoo.transformer import MLP_RATIO, NORM_EPS, TransformerSize
from .conv_parts import DownLevel, LevelsConfig, conv3, norm
from .open_magvit2 import UpLevel, blocks
from .titok_parts import initialise

if TYPE_CHECKING:
    from .retok import ReTokConfig


class ReTokEncoder(nn.Module):
    """Images to latents: (B, 3, H, W) float in [-1, 1] -> (B, N + spare, D) float, the spare ones last.

    Queries start as means of the feature map over ever smaller cells. All but the first few enter twice, at
    places of their own, so that the tail of the row is trained more often ("redundant token padding"); every
    query sees every other, so that the spare ones matter though no decoder reads them.
    """

    def __init__(self, config: ReTokConfig) -> None:
        super().__init__()
        width = config.encoder.width
        self.first_spare = config.num_tokens - config.num_spare
        self.levels = config.num_tokens.bit_length() - 1
        self.pixels = FeatureEncoder(config.conv, config.features)
        self.norm_in = nn.LayerNorm(config.features, eps=NORM_EPS)
        self.embed = nn.Linear(config.features, width)
        self.query = nn.Linear(width, width)
        self.places = _positions(config.side**2, width)
        self.positions = _positions(config.num_tokens, width)
        self.spare_positions = _positions(config.num_spare, width)
        self.blocks = _query_blocks(config.encoder)
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(width, config.features, 1)
        self.quant_conv = nn.Conv2d(config.features, config.latent_dim, 1)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        features = self.pixels(images)
        memory = self.embed(self.norm_in(features.flatten(2).transpose(1, 2)))
        means = cell_means(memory.transpose(1, 2).unflatten(2, features.shape[2:]), self.levels)
        x = self.query(torch.cat([means, means[:, self.first_spare :]], dim=1))
        positions = torch.cat([self.positions, self.spare_positions]).squeeze(1)
        keys = memory + self.places.squeeze(1)
        for block in self.blocks:
            x = block(x, positions, keys, memory)
        row = self.norm_out(x).transpose(1, 2).unsqueeze(2)
        return self.quant_conv(self.conv_out(row)).squeeze(2).transpose(1, 2)


class ReTokDecoder(nn.Module):
    """Quantized latents to pixels.

    latents  (B, N, D) float, any prefix of the row with at least the first, from which all places start
    lengths  (B,) int64, tokens of each item, when they differ: the padding is read by nobody
    returns  (B, 3, H, W) float around [-1, 1], not clamped
    """

    def __init__(self, config: ReTokConfig) -> None:
        super().__init__()
        width = config.decoder.width
        self.side = config.side
        self.semantic_depth = config.semantic_depth
        self.post_quant_conv = nn.Conv2d(config.latent_dim, config.features, 1)
        self.norm_in = nn.LayerNorm(config.features, eps=NORM_EPS)
        self.embed = nn.Linear(config.features, width)
        self.places = _positions(config.side**2, width)
        self.positions = _positions(config.num_tokens, width)
        self.blocks = _query_blocks(config.decoder)
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS)
        self.conv_out = conv3(width, config.features)
        self.pixels = FeatureDecoder(config.conv, config.features)
        self.semantic = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width),
            nn.SiLU(),
            nn.Linear(MLP_RATIO * width, MLP_RATIO * width),
            nn.SiLU(),
            nn.Linear(MLP_RATIO * width, config.semantic_dim),
        )
        self.apply(initialise)

    def forward(self, latents: Tensor, lengths: Tensor | None = None) -> Tensor:
        x = self.norm_out(self._mix(latents, lengths, len(self.blocks)))
        return self.pixels(self.conv_out(x.transpose(1, 2).unflatten(2, (self.side, self.side))))

    def semantics(self, latents: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the first blocks know of every place, for a vision model to teach: (B, h w, F) float."""
        return self.semantic(self._mix(latents, lengths, self.semantic_depth))

    def _mix(self, latents: Tensor, lengths: Tensor | None, depth: int) -> Tensor:
        """The places (B, h w, width) after so many blocks."""
        row = self.post_quant_conv(latents.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)
        memory = self.embed(self.norm_in(row))
        count = memory.shape[1]
        keys = memory + self.positions[:count].squeeze(1)
        keep = None if lengths is None else torch.arange(count, device=lengths.device) < lengths[:, None]
        places, x = self.places.squeeze(1), memory[:, :1].expand(-1, self.side**2, -1)
        for block in self.blocks[:depth]:
            x = block(x, places, keys, memory, keep)
        return x


class QueryBlock(nn.Module):
    """Pre-norm block of DETR (Carion et al. 2020): attention among queries, to a memory, MLP; each residual.

    x          (B, M, D) float, the queries
    positions  (M, D) float, added to queries and keys but not to values
    keys       (B, N, D) float, the memory with positions
    memory     (B, N, D) float
    keep       (B, N) bool, which of the memory is there; None when all is
    returns    (B, M, D)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.self_attention = QueryAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.cross_attention = QueryAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(
        self, x: Tensor, positions: Tensor, keys: Tensor, memory: Tensor, keep: Tensor | None = None
    ) -> Tensor:
        normed = self.norm1(x)
        x = x + self.self_attention(normed + positions, normed + positions, normed)
        x = x + self.cross_attention(self.norm2(x) + positions, keys, memory, keep)
        return x + self.mlp(self.norm3(x))


class QueryAttention(nn.Module):
    """Multi-head attention with a packed projection: (B, M, D), (B, N, D), (B, N, D) float -> (B, M, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None = None) -> Tensor:
        query, key, value = (
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(
                (query, key, value), self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True
            )
        )
        return self.out(attention(query, key, value, keep=keep).transpose(1, 2).flatten(-2))


class FeatureEncoder(nn.Module):
    """The encoder of LlamaGen without attention: (B, 3, H, W) float -> (B, dim, H / stride, W / stride)."""

    def __init__(self, config: LevelsConfig, dim: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = conv3(3, widths[0])
        self.down = nn.ModuleList(
            DownLevel(
                widths[max(level - 1, 0)],
                width,
                config.blocks,
                attention=False,
                downsample=level < len(widths) - 1,
            )
            for level, width in enumerate(widths)
        )
        self.mid = blocks(widths[-1], widths[-1], 2, bias=True)
        self.norm_out = norm(widths[-1])
        self.conv_out = conv3(widths[-1], dim)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class FeatureDecoder(nn.Module):
    """LlamaGen's without attention, with the norms and the doubling of MAGVIT-v2: the inverse in shapes."""

    def __init__(self, config: LevelsConfig, dim: int) -> None:
        super().__init__()
        coarsest_first = config.widths[::-1]
        self.conv_in = conv3(dim, coarsest_first[0])
        self.mid = blocks(coarsest_first[0], coarsest_first[0], 2, bias=True)
        self.up = nn.ModuleList(
            UpLevel(
                coarsest_first[max(index - 1, 0)],
                width,
                config.blocks + 1,
                dim,
                upsample=index < len(coarsest_first) - 1,
                bias=True,
            )
            for index, width in enumerate(coarsest_first)
        )
        self.norm_out = norm(coarsest_first[-1])
        self.conv_out = conv3(coarsest_first[-1], 3)

    def forward(self, features: Tensor) -> Tensor:
        x = self.mid(self.conv_in(features))
        for level in self.up:
            x = level(x, features)
        return self.conv_out(F.silu(self.norm_out(x)))


def cell_means(features: Tensor, levels: int) -> Tensor:
    """Means over ever smaller cells, row by row: (B, C, side, side) float -> (B, 2 ** levels, C) float.

    The whole map, the whole map again, then 1 x 2 cells, 2 x 2, 2 x 4, ... (GigaTok, arXiv 2504.08736).
    """
    grids = [(2 ** (level // 2), 2 ** ((level + 1) // 2)) for level in (0, *range(levels))]
    means = [F.adaptive_avg_pool2d(features, grid).flatten(2) for grid in grids]
    return torch.cat(means, dim=2).transpose(1, 2)


def _query_blocks(size: TransformerSize) -> nn.ModuleList:
    return nn.ModuleList(QueryBlock(size.width, size.heads) for _ in range(size.layers))


def _positions(count: int, width: int) -> nn.Parameter:
    """(count, 1, width), in the official shape: there the batch stands second."""
    return nn.Parameter(torch.randn(count, 1, width) * width**-0.5)
