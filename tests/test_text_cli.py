"""The command line on text: files to .tok files and back, with a tokenizer in a file or a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenzoo.zoo.cli import main

from .text_samples import END, library, small


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "deeper").mkdir(parents=True)
    (folder / "one.txt").write_text(f"some text, with {END} spelled in it\n")
    (folder / "deeper" / "two.md").write_bytes(b"caf\xe9 is no UTF-8 \xff\x00")
    (folder / "empty.txt").touch()
    (folder / "photo.jpg").touch()
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(library().to_str())
    return path


def test_there_and_back(texts: Path, tokenizer: Path, tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "saved")
    out, back = tmp_path / "tokens", tmp_path / "back"
    assert main(["encode", str(texts), "--tokenizer", str(tokenizer), "--out", str(out)]) == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.tok")) == [
        "deeper/two.tok",
        "empty.tok",
        "one.tok",
    ]
    assert main(["decode", str(out), "--tokenizer", str(tokenizer), "--out", str(back)]) == 0
    assert (back / "deeper" / "two.txt").read_bytes() == (texts / "deeper" / "two.md").read_bytes()
    assert (back / "one.txt").read_bytes() == (texts / "one.txt").read_bytes()
    assert (back / "empty.txt").read_bytes() == b""


def test_what_is_known_of_a_tokenizer(tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tokenizer), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["vocab_size"] == 1200 and told["is_lossless"] is True and told["modality"] == "text"
    assert told["engine"] == "tiktoken" and told["pre_tokenizer"] == "llama3"
    assert told["specials"] == 1 and told["merges"] == 943 and told["longest_piece"] > 4


def test_specials_on_request(texts: Path, tokenizer: Path, tmp_path: Path) -> None:
    counts = {}
    for name, more in (("none", []), ("all", ["--set", "allow=all"]), ("one", ["--set", f"allow={END}"])):
        out = tmp_path / name
        command = ["encode", str(texts / "one.txt"), "--tokenizer", str(tokenizer), "--out", str(out), *more]
        assert main(command) == 0
        from tokenzoo import Tokens

        counts[name] = Tokens.load(out / "one.tok").ids.tolist()[0]
    assert 0 not in counts["none"] and counts["all"].count(0) == 1 and counts["one"] == counts["all"]


def test_mistakes_are_told(
    texts: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    assert main(["encode", str(texts), "--tokenizer", str(bad), "--out", str(tmp_path / "x")]) == 1
    assert "file bad.json: describes no tokenizer" in capsys.readouterr().err
    command = ["encode", str(texts), "--tokenizer", str(tokenizer), "--out", str(tmp_path / "x")]
    assert main([*command, "--keep", "3"]) == 2
    assert "has no nested axis" in capsys.readouterr().err
    assert main(command) == 0
    assert main(["decode", str(tmp_path / "x"), "--out", str(tmp_path / "y")]) == 1
    assert "made by 'text', which is no catalogue name; name its folder" in capsys.readouterr().err


def test_a_bench_of_everything_here(texts: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tokenzoo.text.bench import main as bench

    assert bench([str(texts), "--tokenizer", str(tokenizer), "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["LIBRARY", "MB/CPU-S"] and lines[1].startswith("tokenizers ")
    assert any(line.startswith("tokenzoo ") and line.endswith(" 0") for line in lines)
