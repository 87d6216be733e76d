"""One sound of any kind to one float32 (C, S) tensor at the rate and with the channels a model takes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..zoo.optional import require

# 18 hours of mono at 16 kHz, 4 GB: a small file must not claim more memory than a machine has.
MAX_SAMPLES = 1 << 30
# Beyond, for rates without a common divisor, the filter bank alone would take gigabytes.
MAX_FILTER_TAPS = 1 << 24
# torchaudio's defaults, named because they decide the samples: zero crossings and width of the pass band.
LOWPASS_FILTER_WIDTH = 6
ROLLOFF = 0.99


class AudioReadError(ValueError):
    """A file that is no readable sound; the message names it."""


@dataclass(frozen=True)
class AudioPreprocess:
    """Resample and mix; weightless and picklable.

    sample_rate_hz  of the result
    channels        of the result: 1 or 2. One channel becomes two by repetition
    mix             how several channels become one, as the official code does it: by their "mean", or the
                    "first" alone

    Takes a path (wav, flac, ogg, mp3: what libsndfile reads), or (waveform, rate_hz) with a float array or
    tensor (S,) or (C, S), in [-1, 1]. Another rate is resampled by torchaudio's windowed sinc (Hann window,
    6 zero crossings, rolloff 0.99). A sound that fits passes unchanged. Levels are left alone.
    """

    sample_rate_hz: int = 24_000
    channels: int = 1
    mix: Literal["mean", "first"] = "mean"

    def __post_init__(self) -> None:
        if not 1 <= self.sample_rate_hz <= 768_000:
            raise ValueError(f"sample_rate_hz={self.sample_rate_hz}: expected 1 ... 768000")
        if self.channels not in (1, 2):
            raise ValueError(f"channels={self.channels}: expected 1 or 2")
        if self.mix not in ("mean", "first"):
            raise ValueError(f"mix={self.mix!r}: expected 'mean' or 'first'")

    def __call__(self, item: Any) -> Tensor:
        """float32 (channels, S). Raises AudioReadError, ValueError or TypeError."""
        if isinstance(item, str | os.PathLike):
            item = read_sound(item)
        if not isinstance(item, tuple) or len(item) != 2:
            raise TypeError(
                f"sound is a {type(item).__name__}: expected a path or (waveform, rate_hz); "
                "a waveform alone does not say how fast it runs"
            )
        waveform, rate_hz = _as_waveform(item[0]), _as_rate(item[1])
        return resample(self._mixed(waveform), rate_hz, self.sample_rate_hz)

    def _mixed(self, waveform: Tensor) -> Tensor:
        given = len(waveform)
        if given == self.channels:
            return waveform
        if self.channels == 1:
            return waveform[:1] if self.mix == "first" else waveform.mean(dim=0, keepdim=True)
        if given == 1:
            return waveform.expand(self.channels, -1).contiguous()
        raise ValueError(f"sound has {given} channels: expected 1 or {self.channels}; mix it down first")


def read_sound(path: str | os.PathLike[str]) -> tuple[Tensor, int]:
    """A file as float32 (C, S), and its rate in Hz. AudioReadError names the path and what is wrong."""
    soundfile = require("soundfile", "audio")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.frames * file.channels > MAX_SAMPLES:
                raise AudioReadError(
                    f"{path} claims {file.frames} x {file.channels} samples: expected at most {MAX_SAMPLES}"
                )
            samples, rate_hz = file.read(dtype="float32", always_2d=True), file.samplerate
    except (RuntimeError, TypeError, OSError, MemoryError) as error:
        raise AudioReadError(
            f"{path} is no sound that libsndfile reads ({error}); convert it to wav or flac"
        ) from error
    return torch.from_numpy(np.ascontiguousarray(samples.T)), rate_hz


def resample(waveform: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """(C, S) at another rate; ValueError for a pair of rates that would need a filter of gigabytes."""
    if from_hz == to_hz:
        return waveform
    if waveform.numel() * to_hz > MAX_SAMPLES * from_hz:
        raise ValueError(
            f"{waveform.numel()} samples at {from_hz} Hz would be more than {MAX_SAMPLES} at {to_hz} Hz; "
            "is the rate right? Cut the sound in pieces if it is"
        )
    common = math.gcd(from_hz, to_hz)
    old, new = from_hz // common, to_hz // common
    taps = new * (old + 2 * math.ceil(LOWPASS_FILTER_WIDTH * old / (min(old, new) * ROLLOFF)))
    if taps > MAX_FILTER_TAPS:
        raise ValueError(
            f"{from_hz} Hz to {to_hz} Hz share no large divisor, and would need {taps} filter taps: "
            "bring the sound to a usual rate first, e.g. ffmpeg -ar 48000"
        )
    functional = require("torchaudio.functional", "audio")
    return functional.resample(
        waveform, from_hz, to_hz, lowpass_filter_width=LOWPASS_FILTER_WIDTH, rolloff=ROLLOFF
    )


def _as_waveform(values: Any) -> Tensor:
    """float32 (C, S) of a finite float waveform that has a sample."""
    if not isinstance(values, Tensor | np.ndarray):
        raise TypeError(f"waveform is a {type(values).__name__}: expected an array or a tensor")
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if not tensor.is_floating_point():
        whole = {torch.uint8: "subtract 128 and divide by 128", torch.int32: "divide by 2**31"}
        remedy = whole.get(tensor.dtype, "divide by 32768")
        raise TypeError(f"waveform is {tensor.dtype}: expected floats in [-1, 1]; {remedy} first")
    if tensor.ndim == 1:
        tensor = tensor[None]
    if tensor.ndim != 2 or not tensor.numel():
        raise ValueError(
            f"waveform has shape {tuple(tensor.shape)}: expected (S,) or (C, S) with at least one sample"
        )
    if len(tensor) > tensor.shape[1] and len(tensor) > 8:
        raise ValueError(
            f"waveform has shape {tuple(tensor.shape)}: expected channels first, (C, S); transpose it"
        )
    if not bool(tensor.isfinite().all()):
        raise ValueError("waveform holds NaN or infinity: expected finite floats in [-1, 1]")
    return tensor.float()


def _as_rate(rate_hz: Any) -> int:
    whole = int(rate_hz) if isinstance(rate_hz, int | float | np.integer | np.floating) else 0
    if isinstance(rate_hz, bool) or whole != rate_hz or not 1 <= whole <= 768_000:
        raise ValueError(f"rate_hz={rate_hz!r}: expected a whole number of samples a second, 1 ... 768000")
    return whole
