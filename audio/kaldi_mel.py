"""Log-mel features as Kaldi computes them, of sound at 16 kHz, as w2v-BERT takes them.

Source: transformers' SeamlessM4TFeatureExtractor, which follows Kaldi's fbank: frames of 25 ms without their
mean, pre-emphasis, a Povey window, powers, triangles on Kaldi's mel scale. Each step rounds as it does there,
on the CPU and without gradients, so that the features are the same to the last bit: w2v-BERT magnifies what
differs fifty times.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES, SHIFT_SAMPLES, N_FFT = 400, 160, 512
MEL_BINS = 80
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
# Kaldi hears 16-bit integers, and its logarithm starts at the smallest step of a float32 at 1.
FULL_SCALE = 2.0**15
FLOOR = 2.0**-23
VARIANCE_FLOOR = 1e-7


@torch.no_grad()
def normalised_log_mel(sound: Tensor) -> Tensor:
    """Features with mean 0 and variance 1 of each mel bin over the item, two frames side by side.

    The statistics are those of the whole item, so a piece of it gives other numbers.

    sound    (B, S) float in [-1, 1] on any device, S of at least 560
    returns  (B, F // 2, 160) float32 on the CPU, F = 1 + (S - 400) // 160; an odd last frame counts in the
             statistics alone
    """
    bins = log_mel(sound.cpu()).numpy()
    deviation = np.sqrt(bins.var(axis=-1, ddof=1, keepdims=True) + VARIANCE_FLOOR)
    normed = torch.from_numpy((bins - bins.mean(axis=-1, keepdims=True)) / deviation).transpose(1, 2)
    return normed[:, : normed.shape[1] // 2 * 2].unflatten(1, (-1, 2)).flatten(2)


def log_mel(sound: Tensor) -> Tensor:
    """(B, S) float on the CPU -> (B, 80, F) float32, contiguous."""
    frames = (sound.float() * FULL_SCALE).double().unfold(-1, FRAME_SAMPLES, SHIFT_SAMPLES)
    if not len(frames):
        return torch.zeros(0, MEL_BINS, frames.shape[1])  # MKL refuses to transform nothing
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = F.pad(frames[..., :-1], (1, 0))
    before[..., 0] = frames[..., 0]
    spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * _window(), N_FFT).to(torch.complex64)
    powers = spectrum.real.double().square() + spectrum.imag.double().square()
    return (_filters() @ powers.transpose(1, 2)).clamp(min=FLOOR).log().float()


@cache
def _window() -> Tensor:
    """(400,) a Hann window, flattened by a power: Povey's."""
    return torch.hann_window(FRAME_SAMPLES, periodic=False, dtype=torch.float64, device="cpu").pow(0.85)


@cache
def _filters() -> Tensor:
    """(80, 257) triangles over neighbouring thirds of the mel scale, each up to 1."""
    bins = _mel(torch.arange(N_FFT // 2 + 1, dtype=torch.float64, device="cpu") * (SAMPLE_RATE_HZ / N_FFT))
    low, high = _mel(torch.tensor([LOWEST_HZ, SAMPLE_RATE_HZ / 2], dtype=torch.float64, device="cpu"))
    edges = torch.linspace(float(low), float(high), MEL_BINS + 2, dtype=torch.float64, device="cpu")
    slopes = (edges[:, None] - bins) / edges.diff()[0]
    return torch.minimum(-slopes[:-2], slopes[2:]).clamp(min=0)


def _mel(hertz: Tensor) -> Tensor:
    """Kaldi's mel scale."""
    return 1127.0 * (1 + hertz / 700.0).log()
