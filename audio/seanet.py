"""SEANet (arXiv 2009.02095), the convolutional encoder and decoder of EnCodec and its descendants.

EnCodec, SpeechTokenizer, WavTokenizer (the encoder) and Mimi differ in sizes, padding, norm and activation.
Plain tensors in, plain tensors out; layers are numbered as in the official files.
Source: facebookresearch/encodec, modules/seanet.py and lstm.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..zoo.config import check_range
from .conv import Conv1d, ConvTranspose1d, PadMode
from .snake import Snake
from .stream_state import StreamState, step_through


@dataclass(frozen=True)
class SeanetConfig:
    """Shape of a SEANet; the defaults are those of EnCodec at 24 kHz, save that it is causal.

    channels           of the signal
    filters            width next to the signal; each change of rate doubles it
    ratios             strides of the decoder in its order, coarsest first; the encoder has them reversed
    kernel             of the first convolution
    last_kernel        of the last convolution
    residual_kernel    of the residual blocks
    residual_layers    residual blocks at each rate
    dilation_base      each further block at a rate has its kernel spread so many times wider
    compress           how much narrower residual blocks are inside
    true_skip          residual blocks add their input as it is, not through a 1x1 convolution
    causal             nothing looks ahead
    pad_mode           of all convolutions
    group_norm         after every convolution; whole items only
    activation         "elu" or "snake"
    lstm_layers        between the coarsest convolutions, 0 for none
    bidirectional      the LSTM of the encoder runs both ways; that of the decoder never does
    """

    channels: int = 1
    filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 3
    residual_layers: int = 1
    dilation_base: int = 2
    compress: int = 2
    true_skip: bool = False
    causal: bool = False
    pad_mode: PadMode = "reflect"
    group_norm: bool = False
    activation: Literal["elu", "snake"] = "elu"
    lstm_layers: int = 2
    bidirectional: bool = False

    def __post_init__(self) -> None:
        check_range("channels", self.channels, 1, 64)
        check_range("filters", self.filters, 1, 1024)
        check_range("number of ratios", len(self.ratios), 1, 8)
        for ratio in self.ratios:
            check_range("ratios", ratio, 1, 64)
        for name in ("kernel", "last_kernel", "residual_kernel"):
            check_range(name, getattr(self, name), 1, 63)
        check_range("residual_layers", self.residual_layers, 0, 16)
        check_range("dilation_base", self.dilation_base, 1, 8)
        check_range("compress", self.compress, 1, self.filters)
        check_range("lstm_layers", self.lstm_layers, 0, 16)
        if self.causal and (self.group_norm or self.bidirectional):
            raise ValueError(
                "causal with group_norm or bidirectional: both look ahead; expected one or other"
            )

    @property
    def hop_samples(self) -> int:
        """Samples per latent."""
        return math.prod(self.ratios)

    def conv(
        self, channels_in: int, channels: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> Conv1d:
        return Conv1d(
            channels_in,
            channels,
            kernel,
            stride=stride,
            dilation=dilation,
            causal=self.causal,
            pad_mode=self.pad_mode,
            group_norm=self.group_norm,
        )

    def activate(self, channels: int) -> nn.Module:
        return Snake(channels) if self.activation == "snake" else nn.ELU()

    def residual_blocks(self, channels: int) -> list[nn.Module]:
        """The blocks at one rate, their kernels spread wider one after another."""
        return [
            ResidualBlock(self, channels, self.dilation_base**layer) for layer in range(self.residual_layers)
        ]


class SeanetEncoder(nn.Module):
    """Sound to latents: (B, channels, S) float -> (B, dim, ceil(S / hop)) float."""

    def __init__(self, config: SeanetConfig, dim: int) -> None:
        super().__init__()
        width = config.filters
        layers: list[nn.Module] = [config.conv(config.channels, width, config.kernel)]
        for ratio in reversed(config.ratios):
            layers += config.residual_blocks(width)
            layers += [config.activate(width), config.conv(width, 2 * width, 2 * ratio, stride=ratio)]
            width *= 2
        if config.lstm_layers:
            layers.append(ResidualLstm(width, config.lstm_layers, bidirectional=config.bidirectional))
            width *= 2 if config.bidirectional else 1
        layers += [config.activate(width), config.conv(width, dim, config.last_kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, sound: Tensor) -> Tensor:
        return self.layers(sound)

    def step(self, sound: Tensor, state: StreamState, last: bool = False) -> Tensor:
        """See `Streaming.step`; causal ones only."""
        return step_through(self.layers, sound, state, last)


class SeanetDecoder(nn.Module):
    """Latents to sound: (B, dim, F) float -> (B, channels, F * hop) float, not clamped."""

    def __init__(self, config: SeanetConfig, dim: int) -> None:
        super().__init__()
        width = config.filters << len(config.ratios)
        layers: list[nn.Module] = [config.conv(dim, width, config.kernel)]
        if config.lstm_layers:
            layers.append(ResidualLstm(width, config.lstm_layers))
        for ratio in config.ratios:
            up = ConvTranspose1d(
                width,
                width // 2,
                2 * ratio,
                stride=ratio,
                causal=config.causal,
                group_norm=config.group_norm,
            )
            layers += [config.activate(width), up]
            width //= 2
            layers += config.residual_blocks(width)
        layers += [config.activate(width), config.conv(width, config.channels, config.last_kernel)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)

    def step(self, latents: Tensor, state: StreamState, last: bool = False) -> Tensor:
        """See `Streaming.step`; causal ones only."""
        return step_through(self.layers, latents, state, last)


class ResidualBlock(nn.Module):
    """A spread convolution, narrower inside, and a 1x1 one, plus the input: (B, channels, T) float."""

    def __init__(self, config: SeanetConfig, channels: int, dilation: int) -> None:
        super().__init__()
        hidden = channels // config.compress
        self.block = nn.Sequential(
            config.activate(channels),
            config.conv(channels, hidden, config.residual_kernel, dilation=dilation),
            config.activate(hidden),
            config.conv(hidden, channels, 1),
        )
        self.shortcut = nn.Identity() if config.true_skip else config.conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)

    def step(self, x: Tensor, state: StreamState, last: bool = False) -> Tensor:
        """See `Streaming.step`. The block starts later than the shortcut, which waits for it."""
        ahead = step_through([self.shortcut], x, state, last)
        waiting = state.recall(self)
        if waiting is not None:
            ahead = torch.cat([waiting, ahead], dim=-1)
        found = step_through(self.block, x, state, last)
        ready = found.shape[-1]
        state.remember(self, ahead[..., ready:].clone())
        return ahead[..., :ready] + found


class ResidualLstm(nn.Module):
    """An LSTM over time, plus its input: (B, channels, T) float -> the same.

    Bidirectional, the input is added to both directions: (B, 2 channels, T).
    """

    def __init__(self, channels: int, layers: int, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(2, 0, 1)
        found, _ = self.lstm(x)
        return (found + (torch.cat([x, x], dim=-1) if self.lstm.bidirectional else x)).permute(1, 2, 0)

    def step(self, x: Tensor, state: StreamState, last: bool = False) -> Tensor:
        """See `Streaming.step`: the hidden and cell states (layers, B, channels) go on."""
        if self.lstm.bidirectional:
            raise ValueError("a bidirectional LSTM looks ahead: it has no steps")
        if not x.shape[-1]:
            return x
        x = x.permute(2, 0, 1)
        found, memory = self.lstm(x, state.recall(self))
        state.remember(self, memory)
        return (found + x).permute(1, 2, 0)
