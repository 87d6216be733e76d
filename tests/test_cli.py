"""The command line: every verb, exit codes, folders with bad files, machine-readable output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import tokenzoo
from tokenzoo.zoo import catalogue
from tokenzoo.zoo.cli import main

SAMPLES = sorted((Path(tokenzoo.__file__).parent / "image" / "samples").glob("*.jpg"))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them below, a text file, a hidden one and a truncated one."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for sample, name in zip(SAMPLES, ("a.jpg", "b.png", "more/a.webp"), strict=False):
        with Image.open(sample) as picture:
            picture.resize((150, 140)).save(folder / name)
    (folder / "notes.md").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "broken.jpg").write_bytes(SAMPLES[0].read_bytes()[:2000])
    return folder


def test_help_list_and_info_import_nothing_heavy():
    code = (
        "import sys, tokenzoo.zoo.cli as cli\n"
        "assert cli.main(['--help']) == 0\n"
        "assert cli.main(['list']) == 0\n"
        "assert cli.main(['info', 'titok-l32']) == 0\n"
        "names = {'torch', 'lightning', 'timm', 'torchvision', 'diffusers', 'transformers'}\n"
        "heavy = names & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "reconstruct" in done.stdout and "one-d-piece-l-256" in done.stdout


def test_list_as_json_names_every_row(capsys):
    assert main(["list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == catalogue.names()
    assert main(["list", "--modality", "text"]) == 0
    assert "titok" not in capsys.readouterr().out


def test_encode_reports_the_broken_file_and_does_the_rest(photographs, tmp_path, capsys):
    out = tmp_path / "tokens"
    assert main(["encode", str(photographs), "--out", str(out), "--batch-size", "2", "--json"]) == 1
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert [Path(row["output"]).relative_to(out).as_posix() for row in report["done"]] == [
        "a.tok", "b.tok", "more/a.tok",
    ]  # fmt: skip
    assert [Path(row["input"]).name for row in report["failed"]] == ["broken.jpg"]
    assert "broken.jpg" in told.err
    assert {row["tokens"] for row in report["done"]} == {376}
    single = tokenzoo.load("pyramid-128")
    again = single.encode([single.preprocess(photographs / "b.png")])
    assert tokenzoo.Tokens.load(out / "b.tok").identical(again)


def test_decode_finds_the_tokenizer_in_the_file(photographs, tmp_path, capsys):
    tokens, pictures = tmp_path / "tokens", tmp_path / "pictures"
    (photographs / "broken.jpg").unlink()
    assert main(["encode", str(photographs), "--out", str(tokens), "--keep", "32"]) == 0
    (tokens / "damaged.tok").write_bytes((tokens / "a.tok").read_bytes()[:-3])
    assert main(["decode", str(tokens), "--out", str(pictures)]) == 1
    assert "damaged.tok" in capsys.readouterr().err
    assert sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png")) == [
        "a.png", "b.png", "more/a.png",
    ]  # fmt: skip
    tokenizer = tokenzoo.load("pyramid-128")
    expected = tokenizer.decode(tokenzoo.Tokens.load(tokens / "a.tok"))[0]
    shown = tokenizer.preprocess(pictures / "a.png")
    assert torch.equal(shown, (expected * 255).round() / 255)


def test_until_stops_at_the_shortest_length_that_is_good_enough(tmp_path, capsys):
    out = tmp_path / "tokens"
    assert main(["encode", str(SAMPLES[1]), "--out", str(out), "--until", "psnr>=22"]) == 0
    assert "misses" not in capsys.readouterr().err
    assert main(["encode", str(SAMPLES[1]), "--out", str(tmp_path / "all"), "--until", "psnr>=90"]) == 0
    assert f"{SAMPLES[1]} misses psnr>=90 with all 376 tokens" in capsys.readouterr().err
    tokens = tokenzoo.Tokens.load(next(out.glob("*.tok")))
    tokenizer = tokenzoo.load("pyramid-128")
    original = tokenizer.preprocess(SAMPLES[1])[None]
    from tokenzoo.image.metrics import psnr

    assert float(psnr(tokenizer.decode(tokens), original)) >= 22
    shorter = tokens.keep(int(tokens.lengths[0]) - 1)
    assert float(psnr(tokenizer.decode(shorter), original)) < 22


def test_reconstruct_writes_the_page_the_tokens_and_the_table(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["reconstruct", str(SAMPLES[0]), str(SAMPLES[1]), "--out", str(out), "--keep", "4,64"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert table[0] == ["item", "tokens", "bytes", "bits/pixel", "PSNR", "dB", "SSIM"]
    assert [row[1:3] for row in table[1:4]] == [["4", "8"], ["64", "128"], ["376", "752"]]
    assert float(table[3][4]) > float(table[2][4]) > float(table[1][4])
    with Image.open(out / "side_by_side.png") as page:
        assert page.width > 4 * 128 and page.height > 2 * 128
    assert len(list(out.glob("*.tok"))) == 2


def test_text_goes_there_and_back(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes("größe\n".encode())
    (tmp_path / "empty.txt").write_bytes(b"")
    assert main(["encode", str(tmp_path), "--out", str(tmp_path / "t"), "--tokenizer", "bytes"]) == 0
    assert main(["decode", str(tmp_path / "t"), "--out", str(tmp_path / "d")]) == 0
    assert (tmp_path / "d" / "a.txt").read_bytes() == "größe\n".encode()
    assert (tmp_path / "d" / "empty.txt").read_bytes() == b""
    capsys.readouterr()
    assert main(["info", str(tmp_path / "t" / "a.tok"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lengths"] == [8]


def test_two_files_of_one_name_do_not_overwrite_each_other(tmp_path):
    for suffix in ("txt", "md"):
        (tmp_path / f"same.{suffix}").write_text(suffix)
    out = tmp_path / "t"
    files = [str(tmp_path / "same.txt"), str(tmp_path / "same.md")]
    assert main(["encode", *files, "--out", str(out), "--tokenizer", "bytes"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["same.md.tok", "same.txt.tok"]


def test_convert_writes_a_folder_that_loads(tmp_path, capsys):
    out = tmp_path / "half"
    assert main(["convert", "pyramid-128", "--out", str(out), "--dtype", "float16"]) == 0
    assert tokenzoo.load(out).facts == tokenzoo.load("pyramid-128").facts
    weights = str(out / "model.safetensors")
    assert main(["convert", weights, "--out", str(tmp_path / "x")]) == 2
    assert main(["convert", weights, "--like", "titok-s128", "--out", str(tmp_path / "x")]) == 1
    assert "missing (" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ([], 2, "required"),
        (["encode"], 2, "required"),
        (["paint"], 2, "invalid choice"),
        (["encode", "x.png", "--out", "o", "--keep", "0"], 2, "expected a whole number of at least 1"),
        (["encode", "x.png", "--out", "o", "--keep", "many"], 2, "expected a whole number of at least 1"),
        (["encode", "x.png", "--out", "o", "--device", "toaster"], 2, "--device toaster"),
        (["encode", "x.png", "--out", "o", "--until", "taste>=1"], 2, "expected psnr>=NUMBER"),
        (["encode", "x.png", "--out", "o"], 1, "no such file"),
        (
            ["encode", "x.png", "--out", "o", "--tokenizer", "titok-l33"],
            2,
            "unknown tokenizer 'titok-l33'; did you mean titok-l32",
        ),
        (["encode", "x.txt", "--out", "o", "--tokenizer", "bytes", "--keep", "3"], 2, "no nested axis"),
        (["info", "titok-l33"], 2, "unknown tokenizer"),
        (["encode", "x.png", "--out", "o", "--set", "steps=1"], 2, "pyramid-128 has no keywords for encode"),
        (["encode", "x.png", "--out", "o", "--untrained"], 2, "say which with --tokenizer"),
        (
            ["encode", "x.png", "--out", "o", "--untrained", "--tokenizer", "pyramid-128"],
            2,
            "'pyramid-128' has no configuration",
        ),
        (["decode", "x.tok", "--out", "o", "--restamp"], 2, "--restamp: say by which tokenizer"),
        (["decode", "x.tok", "--out", "o"], 1, "x.tok"),
        (["decode", ".", "--out", "o"], 1, "no .tok files in ."),
        (["reconstruct", "--tokenizer", "bytes"], 2, "no text samples"),
    ],
)
def test_mistakes_have_their_exit_code_and_a_reason(command, code, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command) == code
    assert text in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_outputs_of_one_folder_do_not_overwrite_each_other(tmp_path, capsys):
    (tmp_path / "in" / "x").mkdir(parents=True)
    for sample, name in zip(SAMPLES, ("x/y.jpg", "x_y.jpg"), strict=False):
        (tmp_path / "in" / name).write_bytes(sample.read_bytes())
    out = tmp_path / "out"
    assert main(["reconstruct", str(tmp_path / "in"), "--out", str(out), "--keep", "3,3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted((row["item"], row["tokens"]) for row in rows) == [
        ("x_y.jpg", 3), ("x_y.jpg", 376), ("x_y.jpg-2", 3), ("x_y.jpg-2", 376),
    ]  # fmt: skip
    tokens = [tokenzoo.Tokens.load(out / f"{name}.tok") for name in ("x_y.jpg", "x_y.jpg-2")]
    assert not tokens[0].identical(tokens[1])
    for name in ("a.txt", "a.b.txt"):
        (tmp_path / name).write_text(name)
    texts = [str(tmp_path / name) for name in ("a.txt", "a.b.txt")]
    assert main(["reconstruct", *texts, "--tokenizer", "bytes", "--out", str(out)]) == 0
    assert [(out / name).read_text() for name in ("a.txt", "a.b.txt")] == ["a.txt", "a.b.txt"]


def test_an_output_that_cannot_be_written_is_reported_and_the_rest_goes_on(tmp_path, capsys):
    long_name = "n" * 250 + ".jpg"  # the output beside it will be a character too long
    (tmp_path / "more").mkdir()
    for name in (long_name, f"more/{long_name}", "b.jpg"):
        (tmp_path / name).write_bytes(SAMPLES[0].read_bytes())
    inputs = [str(tmp_path / name) for name in (long_name, f"more/{long_name}", "b.jpg")]
    assert main(["encode", *inputs, "--out", str(tmp_path / "out"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [Path(row["output"]).name for row in report["done"]] == ["b.tok"]
    assert len(report["failed"]) == 2 and "too long" in report["failed"][0]["error"]


@pytest.mark.parametrize(
    "command",
    [
        ["encode", "{photo}", "--out", "{photo}"],
        ["decode", "{photo}", "--out", "{photo}"],
        ["reconstruct", "{photo}", "--out", "{photo}"],
        ["encode", "{photo}", "--out", "{out}", "--until", "psnr>=a"],
        ["encode", "{photo}", "--out", "{out}", "--until", "psnr>=9", "--keep", "3"],
        ["encode", "{photo}", "--out", "{out}", "--keep", "many"],
    ],
)
def test_mistakes_are_found_before_the_work(command, tmp_path, capsys):
    photo = tmp_path / "a.jpg"
    photo.write_bytes(SAMPLES[0].read_bytes())
    assert main([part.format(photo=photo, out=tmp_path / "out") for part in command]) == 2
    told = capsys.readouterr().err
    assert "_count" not in told and ("--out" in told or "--until" in told or "--keep" in told)
    assert not (tmp_path / "out").exists()


def test_a_missing_tok_file_is_not_looked_up_on_the_hub(tmp_path, capsys):
    assert main(["info", str(tmp_path / "a.tok")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_a_reader_that_has_enough_and_an_output_that_is_closed_are_no_tracebacks():
    command = [sys.executable, "-m", "tokenzoo.zoo.cli", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
    closed = "import os, sys; os.close(1); os.execv(sys.executable, sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", closed, *command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_the_terminal_cannot_show_is_no_failure(tmp_path, monkeypatch):
    import io

    (tmp_path / "☃.txt").write_text("snow")
    with open(tmp_path / "told", "wb") as raw, io.TextIOWrapper(raw, encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        out = str(tmp_path / "out")
        assert main(["reconstruct", str(tmp_path / "☃.txt"), "--tokenizer", "bytes", "--out", out]) == 0
    assert b"\\u2603" in (tmp_path / "told").read_bytes()


def test_decode_replaces_nothing_unless_told(tmp_path: Path, capsys) -> None:
    """A picture beside its tokens is the original, not a reconstruction of an earlier run."""
    with Image.open(SAMPLES[0]) as picture:
        picture.resize((140, 140)).save(tmp_path / "cat.png")
    original = (tmp_path / "cat.png").read_bytes()
    assert main(["encode", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert main(["decode", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "cat.png is there already: give another --out, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "cat.png").read_bytes() == original
    assert main(["decode", str(tmp_path), "--out", str(tmp_path), "--overwrite"]) == 0
    assert (tmp_path / "cat.png").read_bytes() != original
