"""Evaluations over data sets of pictures and speech, from Python and by `tokenzoo eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import tokenzoo
from tokenzoo.audio.judge import MEASURES, SpeechJudge
from tokenzoo.audio.metrics import si_sdr
from tokenzoo.image.metrics import psnr
from tokenzoo.zoo.cli import main
from tokenzoo.zoo.evaluation import default_keeps, evaluate
from tokenzoo.zoo.facts import Facts
from tokenzoo.zoo.measured import Measured
from tokenzoo.zoo.tokenizer import NoDecoder
from tokenzoo.zoo.tokens import Tokens

from .test_rate_distortion import SIDE, Stripes, textured
from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread", "toy_families")


class Bars(Stripes):
    """Takes lists, as every tokenizer of the package does."""

    def encode(self, signal: Any, **options: Any) -> Tokens:
        return super().encode(torch.stack(list(signal)), **options)


SPEECH = Path(tokenzoo.__file__).parent / "audio" / "samples" / "dashwood_young_man.flac"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three small pictures."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, pixels in enumerate(textured(3)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two stretches of speech that last one window of DNSMOS when they are doubled twice; one at 24 kHz."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    waveform, rate_hz = soundfile.read(SPEECH)
    soundfile.write(folder / "a.wav", waveform[: int(2.5 * rate_hz)], rate_hz)
    soundfile.write(folder / "b.wav", waveform[: int(2.5 * 24_000)], 24_000)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the measures that take their time, and those that want an extra."""
    cheap = tuple(measure for measure in MEASURES if measure.name in ("stoi", "si_sdr", "mel_distance"))
    monkeypatch.setattr(SpeechJudge, "_available", lambda self: cheap)


def test_pictures_at_every_length(photographs: Path) -> None:
    tokenizer = Bars()
    found = evaluate(tokenizer, photographs, keeps=[16, 4, 16], name="stripes of three")
    assert [level.keep for level in found.levels] == [4, 16, None]
    assert [level.bits for level in found.levels] == [32.0, 128.0, 256.0]
    assert (found.items, found.data, found.tokenizer, found.bits_per) == (
        3,
        "stripes of three",
        "stripes-32",
        "image",
    )
    images = torch.stack([tokenizer.preprocess(path) for path in sorted(photographs.iterdir())])
    rebuilt = (tokenizer.decode(tokenizer.encode(images).keep(4)) * 255).round() / 255
    figure = found.levels[0].figure("psnr")
    assert figure is not None and figure.mean == pytest.approx(float(psnr(rebuilt, images).mean()), abs=1e-6)
    assert figure.low is not None and figure.high is not None and figure.low < figure.mean < figure.high
    assert evaluate(tokenizer, photographs, keeps=[4, 16], name="stripes of three", batch_size=2) == found


def test_an_array_of_pictures_and_a_limit(photographs: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "photographs.npy", textured(3))
    whole, rows = (evaluate(Bars(), each, keeps=()) for each in (photographs, tmp_path / "photographs.npy"))
    assert whole.levels == rows.levels and rows.data == "photographs" and rows.keeps == ()
    assert whole.data_digest != rows.data_digest
    some = evaluate(Bars(), photographs, keeps=(), limit=2)
    assert some.items == 2 and some.data_digest != whole.data_digest
    assert evaluate(Bars(), photographs, keeps=(), limit=9) == whole


def test_speech_by_codebooks(recordings: Path, quick: None) -> None:
    tokenizer = build_toy("toy-codec")
    found = evaluate(tokenizer, recordings, batch_size=1)
    assert [level.keep for level in found.levels] == [1, 2, None]
    assert [level.bits for level in found.levels] == pytest.approx([16_000, 32_000, 48_000], rel=1e-3)
    assert [figure.measure.name for figure in found.full.figures] == ["stoi", "si_sdr", "mel_distance"]
    scores = []
    for path in sorted(recordings.iterdir()):
        sound = tokenizer.preprocess(path)
        rebuilt = tokenizer.decode(tokenizer.encode([sound]).keep(1)).clamp(-1, 1)
        scores.append(float(si_sdr(rebuilt[..., : sound.shape[1]], sound[None])[0]))
    figure = found.levels[0].figure("si_sdr")
    assert figure is not None and figure.mean == pytest.approx(np.mean(scores), abs=1e-3)


