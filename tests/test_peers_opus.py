"""Opus as a peer, and the report that compares with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

import tokenzoo
import tokenzoo.audio.speech_report as speech_report
from tokenzoo.audio.audio_files import AudioFiles
from tokenzoo.audio.judge import MEASURES, SpeechJudge
from tokenzoo.audio.peers_opus import aligned, evaluate_opus, through_opus
from tokenzoo.audio.stoi import stoi
from tokenzoo.zoo.facts import Facts
from tokenzoo.zoo.measured import Figure, Level, Measured

from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread", "toy_families")
PESQ, MEL = MEASURES[0], MEASURES[3]


@pytest.fixture
def speech() -> Tensor:
    """(1, S): three seconds."""
    waveform, _ = soundfile.read(AudioFiles().samples()[1], dtype="float32")
    return torch.from_numpy(waveform)[None]


@pytest.fixture
def recordings(tmp_path: Path, speech: Tensor) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(2):
        soundfile.write(folder / f"{index}.wav", speech[0, index * 8000 : index * 8000 + 20_000], 16_000)
    return folder


@pytest.mark.parametrize(
    ("bitrate_bps", "frame_ms", "least"), [(6000, 20, 0.8), (6000, 60, 0.8), (24_000, 20, 0.97)]
)
def test_what_comes_back_is_in_time_and_costs_what_was_asked(
    speech: Tensor, bitrate_bps: int, frame_ms, least: float
) -> None:
    coded = through_opus(speech, bitrate_bps, frame_ms)
    assert coded.sound.shape == speech.shape
    assert float(stoi(coded.sound[None], speech[None])[0]) > least
    seconds = speech.shape[1] / 16_000
    assert 8 * coded.bytes / seconds == pytest.approx(bitrate_bps, rel=0.2)
    assert coded.packets == pytest.approx(1000 * seconds / frame_ms, abs=2)
    lags = torch.fft.irfft(torch.fft.rfft(speech[0]).conj() * torch.fft.rfft(coded.sound[0]))
    assert int(lags.argmax()) == 0


def test_opus_takes_mono_and_its_own_rates(speech: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\): expected \(1, S\)"):
        through_opus(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="bitrate_bps=2000: expected 6000 to 128000"):
        through_opus(speech, 2000)


@pytest.mark.parametrize("delay", [-3, 0, 2])
def test_a_delay_is_taken_off(speech: Tensor, delay: int) -> None:
    shifted = torch.roll(speech, delay, 1)
    found = aligned(shifted, speech)
    assert torch.equal(found[:, 4:-4], speech[:, 4:-4])
    assert aligned(shifted[:, :-100], speech).shape == speech.shape


def _measured(
    name: str, bps: float, pesq: tuple[float, float, float], mel: tuple[float, float, float]
) -> Measured:
    figures = (Figure(PESQ, *pesq, 30), Figure(MEL, *mel, 30))
    return Measured(
        tokenizer=name, revision=None, fingerprint=None, modality="audio", data="unseen",
        data_digest="d" * 64, items=30, nested="codebooks", bits_per="second", notes="Notes.",
        levels=(Level(1, 9.0, bps / 2, figures[:1]), Level(None, 9.0, bps, figures)),
        originals=(Figure(MEASURES[4], 3.0, 2.9, 3.1, 30),),
    )  # fmt: skip


def test_the_report_says_what_was_won_and_lost() -> None:
    ours = _measured("ours", 2000.0, (2.0, 1.9, 2.1), (0.5, 0.4, 0.6))
    opus = _measured("Opus 6 kbps", 6000.0, (2.5, 2.4, 2.6), (0.9, 0.8, 1.0))
    page = speech_report.speech_report(ours, [opus])
    lines = page.splitlines()
    assert lines[:3] == [
        "| codec | kbps | PESQ-wb | mel distance |",
        "|---|---:|---:|---:|",
        "| `ours`, 1 codebook | 1 | 2.00 [1.90, 2.10] | - |",
    ]
    assert lines[4] == "| Opus 6 kbps | 6 | 2.50 [2.40, 2.60] | 0.900 [0.800, 1.000] |"
    assert (
        "- `ours` at 2 kbps beside Opus 6 kbps, which spends 3 times the bits: "
        "won: mel distance; lost: PESQ-wb." in lines
    )
    assert "| 1.5 kbps | 1.46 | 0.773 |" in lines and "nothing is won or lost" in page
    even = _measured("Opus", 6000.0, (2.15, 2.05, 2.25), (0.9, 0.8, 1.0))
    assert "too close to call: PESQ-wb" in speech_report.verdict(ours, even)
    with pytest.raises(ValueError, match="other data"):
        speech_report.speech_report(ours, [replace(opus, data_digest="e" * 64)])


def test_every_number_of_codebooks() -> None:
    facts = Facts("a", "audio", codebook_sizes=(16,) * 4, nested="codebooks")
    assert speech_report.all_keeps(facts) == [1, 2, 3]
    assert speech_report.all_keeps(replace(facts, keeps=(1, 3, 4))) == [1, 3]
    assert speech_report.all_keeps(replace(facts, nested=None)) == []


def test_the_command(recordings: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    cheap = tuple(measure for measure in MEASURES if measure.name in ("stoi", "si_sdr"))
    monkeypatch.setattr(SpeechJudge, "_available", lambda self: cheap)
    build_toy("toy-codec").save_pretrained(tmp_path / "codec")
    out = tmp_path / "docs"
    command = [str(tmp_path / "codec"), "--data", str(recordings), "--out", str(out)]
    assert speech_report.main(command) == 0
    page = (out / "toy_codec_speech.md").read_text()
    assert page in capsys.readouterr().out
    labels = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    assert labels[:6] == [
        "| codec",
        "| `toy-codec`, 1 codebook",
        "| `toy-codec`, 2 codebooks",
        "| `toy-codec`, all codebooks",
        "| Opus 6 kbps, 20 ms",
        "| Opus 6 kbps, 60 ms",
    ]
    told = [Measured.from_dict(each) for each in json.loads((out / "toy_codec_speech.json").read_text())]
    assert told[1] == evaluate_opus(recordings, 6000, 20)
    assert told[1].full.bits == pytest.approx(6000, rel=0.3)
    assert speech_report.main([str(tmp_path / "absent"), "--data", str(recordings)]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert tokenzoo.load(tmp_path / "codec").facts.fingerprint == told[0].fingerprint
