"""Opus as a peer of speech tokenizers: the codec of calls and of the web, at the bit rates that they have.

Wants PyAV, which brings libopus: `pip install "tokenzoo[speech-measures]"`.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..zoo.facts import Facts
from ..zoo.measured import Measured
from ..zoo.optional import require
from ..zoo.survey import Survey
from .judge import SpeechJudge
from .preprocess import AudioPreprocess, resample
from .speech_metrics import SPEECH_RATE_HZ

LEAST_BPS = 6000
# Of its low-pass filters, 2.5 ms at most: what `aligned` looks through.
MOST_DELAY_SAMPLES = 40
FrameMs = Literal[20, 40, 60]


@dataclass(frozen=True, eq=False)
class OpusSound:
    """What came back.

    sound    (1, S) float32 at 16 kHz, as long as what went in, and in time with it
    bytes    of the packets alone, without the container
    packets  how many
    """

    sound: Tensor
    bytes: int
    packets: int


def through_opus(sound: Tensor, bitrate_bps: int = LEAST_BPS, frame_ms: FrameMs = 20) -> OpusSound:
    """Encode and decode mono speech at 16 kHz with libopus, variable bit rate, tuned for voice.

    sound        (1, S) float in [-1, 1] at 16 kHz
    bitrate_bps  that libopus aims at, from 6000; at the lowest it codes up to 4 kHz by its own choice
    frame_ms     of a packet: 20 is usual, 60 spends less on headers and waits longer

    Raises ValueError for another shape or rate, ImportError without PyAV.
    """
    if sound.ndim != 2 or len(sound) != 1 or not sound.shape[1]:
        raise ValueError(f"sound of shape {tuple(sound.shape)}: expected (1, S), mono at 16 kHz")
    if not LEAST_BPS <= bitrate_bps <= 128_000:
        raise ValueError(f"bitrate_bps={bitrate_bps}: expected {LEAST_BPS} to 128000")
    av = require("av", "speech-measures")
    file, size, packets = io.BytesIO(), 0, 0
    options = {"application": "voip", "vbr": "on", "frame_duration": str(frame_ms)}
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SPEECH_RATE_HZ, layout="mono", options=options)
        stream.bit_rate = bitrate_bps
        samples = np.ascontiguousarray(sound.detach().float().cpu().numpy())
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate, frame.pts = SPEECH_RATE_HZ, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            size, packets = size + packet.size, packets + 1
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        rate_hz = container.streams.audio[0].rate
        decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    heard = resample(torch.from_numpy(decoded).float(), rate_hz, SPEECH_RATE_HZ)
    return OpusSound(aligned(heard, sound.cpu().float()), size, packets)


def aligned(heard: Tensor, reference: Tensor, most: int = MOST_DELAY_SAMPLES) -> Tensor:
    """`heard` (1, S') shifted to fit `reference` (1, S) best, by at most so many samples; (1, S).

    The shift is that of the highest correlation; silence fills what is missing.
    """
    length = reference.shape[1]
    padded = torch.nn.functional.pad(heard, (most, most + max(0, length - heard.shape[1])))
    windows = padded[0].unfold(0, length, 1)[: 2 * most + 1]
    return windows[int((windows @ reference[0]).argmax())][None]


def evaluate_opus(
    data: str | os.PathLike[str],
    bitrate_bps: int = LEAST_BPS,
    frame_ms: FrameMs = 20,
    *,
    limit: int | None = None,
) -> Measured:
    """The figures of `zoo.evaluation.evaluate` for Opus; its packets count as tokens.

    data, limit  as there
    """
    facts = Facts(
        name=f"Opus {bitrate_bps / 1000:g} kbps, {frame_ms} ms",
        modality="audio",
        sample_rate_hz=SPEECH_RATE_HZ,
        channels=1,
    )
    survey = Survey(SpeechJudge(facts), data, [None], limit)
    for batch in survey.batches(AudioPreprocess(sample_rate_hz=SPEECH_RATE_HZ, channels=1), size=1):
        coded = through_opus(batch.signals[0].clamp(-1, 1), bitrate_bps, frame_ms)
        survey.add(None, batch, [coded.sound], [coded.packets], 8.0 * coded.bytes)
    return survey.measured(facts)
