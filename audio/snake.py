"""Periodic activations: Snake (Liu et al. 2020, arXiv 2006.08195), and BigVGAN's, alias-free ones too."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Added to the divisor; official, so kept.
EPSILON = 1e-9
# Of the low-pass filter around an alias-free activation, which works at twice the rate.
TAPS = 12
CUTOFF = 0.25
HALF_WIDTH = 0.3
# Samples that the filter reaches to each side, at the lower rate.
REACH = 3


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, with one alpha per channel; (B, C, S) -> (B, C, S).

    Source: descriptinc/descript-audio-codec, dac/nn/layers.py; SNAC and SpeechTokenizer have the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, signal: Tensor) -> Tensor:
        return snake(signal, self.alpha, self.alpha)


class SnakeBeta(nn.Module):
    """x + sin(a x)^2 / b, with one a and one b per channel; (B, C, S) -> (B, C, S).

    log_scale  the parameters are the logarithms of a and b

    Source: BigVGAN, activations.py, as in BigCodec and X-Codec 2.
    """

    def __init__(self, channels: int, *, log_scale: bool = True) -> None:
        super().__init__()
        start = torch.zeros if log_scale else torch.ones
        self.alpha = nn.Parameter(start(channels))
        self.beta = nn.Parameter(start(channels))
        self.log_scale = log_scale

    def forward(self, signal: Tensor) -> Tensor:
        frequency, height = self.alpha[:, None], self.beta[:, None]
        if self.log_scale:
            frequency, height = frequency.exp(), height.exp()
        return snake(signal, frequency, height)


class AliasFreeActivation(nn.Module):
    """`act` at twice the rate, between two low-pass filters; (B, C, S) -> (B, C, S), S >= 1.

    act  an activation of the channels, e.g. `SnakeBeta`

    An output depends on 5 samples to each side. Official files hold the filters, which are constants here:
    their converters drop them.

    Source: junjun3518/alias-free-torch, as in BigVGAN. There, samples are spread out with zeros between them,
    filtered, and thinned out again; here even and odd samples are two signals side by side.
    """

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, signal: Tensor) -> Tensor:
        batch, channels, samples = signal.shape
        rise, fall = _taps()
        first, last = signal[..., None, :1], signal[..., None, -1:]
        phases = _correlate(_padded(signal[:, :, None], first, last), rise)
        # Even and odd samples of a channel lie behind one another: an activation does not mind the order.
        active = self.act(phases.reshape(batch, channels, 2 * samples)).view_as(phases)
        # The first sample of all is an even one and the last an odd one: these are what is repeated.
        first, last = active[:, :, :1, :1], active[:, :, 1:, -1:]
        return _correlate(_padded(active, first, last), fall)[:, :, 0]


def snake(signal: Tensor, frequency: Tensor, height: Tensor) -> Tensor:
    """x + sin(frequency x)^2 / height.

    signal             (B, C, S) float
    frequency, height  broadcast against it
    """
    scale = (height + EPSILON).reciprocal()
    waves = signal * frequency
    if torch.is_grad_enabled():
        return signal + waves.sin().square() * scale
    # In place, as fresh memory costs more than the sine; the operations and their order are the same.
    return waves.sin_().square_().mul_(scale).add_(signal)


def _low_pass() -> Tensor:
    """(TAPS,): a sinc under a Kaiser window, of sum 1."""
    half = TAPS // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * HALF_WIDTH + 7.95
    # Kaiser's formula for attenuations above 50 dB; this one is 51.
    window = torch.kaiser_window(TAPS, beta=0.1102 * (attenuation - 8.7), periodic=False)
    taps = 2 * CUTOFF * window * torch.sinc(2 * CUTOFF * (torch.arange(-half, half) + 0.5))
    return taps / taps.sum()


def _padded(rows: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """(B, C, P, S) between repetitions of two samples (B, C, 1, 1) -> (B, C, P, S + 2 REACH)."""
    size = (*rows.shape[:-1], REACH)
    return torch.cat([first.expand(size), rows, last.expand(size)], dim=-1)


def _correlate(rows: Tensor, taps: Tensor) -> Tensor:
    """Filters and adds up the rows of each channel: (B, C, P, S + 2 REACH), (Q, P, 7) -> (B, C, Q, S)."""
    batch, channels, _, width = rows.shape
    plain = rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64)
    if not plain or torch.is_grad_enabled() or torch.compiler.is_compiling():
        weights = _repeated(taps, channels, rows.device, rows.dtype)
        return F.conv1d(rows.flatten(1, 2), weights, groups=channels).unflatten(1, (channels, -1))
    # On a CPU a grouped convolution takes four times as long as shifting and adding.
    samples = width - 2 * REACH
    total = rows.new_zeros(batch, channels, len(taps), samples)
    for target, filters in enumerate(taps.tolist()):
        for source, weights in enumerate(filters):
            for shift, weight in enumerate(weights):
                if weight:
                    total[:, :, target].add_(rows[:, :, source, shift : shift + samples], alpha=weight)
    return total


@cache
@torch.inference_mode(False)
def _taps() -> tuple[Tensor, Tensor]:
    """Both on the CPU: (2, 1, 7), even and odd samples of the doubled rate out of 3 samples to each side;
    (1, 2, 7), every second sample of the filtered doubled rate out of its even and its odd ones."""
    taps = _low_pass()
    # An even sample lies a little to the left of the middle of the filter, an odd one to the right.
    left, right = F.pad(taps[1::2], (1, 0)), F.pad(taps[0::2], (0, 1))
    return torch.stack([2 * left.flip(0), 2 * right.flip(0)])[:, None], torch.stack([left, right])[None]


@cache
@torch.inference_mode(False)
def _repeated(taps: Tensor, channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The weights (C Q, P, 7) of a convolution with a group for each channel."""
    return taps.repeat(channels, 1, 1).to(device, dtype)
