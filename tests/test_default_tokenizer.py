"""Without --tokenizer the files say which: pictures, sounds, or texts where there is nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenzoo.zoo.cli import main
from tokenzoo.zoo.loading import load
from tokenzoo.zoo.media import modality_of_files
from tokenzoo.zoo.tokfile import read_record


@pytest.mark.parametrize(
    ("names", "modality"),
    [
        (["a.wav"], "audio"),
        (["a.JPG", "b.txt"], "image"),
        (["deep/er/a.flac", "a.txt"], "audio"),
        (["a.txt"], "text"),
        (["a.bin", ".hidden.wav"], "image"),
        ([], "image"),
    ],
)
def test_a_folder_says_its_medium(tmp_path: Path, names: list[str], modality: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert modality_of_files([tmp_path]) == modality


def test_pictures_and_sounds_together_are_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.wav"):
        (tmp_path / name).write_bytes(b"")
    assert main(["encode", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "pictures and sounds among the inputs: say which with --tokenizer" in capsys.readouterr().err


def test_what_is_not_there_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert modality_of_files([tmp_path / "missing.wav", tmp_path]) == "image"
    assert main(["encode", str(tmp_path), "--out", str(tmp_path / "out"), "--untrained"]) == 2
    assert "--untrained: say which with --tokenizer NAME" in capsys.readouterr().err


def test_a_text_and_a_sound_find_theirs(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    sound = checkout / "audio" / "samples" / "dashwood_selfish.flac"
    for path, name in ((tmp_path / "a.txt", "bpe-40k"), (sound, "harmonic-16khz")):
        assert main(["encode", str(path), "--out", str(tmp_path / "out")]) == 0
        assert read_record(tmp_path / "out" / f"{path.stem}.tok").facts.name == name


def test_eval_looks_at_the_files_too(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(checkout / "image" / "samples"), "--limit", "1"]) == 0
    assert "pyramid-128" in capsys.readouterr().out


def test_tokens_of_other_weights_are_taken_on_request(
    tmp_path: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A decoder that was fine-tuned alone: the ids mean what they did."""
    tuned = load("pyramid-128").finetune(freeze="encoder, quantizer")
    next(tuned.tokenizer.decoder.parameters()).data.add_(0.01)
    tuned.save_pretrained(tmp_path / "mine")
    picture = str(checkout / "image" / "samples" / "cat.jpg")
    assert main(["encode", picture, "--out", str(tmp_path / "tokens")]) == 0
    decode = ["decode", str(tmp_path / "tokens"), "--tokenizer", str(tmp_path / "mine")]
    assert main([*decode, "--out", str(tmp_path / "out")]) == 1
    assert "on the command line with --tokenizer FOLDER and --restamp" in capsys.readouterr().err
    assert main([*decode, "--out", str(tmp_path / "out"), "--restamp"]) == 0
    told = capsys.readouterr().err
    assert "was made by pyramid-128; pyramid-128-finetuned decodes it as you ask" in told
    assert (tmp_path / "out" / "cat.png").is_file()
