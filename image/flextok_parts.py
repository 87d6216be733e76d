"""The two transformers of FlexTok: plain tensors in, plain tensors out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.attention import attention
from ..zoo.transformer import NORM_EPS, TransformerSize

if TYPE_CHECKING:
    from .flextok import FlexTokConfig

# The highest frequency of the time embedding over the lowest; other diffusion models have 10000.
MAX_PERIOD = 256


class FlexTokEncoder(nn.Module):
    """Latent maps to registers: (B, C, h, w) float -> (B, count, D) float.

    Patches see each other, a register sees the patches and the registers up to itself. What the first
    registers say therefore does not depend on how many follow, and only `count` of them are computed.
    """

    def __init__(self, config: FlexTokConfig) -> None:
        super().__init__()
        width = config.encoder.width
        self.patches = PatchEmbedding(config, width)
        self.registers = nn.Parameter(0.02 * torch.randn(config.num_tokens, width))
        self.blocks = nn.ModuleList(Block(config.encoder) for _ in range(config.encoder.layers))
        self.head = nn.Linear(width, len(config.levels))

    def forward(self, maps: Tensor, count: int | None = None) -> Tensor:
        patches = self.patches(maps)
        batch, prefix, _ = patches.shape
        x = torch.cat([patches, self.registers[:count].expand(batch, -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x, prefix, prefix + len(self.registers))
        # Of all rows: a product with few rows adds up in another order, and the last bit can turn an id.
        return self.head(_norm(x))[:, prefix:]


class FlexTokDecoder(nn.Module):
    """The velocity of noised latent maps, under the condition of registers.

    maps       (B, C, h, w) float, noised
    times      (B,) float, 0 for data and 1 for noise
    registers  (B, num_tokens, width) from `embed`, or the unconditional ones
    returns    (B, C, h, w) float
    """

    def __init__(self, config: FlexTokConfig) -> None:
        super().__init__()
        width = config.decoder.width
        self.patch_size = config.patch_size
        self.separate_modulation = config.separate_modulation
        self.latent_embed = nn.Linear(len(config.levels), width)
        self.register_positions = nn.Parameter(0.02 * torch.randn(1, 1, width, config.num_tokens))
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.null_token = nn.Parameter(0.02 * torch.randn(width))
        self.patches = PatchEmbedding(config, width)
        self.time = TimeEmbedding(config.time_waves, width, config.time_scale)
        self.blocks = nn.ModuleList(
            ModulatedBlock(config.decoder, 2 if config.separate_modulation else 1)
            for _ in range(config.decoder.layers)
        )
        self.head_modulation = _zeroed(nn.Linear(width, 2 * width))
        self.head = _zeroed(nn.Linear(width, config.patch_size**2 * config.vae.latent_dim))

    def embed(self, latents: Tensor, lengths: Tensor) -> Tensor:
        """Quantized latents (B, N, D), of which `lengths` (B,) count, as registers (B, num_tokens, width).

        Every register without a token is the mask token and, added to no position, does not know its place.
        """
        positions = self.register_positions[0, 0].T
        latents = F.pad(latents, (0, 0, 0, len(positions) - latents.shape[1]))
        told = torch.arange(len(positions), device=latents.device) < lengths[:, None]
        embedded = self.latent_embed(latents.to(positions.dtype)) + positions
        return torch.where(told[..., None], embedded, self.mask_token)

    def unconditional(self, registers: Tensor) -> Tensor:
        """As many registers that say nothing, not even how many tokens there were."""
        return self.null_token.expand_as(registers)

    def forward(self, maps: Tensor, times: Tensor, registers: Tensor) -> Tensor:
        patches = self.patches(maps)
        count = patches.shape[1]
        x = torch.cat([patches, registers], dim=1)
        spans = (torch.arange(x.shape[1], device=x.device) >= count).long()
        if not self.separate_modulation:
            spans = torch.zeros_like(spans)
        time = F.silu(self.time(times))
        for block in self.blocks:
            x = block(x, time, spans)
        shift, scale = self.head_modulation(time)[:, None].chunk(2, dim=-1)
        x = self.head(_modulated(x[:, :count], shift, scale))
        return rearrange(
            x,
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=maps.shape[2] // self.patch_size,
            p=self.patch_size,
            q=self.patch_size,
        )


class PatchEmbedding(nn.Module):
    """Latent maps to patches with their places added: (B, C, h, w) float -> (B, N, width) float, row by row.

    The table of places is stored in official files, so it is in ours; maps smaller than it use its corner.
    """

    positions: Tensor

    def __init__(self, config: FlexTokConfig, width: int) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.projection = nn.Linear(config.patch_size**2 * config.vae.latent_dim, width)
        self.register_buffer("positions", sine_positions(config.position_grid, width))

    def forward(self, maps: Tensor) -> Tensor:
        # Channels vary fastest within a patch.
        patches = rearrange(maps, "b c (h p) (w q) -> b h w (p q c)", p=self.patch_size, q=self.patch_size)
        high, wide = patches.shape[1:3]
        places = self.positions[0, :, :high, :wide].permute(1, 2, 0)
        return (self.projection(patches) + places).flatten(1, 2)


class TimeEmbedding(nn.Module):
    """Cosines and sines of the time, then an MLP: (B,) float in [0, 1] -> (B, width) float."""

    def __init__(self, waves: int, width: int, scale: float) -> None:
        super().__init__()
        self.waves = waves
        self.scale = scale
        self.mlp = nn.Sequential(nn.Linear(2 * waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        exponents = torch.arange(self.waves, dtype=torch.float32, device=times.device) / self.waves
        frequencies = self.scale * torch.exp(-math.log(MAX_PERIOD) * exponents)
        angles = times.float()[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(waves.to(next(self.parameters()).dtype))


class Attention(nn.Module):
    """Self-attention with normalized queries and keys: (B, N, width) float -> the same.

    prefix  so many tokens see each other, and later ones see them and all up to themselves; None: all see all
    room    tokens that a whole row would have: sums run over as many keys, in the same order, and agree with
            the whole row's to the last bit

    The scale 8 / head width is that of muP (Yang et al. 2022, arXiv 2203.03466), the usual root at 64 only.
    """

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.scale = 8 * size.heads / size.width
        self.query, self.key, self.value, self.out = (
            nn.Linear(size.width, size.width, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, prefix: int | None = None, room: int | None = None) -> Tensor:
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        query, key = _norm(query), _norm(key)
        count = x.shape[1]
        if room is not None and room > count:
            query, key, value = (F.pad(rows, (0, 0, 0, room - count)) for rows in (query, key, value))
        mixed = attention(query, key, value, causal=prefix is not None, prefix=prefix or 0, scale=self.scale)
        return self.out(mixed[:, :, :count].transpose(1, 2).flatten(-2))


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202), two thirds as wide as an MLP of ratio 4, rounded down."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * width // 3
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Pre-norm block without biases or norm weights: (B, N, width) -> the same; the rest is `Attention`'s."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.attention = Attention(size)
        self.mlp = GatedMLP(size.width)

    def forward(self, x: Tensor, prefix: int, room: int) -> Tensor:
        x = x + self.attention(_norm(x), prefix, room)
        return x + self.mlp(_norm(x))


class ModulatedBlock(nn.Module):
    """A `Block` that the time shifts, scales and gates: adaLN-Zero (Peebles and Xie 2022, arXiv 2212.09748).

    x        (B, N, width) float
    time     (B, width) float
    spans    (N,) int64, which of the modulations each token takes
    returns  (B, N, width) float; x itself before training
    """

    def __init__(self, size: TransformerSize, modulations: int) -> None:
        super().__init__()
        self.attention = Attention(size)
        self.mlp = GatedMLP(size.width)
        self.modulation = _zeroed(nn.Linear(size.width, modulations * 6 * size.width))

    def forward(self, x: Tensor, time: Tensor, spans: Tensor) -> Tensor:
        parts = self.modulation(time).unflatten(-1, (-1, 6, x.shape[-1])).index_select(1, spans)
        # Both gates come first, unlike in DiT.
        gate1, gate2, shift1, scale1, shift2, scale2 = parts.unbind(2)
        x = x + gate1 * self.attention(_modulated(x, shift1, scale1))
        return x + gate2 * self.mlp(_modulated(x, shift2, scale2))


def sine_positions(side: int, width: int) -> Tensor:
    """(1, width, side, side): sines and cosines of the row in the first half, of the column in the second."""
    frequencies = 10000 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1).T
    rows, columns = waves[:, :, None], waves[:, None, :]
    return torch.cat([rows.expand(-1, -1, side), columns.expand(-1, side, -1)])[None]


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return _norm(x) * (1 + scale) + shift


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
