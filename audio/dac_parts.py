"""The convolutional encoder and decoder of DAC (arXiv 2306.06546), which SNAC and BigCodec build on.

Plain tensors in, plain tensors out; layers are numbered as in the official files, whose weight norm is folded
when loading. Source: descriptinc/descript-audio-codec, dac/model/dac.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from .snake import Snake

KERNEL = 7
DILATIONS = (1, 3, 9)

# An activation for so many channels.
Activation = Callable[[int], nn.Module]


class ResidualUnit(nn.Sequential):
    """x + what a wide and a 1x1 convolution make of it: (B, C, T) -> (B, C, T).

    groups  of the wide convolution; `channels` makes it depthwise (SNAC)
    """

    def __init__(
        self, channels: int, dilation: int, *, groups: int = 1, activation: Activation = Snake
    ) -> None:
        super().__init__(
            activation(channels),
            wide_conv(channels, channels, dilation=dilation, groups=groups),
            activation(channels),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        # In place: the output of the convolution is nobody else's.
        return super().forward(x).add_(x)


class DownBlock(nn.Sequential):
    """Three residual units and a strided convolution: (B, C, T * stride) -> (B, 2 C, T)."""

    def __init__(
        self, channels: int, stride: int, *, depthwise: bool = False, activation: Activation = Snake
    ) -> None:
        super().__init__(
            *_units(channels, depthwise, activation),
            activation(channels),
            nn.Conv1d(channels, 2 * channels, 2 * stride, stride, padding=math.ceil(stride / 2)),
        )


class UpBlock(nn.Sequential):
    """A transposed convolution and three residual units: (B, C, T) -> (B, C / 2, T * stride).

    fills  an odd stride gives T * stride samples too, as in SNAC and BigCodec; without it DAC's one less
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        *,
        fills: bool = False,
        depthwise: bool = False,
        activation: Activation = Snake,
    ) -> None:
        super().__init__(
            activation(channels),
            nn.ConvTranspose1d(
                channels,
                channels // 2,
                2 * stride,
                stride,
                padding=math.ceil(stride / 2),
                output_padding=stride % 2 if fills else 0,
            ),
            *_units(channels // 2, depthwise, activation),
        )


class DacEncoder(nn.Sequential):
    """Sound (B, 1, N * hop) -> latents (B, features, N); every stride doubles the channels."""

    def __init__(self, channels: int, strides: Sequence[int], features: int) -> None:
        widest = channels << len(strides)
        super().__init__(
            wide_conv(1, channels),
            *(DownBlock(channels << level, stride) for level, stride in enumerate(strides)),
            Snake(widest),
            nn.Conv1d(widest, features, 3, padding=1),
        )


class DacDecoder(nn.Sequential):
    """Latents (B, features, N) -> sound (B, 1, S) in [-1, 1]; every stride halves the channels.

    S is N * hop, or somewhat less where a stride is odd.
    """

    def __init__(self, features: int, channels: int, strides: Sequence[int]) -> None:
        narrowest = channels >> len(strides)
        super().__init__(
            wide_conv(features, channels),
            *(UpBlock(channels >> level, stride) for level, stride in enumerate(strides)),
            Snake(narrowest),
            wide_conv(narrowest, 1),
            nn.Tanh(),
        )


def wide_conv(channels_in: int, channels: int, *, dilation: int = 1, groups: int = 1) -> nn.Conv1d:
    """(B, channels_in, T) -> (B, channels, T), with zeros on both sides."""
    return nn.Conv1d(
        channels_in, channels, KERNEL, dilation=dilation, padding=KERNEL // 2 * dilation, groups=groups
    )


def _units(channels: int, depthwise: bool, activation: Activation) -> list[nn.Module]:
    groups = channels if depthwise else 1
    return [ResidualUnit(channels, dilation, groups=groups, activation=activation) for dilation in DILATIONS]
