"""Recorded speech as an evaluation hears it."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..zoo.judge import Example, Examples, Judge
from ..zoo.measured import Measure
from .metrics import si_sdr
from .preprocess import AudioPreprocess, resample
from .sounds import open_recordings
from .speech_metrics import SPEECH_RATE_HZ, dnsmos, mel_distance, pesq_wb
from .stoi import stoi

MEASURES = (
    Measure("pesq", "PESQ-wb"),
    Measure("stoi", "STOI", digits=3),
    Measure("si_sdr", "SI-SDR", "dB"),
    Measure("mel_distance", "mel distance", digits=3, higher_is_better=False),
    Measure("dnsmos", "DNSMOS overall"),
    Measure("dnsmos_speech", "DNSMOS speech"),
    Measure("dnsmos_background", "DNSMOS background"),
)
# What a measure wants besides the package: modules, and the extra that brings them.
_WANTED = {"pesq": (("pesq",), "pesq"), "dnsmos": (("onnxruntime", "speechmos"), "speech-measures")}
_log = logging.getLogger("tokenzoo")


class Recorded(Examples):
    """The recordings of a folder or of a `.npy` file."""

    def __init__(self, path: Path) -> None:
        self._recordings = open_recordings(path)

    def __len__(self) -> int:
        return len(self._recordings.found)

    def read(self, index: int) -> Example:
        told = self._recordings.found[index]
        sound = self._recordings.read(index, 0, told.samples)
        return Example((sound, told.rate_hz), sound.numpy().tobytes())


class SpeechJudge(Judge):
    """PESQ, STOI, SI-SDR, mel distance and DNSMOS, all at 16 kHz and in mono.

    Decoded sound is brought to 16 kHz from whatever rate the tokenizer has, and compared with the recording
    itself, not with what the tokenizer was given of it.
    """

    bits_per = "second"
    notes = (
        "Mono at 16 kHz, against the recording. PESQ is ITU-T P.862.2 (MOS-LQO), DNSMOS P.835 by the weights "
        "of speechmos, the mel distance that of descript-audio-codec."
    )
    _at_rate = AudioPreprocess(sample_rate_hz=SPEECH_RATE_HZ, channels=1)

    def _available(self) -> tuple[Measure, ...]:
        missing = {
            name: extra for name, (modules, extra) in _WANTED.items() if not all(map(find_spec, modules))
        }
        for name, extra in missing.items():
            _log.warning('%s is left out of the figures: pip install "tokenzoo[%s]"', name.upper(), extra)
        return tuple(each for each in MEASURES if each.name.partition("_")[0] not in missing)

    @staticmethod
    def open(data: Path) -> Examples:
        return Recorded(data)

    def reference(self, item: Any, signal: Tensor) -> Tensor:
        return self._at_rate(item)

    def scores(self, decoded: Tensor, reference: Tensor) -> dict[str, float]:
        heard = _mono_16k(decoded, int(self.facts.sample_rate_hz or SPEECH_RATE_HZ))
        samples = min(heard.shape[1], reference.shape[1])  # another rate may round to one sample more or less
        return self._of_pair(heard[None, :, :samples], reference[None, :, :samples])

    def original_scores(self, reference: Tensor) -> dict[str, float]:
        return self._ratings(reference[None])

    def size(self, signal: Tensor) -> float:
        return signal.shape[1] / (self.facts.sample_rate_hz or SPEECH_RATE_HZ)

    def _of_pair(self, heard: Tensor, reference: Tensor) -> dict[str, float]:
        found = {"stoi": stoi(heard, reference), "si_sdr": si_sdr(heard, reference)}
        if any(each.name == "pesq" for each in self.measures):
            found["pesq"] = pesq_wb(heard, reference)
        if heard.shape[2] > 1024:
            found["mel_distance"] = mel_distance(heard, reference)
        return {name: float(scores[0]) for name, scores in found.items()} | self._ratings(heard)

    def _ratings(self, sound: Tensor) -> dict[str, float]:
        if not any(each.name == "dnsmos" for each in self.measures):
            return {}
        rated = dnsmos(sound)
        return {
            "dnsmos": float(rated.overall[0]),
            "dnsmos_speech": float(rated.speech[0]),
            "dnsmos_background": float(rated.background[0]),
        }


def _mono_16k(sound: Tensor, rate_hz: int) -> Tensor:
    """(1, S) float32 in [-1, 1], as a file would hold it."""
    mono = sound.detach().to("cpu", torch.float32).mean(0, keepdim=True)
    return resample(mono, rate_hz, SPEECH_RATE_HZ).clamp(-1, 1)
