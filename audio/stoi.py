"""Short-time objective intelligibility of speech, in plain torch."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# All as Taal et al. give them: analysis at 10 kHz, fifteen third octaves from 150 Hz, segments of 384 ms.
RATE_HZ = 10_000
UP, DOWN = 5, 8  # to there from 16 kHz
FRAME_SAMPLES, FFT_SAMPLES = 256, 512
HOP_SAMPLES = FRAME_SAMPLES // 2
BANDS, LOWEST_BAND_HZ = 15, 150.0
SEGMENT_FRAMES = 30
LEAST_SDR_DB = -15.0
SPEECH_RANGE_DB = 40.0
# The anti-aliasing filter of Octave's `resample`, on which the published implementation rests.
REJECTION_DB = 60.0
_TINY = torch.finfo(torch.float64).eps


def stoi(estimate: Tensor, reference: Tensor) -> Tensor:
    """How intelligible speech still is, (B,) float64, at most 1: the higher the better.

    estimate, reference  (B, 1, S) float at 16 kHz, of one shape; frames 40 dB below the loudest of the
                         reference are left out of both

    NaN where less than 0.4 s of speech is left: too little to judge. Raises ValueError for other shapes.

    Source: Taal, Hendriks, Heusdens and Jensen, IEEE Transactions on Audio, Speech and Language Processing,
    2011. Equal to pystoi to rounding.
    """
    if estimate.shape != reference.shape or reference.ndim != 3 or reference.shape[1] != 1:
        raise ValueError(
            f"sounds of shapes {tuple(estimate.shape)} and {tuple(reference.shape)}: expected one (B, 1, S); "
            "mix channels down first"
        )
    pairs = zip(estimate[:, 0], reference[:, 0], strict=True)
    return torch.tensor([_of_one(x, y) for x, y in pairs], dtype=torch.float64)


def _of_one(estimate: Tensor, reference: Tensor) -> float:
    both = torch.stack([reference, estimate]).detach().to("cpu", torch.float64)
    spoken = _without_silence(_resampled(both))
    # The published code leaves the last full frame out, here and in `_without_silence`.
    frames = _frames(spoken)
    if frames.shape[1] < SEGMENT_FRAMES:
        return math.nan
    power = torch.fft.rfft(frames, FFT_SAMPLES).abs().square()
    bands = (power @ _third_octaves().T).sqrt().transpose(1, 2)
    clean, heard = bands.unfold(2, SEGMENT_FRAMES, 1)  # (BANDS, segments, SEGMENT_FRAMES) each
    heard = heard * (clean.norm(dim=2, keepdim=True) / (heard.norm(dim=2, keepdim=True) + _TINY))
    heard = torch.minimum(heard, clean * (1 + 10 ** (-LEAST_SDR_DB / 20)))
    return float((_standardised(clean) * _standardised(heard)).sum(2).mean())


def _standardised(segments: Tensor) -> Tensor:
    """Each segment of each band without its mean, at norm 1."""
    centred = segments - segments.mean(2, keepdim=True)
    return centred / (centred.norm(dim=2, keepdim=True) + _TINY)


def _frames(sound: Tensor) -> Tensor:
    """Windowed frames (2, F, FRAME_SAMPLES) of (2, S), without the last full one."""
    count = max(0, -(-(sound.shape[1] - FRAME_SAMPLES) // HOP_SAMPLES))
    if not count:
        return sound.new_zeros(2, 0, FRAME_SAMPLES)
    window = torch.hann_window(FRAME_SAMPLES + 1, periodic=True, dtype=sound.dtype)[1:]
    return sound.unfold(1, FRAME_SAMPLES, HOP_SAMPLES)[:, :count] * window


def _without_silence(sound: Tensor) -> Tensor:
    """Reference and estimate (2, S) without the frames where the reference is silent, added up again."""
    frames = _frames(sound)
    if not frames.shape[1]:
        return sound[:, :0]
    level = 20 * torch.log10(frames[0].norm(dim=1) + _TINY)
    kept = frames[:, level > level.max() - SPEECH_RANGE_DB]
    length = (kept.shape[1] - 1) * HOP_SAMPLES + FRAME_SAMPLES
    # Sums what overlaps.
    folded = F.fold(kept.transpose(1, 2), (1, length), (1, FRAME_SAMPLES), stride=(1, HOP_SAMPLES))
    return folded[:, 0, 0]


def _resampled(sound: Tensor) -> Tensor:
    """(2, S) at 16 kHz to 10 kHz, without delay: zeros in between, a low-pass, every eighth sample."""
    taps = _lowpass()
    spread = sound.new_zeros(2, 1, sound.shape[1] * UP)
    spread[:, 0, ::UP] = sound
    # As many samples as last as long as the sound, the last one begun.
    length = -(-sound.shape[1] * UP // DOWN)
    half = len(taps) // 2
    spread = F.pad(spread, (half, half))
    return F.conv1d(spread, UP * taps[None, None], stride=DOWN)[:, 0, :length]


@lru_cache(maxsize=1)
def _lowpass() -> Tensor:
    """A Kaiser-windowed sinc of gain 1, an odd number of taps."""
    with torch.inference_mode(False):
        cutoff = 1 / (2 * max(UP, DOWN))
        half = math.ceil((REJECTION_DB - 8) / (28.714 * cutoff / 10))
        beta = 0.1102 * (REJECTION_DB - 8.7)
        steps = torch.arange(-half, half + 1, dtype=torch.float64)
        window = torch.kaiser_window(2 * half + 1, periodic=False, beta=beta, dtype=torch.float64)
        taps = torch.sinc(2 * cutoff * steps) * window
        return taps / taps.sum()


@lru_cache(maxsize=1)
def _third_octaves() -> Tensor:
    """(BANDS, FFT_SAMPLES // 2 + 1) float64 of 0 and 1: the bins of each band, by the nearest edges."""
    with torch.inference_mode(False):
        bins = torch.arange(FFT_SAMPLES // 2 + 1, dtype=torch.float64) * (RATE_HZ / FFT_SAMPLES)
        edges = LOWEST_BAND_HZ * 2 ** ((2 * torch.arange(BANDS + 1, dtype=torch.float64) - 1) / 6)
        nearest = (bins[None] - edges[:, None]).abs().argmin(1)
        places = torch.arange(len(bins))
        return ((places >= nearest[:-1, None]) & (places < nearest[1:, None])).double()
