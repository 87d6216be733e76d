"""Discriminators of sound: rows of equal phase, complex spectra, and bands of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from ..kernels.precision import without_autocast
from ..zoo.adversary import Adversary, AdversarySettings, Discriminator, Judgement

DiscriminatorKind = Literal["periods", "stft", "bands"]

# Edges of DAC's bands, as shares of the spectrum.
BAND_EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class AudioAdversarySettings(AdversarySettings):
    """Which discriminators, their sizes, and how they learn; the rest is `AdversarySettings`.

    discriminators  "periods": `PeriodDiscriminator`; "stft": `SpectrumDiscriminator`; "bands":
                    `BandDiscriminator`. HiFi-GAN has the first, EnCodec the second, DAC the first and third
    periods         of the first kind, in samples
    stft_windows    of the second, in samples
    band_windows    of the third, in samples
    width           channels of their first layers
    """

    features: float = 2.0
    discriminators: tuple[DiscriminatorKind, ...] = ("periods", "stft")
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    stft_windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    band_windows: tuple[int, ...] = (2048, 1024, 512)
    width: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.discriminators or set(self.discriminators) - set(get_args(DiscriminatorKind)):
            known = ", ".join(get_args(DiscriminatorKind))
            raise ValueError(f"discriminators {list(self.discriminators)}: expected one or more of {known}")
        if self.width < 1:
            raise ValueError(f"width={self.width}: expected at least 1")
        if not self.periods or min(self.periods) < 1:
            raise ValueError(f"periods {list(self.periods)}: expected one or more, from 1 sample")
        for name in ("stft_windows", "band_windows"):
            windows = getattr(self, name)
            if not windows or any(window < 16 or window % 4 for window in windows):
                raise ValueError(f"{name} {list(windows)}: expected multiples of 4, from 16 samples")


def audio_adversary(settings: AudioAdversarySettings, channels: int) -> Adversary:
    """The discriminators of these settings, for sound of so many channels."""
    judges: list[Discriminator] = []
    if "periods" in settings.discriminators:
        judges += [PeriodDiscriminator(period, channels, settings.width) for period in settings.periods]
    if "stft" in settings.discriminators:
        judges += [
            SpectrumDiscriminator(window, channels, settings.width) for window in settings.stft_windows
        ]
    if "bands" in settings.discriminators:
        judges += [BandDiscriminator(window, channels, settings.width) for window in settings.band_windows]
    return Adversary(judges, settings)


class PeriodDiscriminator(Discriminator):
    """Judges the samples that lie a period apart, with the same weights for each phase.

    period    samples
    channels  of the sound
    width     of the first layer; the next ones have 4, 16 and 32 times as many channels

    Source: HiFi-GAN (Kong et al. 2020, arXiv 2010.05646), section 2.3.
    """

    def __init__(self, period: int, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        self.period = period
        widths = (channels, width, 4 * width, 16 * width, 32 * width)
        self.layers = nn.ModuleList(
            _conv(before, after, (5, 1), stride=(3, 1)) for before, after in pairwise(widths)
        )
        self.layers.append(_conv(32 * width, 32 * width, (5, 1)))
        self.head = _conv(32 * width, 1, (3, 1))

    def forward(self, signal: Tensor) -> list[Judgement]:
        """(B, C, S) in about [-1, 1], of more samples than a period, to logits (B, 1, h, period)."""
        signal = F.pad(signal, (0, -signal.shape[-1] % self.period), mode="reflect")
        x, features = signal.unflatten(-1, (-1, self.period)), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return [Judgement(self.head(x), features)]


class SpectrumDiscriminator(Discriminator):
    """Judges the real and imaginary parts of a spectrogram, further and further apart in time.

    window    samples; a quarter of it is the hop
    channels  of the sound
    width     of all layers

    Source: EnCodec (arXiv 2210.13438), figure 2, and its code, msstftd.py.
    """

    def __init__(self, window: int, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        self.window = window
        self.layers = nn.ModuleList([_conv(2 * channels, width, (3, 9))])
        self.layers.extend(
            _conv(width, width, (3, 9), stride=(1, 2), dilation=(dilation, 1)) for dilation in (1, 2, 4)
        )
        self.layers.append(_conv(width, width, (3, 3)))
        self.head = _conv(width, 1, (3, 3))

    def forward(self, signal: Tensor) -> list[Judgement]:
        """(B, C, S), S more than half of the window, to logits (B, 1, frames, bins)."""
        x, features = _spectrum(signal, self.window), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [Judgement(self.head(x), features)]


class BandDiscriminator(Discriminator):
    """Judges each band of a spectrogram with weights of its own, then all of them together.

    window    samples; a quarter of it is the hop
    channels  of the sound
    width     of all layers

    Source: DAC (Kumar et al. 2023, arXiv 2306.06546), section 3.4, and its code, discriminator.py.
    """

    def __init__(self, window: int, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        self.window = window
        bins = window // 2 + 1
        edges = [int(edge * bins) for edge in BAND_EDGES]
        self.bands = [slice(*pair) for pair in pairwise(edges)]
        self.stacks = nn.ModuleList(nn.ModuleList(_band_layers(2 * channels, width)) for _ in self.bands)
        self.head = _conv(width, 1, (3, 3))

    def forward(self, signal: Tensor) -> list[Judgement]:
        """(B, C, S), S more than half of the window, to logits (B, 1, frames, bins)."""
        spectrum, features, ends = _spectrum(signal, self.window), [], []
        for band, stack in zip(self.bands, self.stacks, strict=True):
            x = spectrum[..., band]
            for layer in stack:  # pyright: ignore[reportGeneralTypeIssues]
                x = F.leaky_relu(layer(x), 0.1)
                features.append(x)
            ends.append(x)
        return [Judgement(self.head(torch.cat(ends, dim=-1)), features)]


def _band_layers(inputs: int, width: int) -> Iterator[nn.Module]:
    yield _conv(inputs, width, (3, 9))
    for _ in range(3):
        yield _conv(width, width, (3, 9), stride=(1, 2))
    yield _conv(width, width, (3, 3))


def _conv(
    inputs: int,
    outputs: int,
    kernel: Sequence[int],
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    """A convolution that keeps the size but for its stride."""
    height, width = kernel
    padding = (dilation[0] * (height - 1) // 2, dilation[1] * (width - 1) // 2)
    return weight_norm(nn.Conv2d(inputs, outputs, (height, width), stride, padding, dilation))


def _spectrum(signal: Tensor, window: int) -> Tensor:
    """(B, C, S) to (B, 2 C, frames, bins), about as large as the sound: real parts, then imaginary ones."""
    if signal.shape[-1] <= window // 2:
        raise ValueError(
            f"sound of {signal.shape[-1]} samples for a discriminator with a window of {window}: expected "
            "more than half of one; take longer crops or shorter windows"
        )
    with without_autocast(signal.device):
        found = torch.stft(
            signal.float().flatten(0, 1),
            window,
            window // 4,
            window=_hann(window, str(signal.device)),
            normalized=True,
            return_complex=True,
        ).unflatten(0, signal.shape[:2])
        return torch.cat([found.real, found.imag], dim=1).transpose(2, 3)


@lru_cache(maxsize=64)
def _hann(window: int, device: str) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(window, device=device)
