"""The transformer of Mimi (arXiv 2410.00037): causal over a sliding window, rotary positions, layer scale.

Source: kyutai-labs/moshi, modules/transformer.py and rope.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.attention import KeyValueCache, attention
from ..zoo.config import check_range
from .stream_state import StreamState

NORM_EPS = 1e-5


@dataclass(frozen=True)
class CausalTransformerConfig:
    """Shape of a causal transformer; the defaults are those of Mimi.

    width        of its latents
    layers       number of blocks
    heads        of the attention
    hidden       width inside the MLPs
    window       how many places a query sees, its own the last of them
    period       slowest wavelength of the rotary positions, over 2 pi
    layer_scale  where the scales of the residual branches start
    """

    width: int = 512
    layers: int = 8
    heads: int = 8
    hidden: int = 2048
    window: int = 250
    period: float = 10_000.0
    layer_scale: float = 0.01

    def __post_init__(self) -> None:
        check_range("width", self.width, 1, 16384)
        check_range("layers", self.layers, 0, 256)
        check_range("heads", self.heads, 1, 256)
        check_range("hidden", self.hidden, 1, 65536)
        check_range("window", self.window, 1, 1 << 20)
        check_range("period", self.period, 1, 1e9)
        check_range("layer_scale", self.layer_scale, 0, 1e3)
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width={self.width} with heads={self.heads}: expected a multiple of twice the heads"
            )


@dataclass(frozen=True, eq=False)
class Turns:
    """How far each pair of features turns at each place: (N, D / 2) float each."""

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Turn the pairs of neighbours in (..., N, D); in float32 at least."""
        even, odd = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)).unbind(-1)
        turned = (even * self.cos - odd * self.sin, even * self.sin + odd * self.cos)
        return torch.stack(turned, dim=-1).flatten(-2).to(x.dtype)


class CausalTransformer(nn.Module):
    """(B, width, N) float -> the same; place n depends on places up to n alone.

    In time and memory of O(N window).
    """

    def __init__(self, config: CausalTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(CausalBlock(config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        return self._mix(x, 0, None)

    def step(self, x: Tensor, state: StreamState, last: bool = False) -> Tensor:
        """See `Streaming.step`: as many places come out as go in."""
        if not x.shape[-1]:
            return x
        start = state.recall(self) or 0
        state.remember(self, start + x.shape[-1])
        return self._mix(x, start, state)

    def _mix(self, x: Tensor, start: int, state: StreamState | None) -> Tensor:
        x = x.transpose(1, 2)
        turns = self._turns(start, x)
        for layer in self.layers:
            x = layer(x, turns, state)
        return x.transpose(1, 2)

    def _turns(self, start: int, x: Tensor) -> Turns:
        """Of the places from `start` on, rounded as the official code rounds: in float32, unless wider."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        pairs = self.config.width // self.config.heads // 2
        pair = torch.arange(pairs, dtype=dtype, device=x.device)
        speed = torch.exp(pair * (-math.log(self.config.period) / pairs))
        place = torch.arange(start, start + x.shape[1], dtype=dtype, device=x.device)
        angle = speed * place[:, None]
        return Turns(angle.cos(), angle.sin())


class CausalBlock(nn.Module):
    """Pre-norm attention and MLP with exact GELU, no biases, each branch scaled feature by feature."""

    def __init__(self, config: CausalTransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = CausalAttention(width, config.heads, config.window)
        self.scale1 = nn.Parameter(torch.full((width,), config.layer_scale))
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.hidden, bias=False),
            nn.GELU(),
            nn.Linear(config.hidden, width, bias=False),
        )
        self.scale2 = nn.Parameter(torch.full((width,), config.layer_scale))

    def forward(self, x: Tensor, turns: Turns, state: StreamState | None = None) -> Tensor:
        x = x + self.scale1 * self.attention(self.norm1(x), turns, state)
        return x + self.scale2 * self.mlp(self.norm2(x))


class CausalAttention(nn.Module):
    """Multi-head attention of (B, N, width) over the window; a stream keeps the keys that are still seen."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, turns: Turns, state: StreamState | None = None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = turns.apply(query), turns.apply(key)
        if state is not None:
            cache = state.recall(self) or KeyValueCache(self.window)
            state.remember(self, cache)
            key, value = cache.extend(key, value)
        mixed = attention(query, key, value, causal=True, window=self.window)
        return self.out(mixed.transpose(1, 2).flatten(-2))
