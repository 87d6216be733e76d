"""Sounds on the command line: files of every kind, exact lengths, rates, spectrograms, and bad input."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import tokenzoo
from tokenzoo.audio.metrics import si_sdr, spectral_distance
from tokenzoo.audio.spectrogram import spectrogram_image
from tokenzoo.zoo.cli import main

from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread", "toy_families")
SAMPLES = Path(tokenzoo.__file__).parent / "audio" / "samples"
SPEECH = SAMPLES / "dashwood_young_man.flac"


@pytest.fixture
def codec(tmp_path: Path) -> str:
    folder = tmp_path / "codec"
    build_toy("toy-codec").save_pretrained(folder)
    return str(folder)


def test_there_and_back_is_exact_to_the_sample(codec: str, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for suffix, samples in (("wav", 16_001), ("flac", 15_999), ("ogg", 1)):
        soundfile.write(folder / f"{suffix}.{suffix}", np.zeros(samples, np.float32), 16_000)
    soundfile.write(folder / "stereo.wav", np.zeros((4410, 2), np.float32), 44_100)
    (folder / "notes.txt").write_text("no sound")
    assert main(["encode", str(folder), "--tokenizer", codec, "--out", str(tmp_path / "tok")]) == 0
    assert main(["decode", str(tmp_path / "tok"), "--tokenizer", codec, "--out", str(tmp_path / "out")]) == 0
    lengths = {path.stem: soundfile.info(path).frames for path in (tmp_path / "out").glob("*.wav")}
    assert lengths == {"wav": 16_001, "flac": 15_999, "ogg": 1, "stereo": 1600}
    assert soundfile.info(tmp_path / "out" / "wav.wav").samplerate == 16_000
    assert main(["info", str(tmp_path / "tok" / "wav.tok"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.split("each\n")[-1])
    assert told["extents"] == [[16_001]] and told["lengths"] == [4001] and told["kbps"] == 48.0


def test_a_bit_rate_chooses_the_codebooks(codec: str, tmp_path: Path, capsys) -> None:
    encode = ["encode", str(SPEECH), "--tokenizer", codec, "--out", str(tmp_path)]
    assert main([*encode, "--kbps", "32"]) == 0
    tokens = tokenzoo.Tokens.load(tmp_path / "dashwood_young_man.tok")
    assert tokens.ids.shape == (1, 11_960, 2)
    for wrong, message in (
        (["--kbps", "32", "--keep", "2"], "--keep and --kbps both say how much to keep: leave one out"),
        (["--kbps", "3"], "3 kbps: toy-codec has 16 to 48 kbps, by whole codebooks"),
        (["--kbps", "3", "--until", "psnr>=3"], "--until finds the length by itself"),
    ):
        assert main([*encode, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_long_sounds_in_pieces(codec: str, tmp_path: Path) -> None:
    for name, extra in (("whole", []), ("pieces", ["--set", "chunk_seconds=0.25"])):
        out = tmp_path / name
        assert main(["encode", str(SPEECH), "--tokenizer", codec, "--out", str(out), *extra]) == 0
        decode = ["decode", str(out), "--tokenizer", codec, "--out", str(out)]
        assert main([*decode, *extra]) == 0
    whole, pieces = (soundfile.read(tmp_path / n / "dashwood_young_man.wav")[0] for n in ("whole", "pieces"))
    assert len(whole) == len(pieces) == 47_840
    # Ids may differ where two codes are nearly as near; none does here.
    assert np.abs(whole - pieces).max() <= 2 / 32768


def test_reconstruct_writes_sounds_spectrograms_and_a_table(codec: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["reconstruct", "--tokenizer", codec, "--out", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    names = [path.stem for path in sorted(SAMPLES.glob("*.flac"))]
    assert [row["item"] for row in rows] == [name for name in names for _ in range(2)]
    assert [row["scores"]["codebooks"] for row in rows] == [2, 3] * len(names)
    assert rows[0]["scores"]["kbps"] == pytest.approx(32, rel=1e-3)
    for name in names:
        assert {path.name for path in out.glob(f"{name}*")} == {
            f"{name}.tok", f"{name}.wav", f"{name}-keep2.wav"
        }  # fmt: skip
        assert soundfile.info(out / f"{name}.wav").frames == soundfile.info(SAMPLES / f"{name}.flac").frames
    with Image.open(out / "spectrograms.png") as page:
        assert page.width == 8 + 3 * (420 + 8) and page.height == 34 + len(names) * (160 + 20) + 20
    table = ["reconstruct", str(SPEECH), "--tokenizer", codec, "--out", str(out), "--keep", "1"]
    assert main(table) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:5] == [
        "item",
        "tokens",
        "bytes",
        "codebooks",
        "kbps",
    ]


def test_bad_files_are_skipped_and_named(codec: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "text.wav").write_text("this is no sound " * 40)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan, np.float32), 16_000, "FLOAT")
    soundfile.write(tmp_path / "good.wav", np.zeros(100, np.float32), 16_000)
    assert main(["encode", str(tmp_path), "--tokenizer", codec, "--out", str(tmp_path / "tok")]) == 1
    captured = capsys.readouterr()
    assert "encoded 1 of 4 files" in captured.out
    for name, message in (
        ("text.wav", "is no sound that libsndfile reads"),
        ("nothing.wav", "with at least one sample"),
        ("nan.wav", "NaN or infinity"),
    ):
        line = next(line for line in captured.err.splitlines() if f"skipped {tmp_path / name}" in line)
        assert message in line


def test_scores() -> None:
    tone = torch.sin(torch.arange(4000) / 7)[None, None]
    assert float(si_sdr(0.3 * tone, tone)[0]) > 100  # scale does not count
    noise = torch.randn(1, 1, 4000, generator=torch.Generator().manual_seed(0))
    noise = noise - (noise * tone).sum() / tone.square().sum() * tone
    noise = noise * tone.norm() / noise.norm()
    assert float(si_sdr(tone + 0.1 * noise, tone)[0]) == pytest.approx(20, abs=0.05)
    assert float(spectral_distance(tone, tone)[0]) == 0
    loud = float(spectral_distance(2 * tone, tone)[0])
    assert 0 < loud <= 20 * math.log10(2) + 1e-3  # what lies below the floor does not move
    silence = torch.zeros(1, 2, 5)
    assert float(si_sdr(silence, silence)[0]) == 0 and float(spectral_distance(silence, silence)[0]) == 0
    for score in (si_sdr, spectral_distance):
        with pytest.raises(ValueError, match=r"shapes .1, 1, 4000. and .1, 2, 5.: expected one \(B, C, S\)"):
            score(tone, silence)


def test_a_spectrogram_shows_a_tone_where_it_is() -> None:
    rate_hz = 16_000
    tone = torch.sin(2 * math.pi * 2000 * torch.arange(rate_hz) / rate_hz)[None]
    picture = np.asarray(spectrogram_image(tone)).astype(int).sum(-1)
    assert picture.shape == (160, 420)
    assert abs(int(picture[:, 210].argmax()) - 120) <= 2  # a quarter of the way up to 8 kHz
    assert np.asarray(spectrogram_image(torch.zeros(2, 1))).shape == (160, 420, 3)
    quiet = np.asarray(spectrogram_image(0.01 * tone, loudest=500.0)).astype(int).sum(-1)
    assert quiet.max() < picture.max()
