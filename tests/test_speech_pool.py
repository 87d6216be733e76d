"""What is read out of the packages of recordings, on packages of the same shape."""

from __future__ import annotations

import hashlib
import json
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tokenzoo.audio import speech_pool
from tokenzoo.audio.speech_pool import FetchError, Recording, Voice

SEEN = Voice("seen", "sounds/a", "Ada", "en", "CC-BY-3.0")
UNSEEN = Voice("unseen", "sounds/b", "Bob", "it", "CC-BY-3.0", is_seen=False)


def put(path: Path, samples: np.ndarray, rate_hz: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages that are there already: twelve words of Ada, with tones among them, and one of Bob."""
    for voice in (SEEN, UNSEEN):
        (tmp_path / "deb").mkdir(exist_ok=True)
        (tmp_path / "deb" / f"{voice.package}_1.6.1-1_all.deb").write_bytes(voice.package.encode())
    ada, bob = tmp_path / "x/seen/sounds/a", tmp_path / "x/unseen/sounds/b"
    for number in range(12):
        put(ada / f"digits/{number:02}.wav", np.full(100 + number, number))
    for name in ("beep", "silence/1", "tt-monkeys", "confbridge-join"):
        put(ada / f"{name}.wav", np.full(7, 99))
    (ada / "is.g722").touch()
    put(bob / "ciao.wav", np.arange(50))
    monkeypatch.setattr(speech_pool, "VOICES", (SEEN, UNSEEN))
    return tmp_path


def test_the_sets(fetched: Path, tmp_path: Path) -> None:
    assert speech_pool.main([str(tmp_path / "pool"), "--fetched", str(fetched)]) == 0
    pool = tmp_path / "pool"
    sets = {name: json.loads((pool / f"{name}.json").read_text()) for name in ("train", "held_out", "unseen")}
    # A tenth of twelve is two words; the beep, the silence, the monkeys and the empty file are left out.
    assert [place["name"] for place in sets["held_out"]] == ["seen:digits/10", "seen:digits/11"]
    assert [place["name"] for place in sets["unseen"]] == ["unseen:ciao"]
    assert len(sets["train"]) == 30 and {place["speaker"] for place in sets["train"]} == {"Ada"}
    samples = np.load(pool / "train.npy")
    assert samples.dtype == np.int16 and len(samples) == sum(place["samples"] for place in sets["train"])
    for number, place in enumerate(sets["train"][::3]):
        part = samples[place["start"] : place["start"] + place["samples"]]
        assert len(part) == 100 + number and set(part.tolist()) == {number}
    assert [place["name"] for place in sets["train"][:3]] == [
        f"seen:digits/00{speed}" for speed in ("", "@0.85", "@0.65")
    ]
    assert [place["samples"] for place in sets["train"][:3]] == [100, 118, 154]
    told = json.loads((pool / "provenance.json").read_text())
    assert [package["version"] for package in told["packages"]] == ["1.6.1-1", "1.6.1-1"]
    assert [package["recordings"] for package in told["packages"]] == [32, 1]
    assert told["packages"][0]["sha256"] == hashlib.sha256(b"seen").hexdigest()


def test_the_voices_that_are_held_out_are_never_trained_on() -> None:
    unseen = {voice.package for voice in speech_pool.VOICES if not voice.is_seen}
    assert unseen == {"asterisk-core-sounds-it-g722", "pocketsphinx-testdata"}


def test_g722_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.g722"
    path.write_bytes(bytes([0xFA] * 800))  # a byte is two samples
    samples = speech_pool.read(Recording("a", path, SEEN))
    assert samples.dtype == np.int16 and samples.shape == (1600,)


def test_what_is_not_there_is_said(fetched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FetchError, match=r"seen has no recordings in nowhere: has the package changed\?"):
        speech_pool.recordings(Voice("seen", "nowhere", "Ada", "en", "CC0-1.0"), fetched)
    put(tmp_path / "a.wav", np.zeros(4), rate_hz=8000)
    with pytest.raises(FetchError, match="expected 16 kHz mono int16"):
        speech_pool.read(Recording("a", tmp_path / "a.wav", SEEN))
    (fetched / "deb/seen_1.6.1-1_all.deb").rename(fetched / "deb/seen_2.deb")
    (fetched / "deb/seen_3.deb").touch()
    assert speech_pool.main([str(tmp_path / "pool"), "--fetched", str(fetched)]) == 1
    assert "2 files seen_*.deb" in capsys.readouterr().err


def test_half_the_speed_is_an_octave_lower(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", np.round(8000 * np.sin(2 * np.pi * 400 * np.arange(8000) / 16_000)))
    slower = speech_pool.read(Recording("a", tmp_path / "a.wav", SEEN, Fraction(1, 2)))
    assert len(slower) == 16_000
    spectrum = np.abs(np.fft.rfft(slower))
    assert spectrum.argmax() == 200  # of a second
