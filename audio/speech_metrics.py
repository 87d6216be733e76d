"""Measures of decoded speech at 16 kHz: PESQ, DNSMOS and the mel distance; STOI is in `stoi`.

PESQ wants `pip install "tokenzoo[pesq]"`, which compiles C; DNSMOS `pip install "tokenzoo[speech-measures]"`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.optional import require
from .log_mel import mel_filters

SPEECH_RATE_HZ = 16_000
# (samples of the window, mel bands), and the floor of the power: descript-audio-codec's, which compares so.
MEL_SCALES = ((2048, 150), (512, 80))
MEL_FLOOR = 1e-5
DNSMOS_SECONDS = 9.01
# What maps the net's outputs to ratings, highest power first.
_DNSMOS_CURVES = {
    "speech": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}


@dataclass(frozen=True, eq=False)
class DnsMos:
    """Ratings of sounds by a net that learned from listeners, each (B,) float64, about 1 (bad) to 5.

    speech      of the voice
    background  of what else is heard: 5 is silence
    overall     of both
    """

    speech: Tensor
    background: Tensor
    overall: Tensor


def pesq_wb(estimate: Tensor, reference: Tensor) -> Tensor:
    """Wideband PESQ (MOS-LQO), (B,) float64, from 1.04 (bad) to 4.64 (equal).

    estimate, reference  (B, 1, S) float at 16 kHz, of one shape and in time with each other

    NaN where PESQ finds no speech to judge, or less than a quarter of a second. Raises ValueError for other
    shapes, ImportError without the package `pesq`.

    Source: ITU-T P.862.2, by the reference code that the package wraps.
    """
    check_pair(estimate, reference)
    pesq = require("pesq", "pesq")
    no_judgement = (pesq.NoUtterancesError, pesq.BufferTooShortError)
    scores = []
    for deg, ref in zip(_arrays(estimate), _arrays(reference), strict=True):
        if not (deg.any() and ref.any()):  # the package divides by the loudest sample of both
            scores.append(math.nan)
            continue
        try:
            scores.append(float(pesq.pesq(SPEECH_RATE_HZ, ref, deg, "wb")))
        except no_judgement:
            scores.append(math.nan)
    return torch.tensor(scores, dtype=torch.float64)


def dnsmos(sound: Tensor) -> DnsMos:
    """How good speech sounds to listeners of recordings, judged without the original.

    sound  (B, 1, S) float at 16 kHz; what exceeds [-1, 1] is clipped, as a file would

    A sound is heard in windows of 9.01 s, a second apart, and the ratings averaged; shorter ones are doubled
    until they fill one. Raises ValueError for other shapes, ImportError without onnxruntime or speechmos.

    Source: Reddy, Gopal and Cutler, arXiv 2110.01763: the weights and the averaging of the package speechmos.
    """
    if sound.ndim != 3 or sound.shape[1] != 1 or not sound.shape[2]:
        raise ValueError(f"sound of shape {tuple(sound.shape)}: expected (B, 1, S), at 16 kHz")
    session = _dnsmos_session()
    rows = []
    for waveform in _arrays(sound.clamp(-1, 1)):
        windows = _dnsmos_windows(waveform)
        raw = np.concatenate([session.run(None, {"input_1": window[None]})[0] for window in windows])
        rated = [
            np.polyval(curve, raw[:, column].astype(np.float64))
            for column, curve in enumerate(_DNSMOS_CURVES.values())
        ]
        rows.append([float(rating.mean()) for rating in rated])
    return DnsMos(*torch.tensor(rows, dtype=torch.float64).reshape(-1, 3).unbind(1))


def mel_distance(estimate: Tensor, reference: Tensor, sample_rate_hz: int = SPEECH_RATE_HZ) -> Tensor:
    """How far mel spectrograms lie apart, (B,) float64: 0 is equal, lower is closer.

    estimate, reference  (B, C, S) float, of one shape, more than 1024 samples

    The mean distance of log10 power (floored at 1e-5) plus that of magnitudes, summed over windows of 2048
    samples (150 bands) and 512 (80 bands). Raises ValueError for other shapes.

    Source: the mel distance of descript-audio-codec (arXiv 2306.06546), audiotools' MelSpectrogramLoss.
    """
    if estimate.shape != reference.shape or reference.ndim != 3:
        raise ValueError(
            f"sounds of shapes {tuple(estimate.shape)} and {tuple(reference.shape)}: expected one (B, C, S)"
        )
    if reference.shape[2] <= MEL_SCALES[0][0] // 2:
        raise ValueError(
            f"sounds of {reference.shape[2]} samples: expected more than 1024; put silence after"
        )
    distance = reference.new_zeros(len(reference), dtype=torch.float64)
    for window, bands in MEL_SCALES:
        ours, theirs = (_mel(each, window, bands, sample_rate_hz) for each in (estimate, reference))
        decades = [each.square().clamp(min=MEL_FLOOR).log10() for each in (ours, theirs)]
        distance += (decades[0] - decades[1]).abs().flatten(1).mean(1)
        distance += (ours - theirs).abs().flatten(1).mean(1)
    return distance


def check_pair(estimate: Tensor, reference: Tensor) -> None:
    """ValueError unless both are mono sounds of one shape (B, 1, S)."""
    if estimate.shape != reference.shape or reference.ndim != 3 or reference.shape[1] != 1:
        raise ValueError(
            f"sounds of shapes {tuple(estimate.shape)} and {tuple(reference.shape)}: expected one (B, 1, S), "
            "mono at 16 kHz"
        )


def _mel(sound: Tensor, window: int, bands: int, sample_rate_hz: int) -> Tensor:
    """(B, C, bands, frames) float64 magnitudes."""
    flat = sound.detach().double().flatten(0, 1)
    flat = F.pad(flat[:, None], (window // 2, window // 2), mode="reflect")[:, 0]
    hann = torch.hann_window(window, dtype=flat.dtype, device=flat.device)
    spectrum = torch.stft(flat, window, window // 4, window=hann, center=False, return_complex=True)
    mel = mel_filters(sample_rate_hz, window, bands).to(flat) @ spectrum.abs()
    return mel.unflatten(0, sound.shape[:2])


def _dnsmos_windows(waveform: np.ndarray) -> list[np.ndarray]:
    """As speechmos cuts them, float errors of the ends included: a window they make short is left out."""
    length = int(DNSMOS_SECONDS * SPEECH_RATE_HZ)
    while len(waveform) < length:
        waveform = np.concatenate([waveform, waveform])
    count = int(len(waveform) // SPEECH_RATE_HZ - DNSMOS_SECONDS) + 1
    windows = [
        waveform[i * SPEECH_RATE_HZ : int((i + DNSMOS_SECONDS) * SPEECH_RATE_HZ)] for i in range(count)
    ]
    return [window for window in windows if len(window) == length]


@lru_cache(maxsize=1)
def _dnsmos_session() -> Any:
    onnxruntime = require("onnxruntime", "speech-measures")
    # Its weights alone are wanted: importing the package would ask for librosa.
    package = find_spec("speechmos")
    if package is None or package.origin is None:
        raise ImportError('speechmos is missing; pip install "tokenzoo[speech-measures]"')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    weights = Path(package.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])


def _arrays(sound: Tensor) -> list[np.ndarray]:
    """Each item of (B, 1, S), float32 on the CPU."""
    return list(sound[:, 0].detach().float().cpu().numpy())
