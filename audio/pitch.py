"""The pitch of voices, by the autocorrelation of windows: a teacher for codecs that say it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.precision import without_autocast, working_dtype

LOWEST_HZ, HIGHEST_HZ = 60.0, 450.0
# Enough for the first overtones, and a fraction of the work.
SEARCH_RATE_HZ = 8000
# Almost four periods of the lowest voice.
WINDOW_SECONDS = 0.064
# Two periods are as good a match as one: what an octave downwards must bring to be believed.
OCTAVE_COST = 0.03
# Of a match, 1 for a perfect one; and of the loudness of a frame, full scale 1.
LEAST_MATCH, LEAST_LEVEL = 0.5, 2e-3
SMOOTHED_FRAMES = 5


@dataclass(frozen=True, eq=False)
class Pitch:
    """Of frames: hz (B, F) float, 0 where there is none, and voiced (B, F) bool."""

    hz: Tensor
    voiced: Tensor


@torch.no_grad()
def track_pitch(sound: Tensor, sample_rate_hz: int, hop_samples: int) -> Pitch:
    """The pitch around the middle of each whole hop: (B, S) float -> F = S // hop_samples frames.

    The autocorrelation of a Hann window over that of the window itself (Boersma 1993), its best peak with a
    parabola through it, and the median of five frames. Octave errors remain, of single frames.
    """
    with without_autocast(sound.device):
        sound = sound.to(working_dtype(sound))
        factor = max(1, sample_rate_hz // SEARCH_RATE_HZ)
        rate_hz, window = sample_rate_hz / factor, round(WINDOW_SECONDS * sample_rate_hz / factor)
        # Thinned out frame by frame: a hop need not be a multiple of `factor`.
        count = sound.shape[1] // hop_samples
        if not len(sound) or not count:  # which the transform refuses
            nothing = sound.new_zeros(len(sound), count)
            return Pitch(nothing, nothing > 0)
        side = window * factor // 2
        padded = F.pad(sound[:, : count * hop_samples], (side, side))
        frames = padded.unfold(1, window * factor, hop_samples)[:, :count]
        frames = frames.unflatten(2, (window, factor)).mean(3)
        frames = frames - frames.mean(2, keepdim=True)
        level = frames.square().mean(2).sqrt()
        match, lag = _best_lag(_autocorrelation(frames), rate_hz)
        voiced = (match > LEAST_MATCH) & (level > LEAST_LEVEL)
        hz = torch.where(voiced, rate_hz / lag, torch.nan)
        smooth = _neighbours(hz).nanmedian(2).values
        voiced = (_neighbours(voiced.to(hz)).mean(2) > 0.5) & smooth.isfinite()
        return Pitch(torch.where(voiced, smooth, 0.0), voiced)


def _autocorrelation(frames: Tensor) -> Tensor:
    """(B, F, W) -> (B, F, W // 2): 1 at lag 0, and about 1 at whole periods."""
    width = frames.shape[2]
    window = torch.hann_window(width, dtype=frames.dtype, device=frames.device)

    def raw(rows: Tensor) -> Tensor:
        # Twice the width: lags do not wrap around.
        return torch.fft.irfft(torch.fft.rfft(rows, 2 * width).abs().square())[..., : width // 2]

    own, found = raw(window), raw(frames * window)
    return found / (found[..., :1] + 1e-6) * (own[0] / own)


def _best_lag(match: Tensor, rate_hz: float) -> tuple[Tensor, Tensor]:
    """Height and place, in samples and between them, of the best peak: two of (B, F)."""
    first, last = int(rate_hz / HIGHEST_HZ), min(int(rate_hz / LOWEST_HZ), match.shape[2] - 2)
    lags = torch.arange(first, last + 1, device=match.device)
    before, here, after = (match[..., first + step : last + 1 + step] for step in (-1, 0, 1))
    score = here - OCTAVE_COST * torch.log2(lags / first)
    score = torch.where((here >= before) & (here >= after), score, -torch.inf)
    best = score.argmax(2, keepdim=True)
    left, top, right = (rows.gather(2, best)[..., 0] for rows in (before, here, after))
    # Where there is no peak the parabola may be flat.
    bend = (left - 2 * top + right).clamp(max=-1e-9)
    shift = (0.5 * (left - right) / bend).clamp(-1, 1)
    height = torch.where(score.amax(2).isfinite(), top, 0.0)
    return height, (lags[best[..., 0]] + shift).clamp(min=first)


def _neighbours(rows: Tensor) -> Tensor:
    """(B, F) -> (B, F, 5), the frames around each; the ends are repeated."""
    side = SMOOTHED_FRAMES // 2
    return F.pad(rows[:, None], (side, side), mode="replicate")[:, 0].unfold(1, SMOOTHED_FRAMES, 1)
