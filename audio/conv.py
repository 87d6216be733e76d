"""Convolutions over time that pad as EnCodec does, centred or causal, whole or step by step.

Source: facebookresearch/encodec, modules/conv.py. A weight norm of the official code is folded when loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .stream_state import StreamState

PadMode = Literal["constant", "reflect", "replicate"]


@dataclass(frozen=True, eq=False)
class _Window:
    """What a causal convolution keeps: inputs still to be seen, with the left padding once it is known."""

    inputs: Tensor
    is_padded: bool


class Conv1d(nn.Conv1d):
    """(B, channels_in, T) float -> (B, channels, ceil(T / stride)) float, padded by itself.

    causal      all of the padding stands on the left, otherwise the smaller half stands on the right; at the
                end always as much more as fills the last window
    pad_mode    what the padding is
    group_norm  layer norm over channels and time after the convolution (EnCodec 48 kHz)
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        causal: bool = False,
        pad_mode: PadMode = "reflect",
        group_norm: bool = False,
    ) -> None:
        super().__init__(channels_in, channels, kernel, stride, dilation=dilation, groups=groups, bias=bias)
        # What a window sees besides its own stride of inputs.
        self.context = (kernel - 1) * dilation + 1 - stride
        least = stride - 1 if causal and pad_mode == "reflect" else 0
        if self.context < least:
            raise ValueError(
                f"kernel {kernel} at stride {stride}, dilation {dilation}: the window sees {self.context} "
                f"inputs besides its stride; expected at least {least}"
            )
        self.causal = causal
        self.pad_mode: PadMode = pad_mode
        self.norm = nn.GroupNorm(1, channels) if group_norm else None

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        right = 0 if self.causal else self.context // 2
        extra = -x.shape[-1] % self.stride[0]
        return self._convolve(pad(x, self.context - right, right + extra, self.pad_mode))

    def step(self, x: Tensor, state: StreamState, last: bool = False) -> Tensor:
        """See `Streaming.step`. Reflection needs `context` + 1 inputs before it gives the first output."""
        if not self.causal or self.norm is not None:
            raise ValueError("this convolution looks ahead, or norms over time: only causal ones have steps")
        window = state.recall(self)
        if window is not None:
            x = torch.cat([window.inputs, x], dim=-1)
        if window is None or not window.is_padded:
            if last and x.shape[-1]:
                return self(x)
            if x.shape[-1] <= (self.context if self.pad_mode == "reflect" else 0):
                state.remember(self, _Window(x.clone(), is_padded=False))
                return self._nothing(x)
            x = pad(x, self.context, 0, self.pad_mode)
        if last:
            x = pad(x, 0, -(x.shape[-1] - self.context) % self.stride[0], self.pad_mode)
        done = (x.shape[-1] - self.context) // self.stride[0] * self.stride[0]
        state.remember(self, _Window(x[..., done:].clone(), is_padded=True))
        return self._convolve(x[..., : self.context + done]) if done else self._nothing(x)

    def _convolve(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.norm is None else self.norm(x)

    def _nothing(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.out_channels, 0)


class ConvTranspose1d(nn.ConvTranspose1d):
    """(B, channels_in, T) float -> (B, channels, T * stride) float: what the kernel adds at the ends is cut.

    causal      all of it is cut on the right, otherwise the smaller half
    group_norm  as in `Conv1d`, before the cut
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        causal: bool = False,
        group_norm: bool = False,
    ) -> None:
        super().__init__(channels_in, channels, kernel, stride, groups=groups, bias=bias)
        if kernel < stride:
            raise ValueError(f"kernel {kernel} at stride {stride}: expected a kernel that leaves no gaps")
        self.causal = causal
        self.norm = nn.GroupNorm(1, channels) if group_norm else None

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        surplus = self.kernel_size[0] - self.stride[0]
        right = surplus if self.causal else surplus // 2
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return x[..., surplus - right : x.shape[-1] - right]

    def step(self, x: Tensor, state: StreamState, last: bool = False) -> Tensor:
        """See `Streaming.step`: T * stride outputs at every step."""
        if not self.causal or self.norm is not None:
            raise ValueError("this convolution looks ahead, or norms over time: only causal ones have steps")
        if not x.shape[-1]:
            return x.new_zeros(len(x), self.out_channels, 0)
        # Earlier inputs that still reach into new outputs are seen again: sums in the order of `forward`.
        past = state.recall(self)
        seen = x if past is None else torch.cat([past, x], dim=-1)
        reach = -(-self.kernel_size[0] // self.stride[0]) - 1
        state.remember(self, seen[..., max(seen.shape[-1] - reach, 0) :].clone())
        return self(seen)[..., (seen.shape[-1] - x.shape[-1]) * self.stride[0] :]


def pad(x: Tensor, left: int, right: int, mode: PadMode) -> Tensor:
    """(B, C, T) -> (B, C, left + T + right).

    Reflection of an input that is too short for it sees zeros on its right, as the official code does.
    """
    if not left and not right:
        return x
    if mode != "reflect":
        return F.pad(x, (left, right), mode=mode)
    missing = max(max(left, right) + 1 - x.shape[-1], 0)
    padded = F.pad(F.pad(x, (0, missing)) if missing else x, (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - missing]