def test_dnsmos_judges_the_originals_too(recordings: Path) -> None:
    found = evaluate(build_toy("toy-codec"), recordings, keeps=(), limit=1)
    assert [figure.measure.name for figure in found.originals] == [
        "dnsmos",
        "dnsmos_speech",
        "dnsmos_background",
    ]
    heard, original = found.full.figure("dnsmos"), found.originals[0]
    assert heard is not None and 1 < heard.mean < original.mean < 5


def test_recordings_in_one_array(recordings: Path, tmp_path: Path, quick: None) -> None:
    waveform, rate_hz = soundfile.read(recordings / "a.wav", dtype="int16")
    np.save(tmp_path / "unseen.npy", np.concatenate([waveform, waveform[:20_000]]))
    places = [
        {"name": "a", "start": 0, "samples": len(waveform)},
        {"name": "b", "start": len(waveform), "samples": 20_000},
    ]
    (tmp_path / "unseen.json").write_text(json.dumps(places))
    (tmp_path / "provenance.json").write_text(json.dumps({"sample_rate_hz": rate_hz}))
    found = evaluate(build_toy("toy-codec"), tmp_path / "unseen.npy", keeps=())
    alone = evaluate(build_toy("toy-codec"), recordings, keeps=(), limit=1)
    assert found.items == 2
    figure, one = found.full.figure("stoi"), alone.full.figure("stoi")
    assert figure is not None and one is not None and figure.items == 2


def test_a_measure_without_its_library_is_left_out_and_named(monkeypatch, caplog) -> None:
    import tokenzoo.audio.judge as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    judge = SpeechJudge(Facts("toy", "audio", sample_rate_hz=16_000))
    assert [measure.name for measure in judge.measures] == ["stoi", "si_sdr", "mel_distance"]
    assert 'PESQ is left out of the figures: pip install "tokenzoo[pesq]"' in caplog.text
    assert 'DNSMOS is left out of the figures: pip install "tokenzoo[speech-measures]"' in caplog.text


def test_lengths_worth_measuring() -> None:
    sizes = (16,) * 12
    assert default_keeps(Facts("a", "audio", codebook_sizes=sizes, nested="codebooks")) == (1, 2, 4, 8)
    assert default_keeps(
        Facts("a", "audio", codebook_sizes=sizes[:7], nested="codebooks", keeps=(1, 3, 7))
    ) == (1, 3)
    assert default_keeps(Facts("i", "image", max_tokens=32, codebook_sizes=(16,), nested="tokens")) == (8,)
    assert default_keeps(Facts("i", "image", max_tokens=32, codebook_sizes=(16,))) == ()


def test_what_cannot_be_measured(photographs: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="is for text"):
        evaluate(tokenzoo.load("bytes"), photographs)
    with pytest.raises(ValueError, match="no such folder"):
        evaluate(Bars(), tmp_path / "absent")
    (photographs / "3.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"3\.png"):
        evaluate(Bars(), photographs)
    for wrong in ({"limit": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="=0: expected at least 1"):
            evaluate(Bars(), photographs, **wrong)
    blind = Bars()
    monkeypatch.setattr(blind, "_facts", Facts("blind", "image", max_tokens=SIDE, has_decoder=False))
    with pytest.raises(NoDecoder, match="blind only encodes"):
        evaluate(blind, photographs)


def test_the_command(recordings: Path, quick: None, tmp_path: Path, capsys) -> None:
    codec = tmp_path / "codec"
    build_toy("toy-codec").save_pretrained(codec)
    command = [
        "eval",
        str(recordings),
        "--tokenizer",
        str(codec),
        "--keep",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["codebooks", "kbps", "STOI", "SI-SDR,", "dB", "mel", "distance"]
    assert lines[1].split()[:2] == ["2", "32"] and lines[2].split()[:2] == ["all", "48"]
    assert "toy-codec over 2 items of recordings; 95% percentile bootstrap" in lines[4]
    saved = Measured.load(tmp_path / "out" / "toy-codec-recordings.json")
    assert main([*command, "--json"]) == 0
    assert [Measured.from_dict(each) for each in json.loads(capsys.readouterr().out)] == [saved]
    assert main([*command, "--reference", "en"]) == 2
    assert "are for text" in capsys.readouterr().err
