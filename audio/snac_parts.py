"""The encoder and decoder of SNAC: DAC's, with depthwise convolutions, attention in windows, and noise.

Plain tensors in, plain tensors out; layers are numbered as in the official files, whose weight norm is folded
when loading. Source: hubertsiuzdak/snac f49016a, snac/layers.py and snac/attention.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dac_parts import DownBlock, UpBlock, wide_conv
from .reach import WindowedLayer
from .snake import Snake

HEAD_FEATURES = 64
ROTARY_BASE = 10_000


class SnacEncoder(nn.Sequential):
    """Sound (B, 1, T * hop) -> latents (B, D, T); every stride doubles the channels, up to D.

    window_size  attention before the last convolution, in windows of so many latents; 0 for none
    """

    def __init__(self, channels: int, strides: Sequence[int], window_size: int) -> None:
        widest = channels << len(strides)
        super().__init__(
            wide_conv(1, channels),
            *(DownBlock(channels << level, stride, depthwise=True) for level, stride in enumerate(strides)),
            *([WindowAttention(widest, window_size)] if window_size else []),
            wide_conv(widest, widest, groups=widest),
        )


class SnacDecoder(nn.Sequential):
    """Latents (B, features, T) and noise -> sound (B, 1, T * hop) in [-1, 1]; strides halve the channels."""

    def __init__(self, features: int, channels: int, strides: Sequence[int], window_size: int) -> None:
        narrowest = channels >> len(strides)
        super().__init__(
            wide_conv(features, features, groups=features),
            nn.Conv1d(features, channels, 1),
            *([WindowAttention(channels, window_size)] if window_size else []),
            *(NoisyUpBlock(channels >> level, stride) for level, stride in enumerate(strides)),
            Snake(narrowest),
            wide_conv(narrowest, 1),
            nn.Tanh(),
        )

    def forward(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """noise: (B, 1, T * strides so far) for each block."""
        x, left = latents, iter(noise)
        for layer in self:
            x = layer(x, next(left)) if isinstance(layer, NoisyUpBlock) else layer(x)
        return x


class NoisyUpBlock(UpBlock):
    """As `UpBlock`, depthwise, with noise after the transposed convolution."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, stride, fills=True, depthwise=True)
        self.insert(2, ScaledNoise(channels // 2))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        for layer in self:
            x = layer(x, noise) if isinstance(layer, ScaledNoise) else layer(x)
        return x


class ScaledNoise(nn.Module):
    """x + noise, one for all channels, as loud in each as a linear map of x says: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.linear(x).mul_(noise).add_(x)


class WindowAttention(WindowedLayer):
    """x + attention of every position to its window of a row: (B, C, T) -> (B, C, T), T whole windows.

    channels  a multiple of 64, which is the width of a head
    """

    def __init__(self, channels: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.heads = channels // HEAD_FEATURES
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(self.norm(x.transpose(1, 2)))
        # (B, T, 3 C) -> (3, B, windows, heads, window_size, 64)
        split = rows.unflatten(1, (-1, self.window_size)).unflatten(3, (3, self.heads, -1))
        query, key, value = split.permute(3, 0, 1, 4, 2, 5)
        heard = F.scaled_dot_product_attention(self._turned(query), self._turned(key), value)
        return x + self.out(heard.transpose(2, 3).flatten(1, 2).flatten(2)).transpose(1, 2)

    def _turned(self, heads: Tensor) -> Tensor:
        """With rotary positions, the features of a head in two halves."""
        cosines, sines = _rotary(self.window_size, heads.device, heads.dtype)
        first, second = heads.chunk(2, dim=-1)
        return heads * cosines + torch.cat([-second, first], dim=-1) * sines


@cache
@torch.inference_mode(False)
def _rotary(count: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles: (count, 64) each."""
    rates = ROTARY_BASE ** -(torch.arange(0, HEAD_FEATURES, 2) / HEAD_FEATURES)
    angles = (torch.arange(count)[:, None] * rates).repeat(1, 2)
    return angles.cos().to(device, dtype), angles.sin().to(device, dtype)
