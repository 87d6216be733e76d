"""How close a decoded sound is to the original."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Windows of the spectral distance, in samples: short ones see when, long ones see which pitch.
WINDOWS = (512, 2048)
FLOOR = 1e-5


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant ratio of signal to distortion in dB, (B,): higher is closer; no clamp.

    estimate, reference  (B, C, S) float, of one shape; means are taken off first

    Source: Le Roux et al. 2019, arXiv 1811.02508. Codecs that move phases score low and may sound well.
    """
    _check(estimate, reference)
    estimate, reference = (
        each.flatten(1) - each.flatten(1).mean(1, keepdim=True) for each in (estimate, reference)
    )
    scale = (estimate * reference).sum(1) / reference.square().sum(1).clamp(min=1e-12)
    target = scale[:, None] * reference
    noise = (estimate - target).square().sum(1).clamp(min=1e-12)
    return 10 * torch.log10(target.square().sum(1).clamp(min=1e-12) / noise)


def spectral_distance(estimate: Tensor, reference: Tensor) -> Tensor:
    """Mean distance of log magnitude spectra in dB, (B,): 0 is equal, lower is closer.

    estimate, reference  (B, C, S) float, of one shape. Magnitudes below 1e-5 of full scale count as that.
    """
    _check(estimate, reference)
    distances = [
        (_log_spectrum(estimate, n) - _log_spectrum(reference, n)).abs().mean((1, 2, 3)) for n in WINDOWS
    ]
    return torch.stack(distances).mean(0)


def _log_spectrum(signal: Tensor, window: int) -> Tensor:
    """(B, C, bins, frames) in dB."""
    batch, channels, samples = signal.shape
    rows = signal.float().reshape(batch * channels, samples)
    hann = torch.hann_window(window, device=signal.device)
    spectrum = torch.stft(
        rows, window, window // 4, window=hann, center=True, pad_mode="constant", return_complex=True
    )
    magnitude = spectrum.abs() / hann.sum()
    return 20 * magnitude.clamp(min=FLOOR).log10().unflatten(0, (batch, channels))


def _check(estimate: Tensor, reference: Tensor) -> None:
    if estimate.shape != reference.shape or estimate.ndim != 3 or not math.prod(estimate.shape):
        raise ValueError(
            f"sounds of shapes {tuple(estimate.shape)} and {tuple(reference.shape)}: expected one (B, C, S)"
        )
