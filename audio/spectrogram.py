"""A spectrogram as a picture: what a sound looks like, for people to compare."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

WIDTH_PIXELS, HEIGHT_PIXELS = 420, 160
WINDOW = 1024
RANGE_DB = 80.0
# From silence to the loudest: dark to bright, readable in grey as well.
_COLOURS = np.array(
    [(5, 5, 20), (60, 15, 110), (165, 45, 95), (240, 110, 50), (253, 200, 80), (252, 253, 215)], np.float64
)


def spectrogram_image(signal: Tensor, *, loudest: float | None = None) -> Image.Image:
    """RGB, 420 x 160: time to the right, frequency from 0 at the bottom to half the sample rate at the top.

    signal   (C, S) float, of any length from one sample; channels are averaged
    loudest  the magnitude that is brightest, default that of this sound; give that of the original to compare
    """
    magnitude = magnitudes(signal)
    top = loudest if loudest else float(magnitude.max())
    decibels = 20 * torch.log10(magnitude.clamp(min=1e-9) / max(top, 1e-9))
    shade = (decibels / RANGE_DB + 1).clamp(0, 1).flip(0)
    shade = F.interpolate(shade[None, None], size=(HEIGHT_PIXELS, WIDTH_PIXELS), mode="area")[0, 0]
    return Image.fromarray(_coloured(shade.numpy()))


def magnitudes(signal: Tensor) -> Tensor:
    """(WINDOW / 2 + 1, frames) of (C, S): two frames a column of the picture, or one every quarter window."""
    mono = signal.detach().float().cpu().mean(0)
    hop = max(WINDOW // 4, len(mono) // (2 * WIDTH_PIXELS))
    spectrum = torch.stft(
        mono,
        WINDOW,
        hop,
        window=torch.hann_window(WINDOW),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return spectrum.abs()


def _coloured(shade: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] to uint8 (H, W, 3)."""
    stops = np.linspace(0, 1, len(_COLOURS))
    planes = [np.interp(shade, stops, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(planes, axis=-1).round().astype(np.uint8)
