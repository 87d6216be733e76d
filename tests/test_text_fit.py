"""`tokenzoo fit` on a recipe for text: from YAML to a tokenizer that loads, without Lightning."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tokenzoo
from tokenzoo.text.fit import TRAINERS, fit
from tokenzoo.text.fit import main as text_main
from tokenzoo.zoo import fit as zoo_fit
from tokenzoo.zoo.cli import main

from .real_text import SAMPLES, english

CONFIGS = Path(tokenzoo.__file__).parent / "configs"
MODEL: dict[str, Any] = {
    "tokenizer_type": "text",
    "trainer": "superbpe",
    "vocab_size": 600,
    "identity": {"name": "tiny", "licence": "MIT", "provenance": "a test"},
    "options": {"transition": 400, "specials": ["<end>"]},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for number, text in enumerate(english()[:20]):
        (tmp_path / "text" / f"{number}.txt").write_text(text, encoding="utf-8")
    write(tmp_path / "recipe.yaml", tmp_path, MODEL)
    return tmp_path / "recipe.yaml"


def write(path: Path, folder: Path, model: dict[str, Any], **data: Any) -> None:
    told = {"out": str(folder / "out"), "model": model, "data": {"train": str(folder / "text"), **data}}
    path.write_text(yaml.safe_dump(told))


def test_a_recipe_becomes_a_tokenizer(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = recipe.parent / "out"
    assert main(["fit", "--config", str(recipe)]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == f"{out}\n" and "343/343" in stderr
    tokenizer: Any = tokenzoo.load(out)
    assert (tokenizer.facts.name, tokenizer.facts.licence, tokenizer.provenance) == ("tiny", "MIT", "a test")
    assert tokenizer.facts.is_lossless and tokenizer.specials == {"<end>": 599}
    text = english()[30]
    ids = tokenizer.encode_ids(text)
    assert tokenizer.decode_bytes(ids) == text.encode() and b" of the" in tokenizer.vocab.pieces


def test_training_goes_on_or_starts_anew(recipe: Path) -> None:
    log = recipe.parent / "out" / "training" / "merges.log"
    assert zoo_fit.main(["--config", str(recipe)]) == 0
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:100]) + "\n")
    first = (recipe.parent / "out" / "tokenizer.json").read_bytes()
    assert zoo_fit.main([f"--config={recipe}", "--ckpt_path", "last"]) == 0
    assert log.read_text().splitlines() == lines
    assert (recipe.parent / "out" / "tokenizer.json").read_bytes() == first
    write(recipe, recipe.parent, MODEL | {"vocab_size": 500, "options": {"transition": 300}})
    assert zoo_fit.main(["--config", str(recipe), "--ckpt_path", "last"]) == 1, "another recipe"
    assert zoo_fit.main(["--config", str(recipe), "--out", str(recipe.parent / "other")]) == 0
    assert tokenzoo.load(recipe.parent / "other").facts.vocab_size == 500


OPTIONS: dict[str, dict[str, Any]] = {
    "bpe": {"pretokenizer": {"kind": "gpt2"}, "max_piece_bytes": 6},
    "parity": {"window": {"length": 10, "share": 1.5}, "parallel": str(SAMPLES), "warm_up": 10},
    "lz": {"candidates": 2, "sample_bytes": 500},
    "kl3m-domain": {"custom": ["U.S.C.", "  "], "pad": True},
    "kl3m-characters": {"max_characters": 2},
    "multi-word": {"runs": 20},
}


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_by_its_name(name: str, tmp_path: Path) -> None:
    model = {"trainer": name, "vocab_size": 300, "options": OPTIONS.get(name, {}) | {"progress": False}}
    if name == "superbpe":
        model["options"]["transition"] = 280
    if name == "task-adaptive":
        base = {"trainer": "library-unigram", "vocab_size": 280, "options": {"progress": False}}
        fit(base, {"train": SAMPLES, "limit_bytes": 3000}, tmp_path).save_pretrained(tmp_path / "base")
        model["options"]["base"] = str(tmp_path / "base")
    if name == "root-affix":  # its affixes alone are hundreds
        model["vocab_size"] = 1000
    size = 300 if name == "library-unigram" else 3000  # it is slow
    tokenizer: Any = fit(model, {"train": SAMPLES, "by_domain": True, "limit_bytes": size}, tmp_path)
    tokenizer.save_pretrained(tmp_path / "saved")
    again: Any = tokenzoo.load(tmp_path / "saved")
    text = "Öffnen Sie § 3, U.S.C. 12;  ひらく open\n"
    ids = again.encode_ids(text)
    assert ids == tokenizer.encode_ids(text) and again.restore(ids) == text.encode()
    # What MYTE saves on so little text, its marks of capitals take again.
    assert max(ids) < 1024 and len(ids) <= len(text.encode()) + 3 * (name == "myte")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer": "bep"}, "unknown trainer 'bep'; known: bpe, superbpe"),
        (
            {"options": {"transitions": 3}},
            "options has no transitions; known: max_words, min_frequency, progress",
        ),
        ({"identity": {"licens": "x"}}, "identity has no licens; known: licence, name, provenance"),
        ({"vocab_size": 100, "options": {}}, "transition=50: expected 256"),
        ({"vocab_size": None}, "vocab_size is None: expected how many pieces to make"),
        ({"lr": 1}, "model has no lr; known: identity, normalizers, options"),
        ({"options": 3}, "options is 3: expected a mapping with"),
        (
            {"options": {"transition": "half"}},
            "options.transition is 'half': expected a whole number or nothing",
        ),
        ({"options": {"min_frequency": True}}, "options.min_frequency is True: expected a whole number"),
        ({"options": {"specials": "<end>"}}, "options.specials is '<end>': expected a list, each text"),
        ({"options": {"specials": [3]}}, "options.specials is [3]: expected a list, each text"),
        ({"trainer": ["bpe"]}, "unknown trainer ['bpe']; known: bpe"),
        (
            {"trainer": "bpe", "options": {"pretokenizer": "gpt2"}},
            "pretokenizer is 'gpt2': expected a mapping",
        ),
        (
            {"trainer": "bpe", "options": {"pretokenizer": {"kind": 3}}},
            "pretokenizer.kind is 3: expected text",
        ),
        (
            {"trainer": "bpe", "options": {"tie": "coin"}},
            "options.tie is 'coin': expected 'ids' or 'text' or 'short'",
        ),
        ({"identity": {"name": 3}}, "identity.name is 3: expected text"),
        ({"normalizers": {"kind": "case"}}, "normalizers is {'kind': 'case'}: expected a list"),
        ({"normalizers": [{"language": "tr"}]}, "normalizers lacks kind"),
        (
            {"normalizers": [{"kind": "caps"}]},
            "unknown normalizer 'caps'; known: case, space, triads, uroman",
        ),
        (
            {"trainer": "root-affix", "options": {}, "normalizers": [{"kind": "case"}]},
            "has normalizers of its own",
        ),
    ],
)
def test_mistakes_in_a_recipe(
    recipe: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    write(recipe, recipe.parent, MODEL | change)
    assert main(["fit", "--config", str(recipe)]) == 1
    assert message in capsys.readouterr().err


def test_mistakes_in_the_data_and_the_command(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(recipe, recipe.parent, MODEL, by_domains=True)
    assert main(["fit", "--config", str(recipe)]) == 1
    assert "data has no by_domains; known: by_domain, limit_bytes, train" in capsys.readouterr().err
    recipe.write_text(yaml.safe_dump({"model": MODEL}))
    assert main(["fit", "--config", str(recipe)]) == 1
    assert "the recipe lacks data, out" in capsys.readouterr().err
    assert main(["fit", "--config", str(recipe), "--nonsense"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by_domain": "no"}, "data.by_domain is 'no': expected true or false"),
        ({"limit_bytes": -1}, "data.limit_bytes is -1: expected a whole number of 1 or more"),
        ({"limit_bytes": "2 MB"}, "data.limit_bytes is '2 MB': expected a whole number"),
        ({"train": [3]}, "data.train is 3: expected text"),
        ({"train": {"de": "x"}}, "data.train is {'de': 'x'}: expected text"),
    ],
)
def test_data_of_the_wrong_type(
    recipe: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    write(recipe, recipe.parent, MODEL, **change)
    assert main(["fit", "--config", str(recipe)]) == 1
    assert message in capsys.readouterr().err


BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abc", "bcd", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB.encode(), "aliases are not read: write the value out"),
        (b"out: " + b"[" * 5000, "nested deeper than 32"),
        (b"out: \xff\n", "is no UTF-8 (byte 5): save it as UTF-8"),
        (b"#" * (2 << 20), "more than 1048576 bytes, which no recipe needs"),
        (b"out: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"out: " + b"9" * 5000, "is no YAML that is read here"),
        (b"- 1\n", "the recipe is [1]: expected a mapping with data, model, out"),
        (b"out: 3\nmodel: {}\ndata: {}\n", "out is 3: expected text"),
    ],
)
def test_hostile_recipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, message: str
) -> None:
    (tmp_path / "recipe.yaml").write_bytes(text)
    assert text_main(["--config", str(tmp_path / "recipe.yaml")]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error) < 1000


def test_normalizers_are_trained_with_and_saved(recipe: Path) -> None:
    write(
        recipe,
        recipe.parent,
        {"tokenizer_type": "text", "trainer": "bpe", "vocab_size": 600, "normalizers": [{"kind": "case"}]},
    )
    assert main(["fit", "--config", str(recipe)]) == 0
    tokenizer: Any = tokenzoo.load(recipe.parent / "out")
    ids = tokenizer.encode_ids("The the THE")
    assert tokenizer.restore(ids) == b"The the THE" and tokenizer.facts.is_lossless
    assert not any(byte in range(65, 91) for piece in tokenizer.vocab.pieces[256:] for byte in piece)


def test_file_names_that_are_no_utf8_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path / "text") + b"/\xff\xfe.txt")
    (tmp_path / "text").mkdir()
    Path(odd).write_text("the cat sat on the mat " * 20, encoding="utf-8")
    model = {"tokenizer_type": "text", "trainer": "bpe", "vocab_size": 270}
    write(tmp_path / "recipe.yaml", tmp_path, model, by_domain=True)
    assert main(["fit", "--config", str(tmp_path / "recipe.yaml")]) == 0
    assert main(["encode", odd, "--tokenizer", str(tmp_path / "out"), "--out", str(tmp_path / "ids")]) == 0
    assert (
        main(["decode", str(tmp_path / "ids"), "--tokenizer", str(tmp_path / "out"), "--out", str(tmp_path)])
        == 0
    )
    assert os.fsencode(tmp_path) + b"/\xff\xfe.txt" in map(os.fsencode, tmp_path.iterdir())
    assert main(["eval", odd, "--tokenizer", "bytes", "--out", str(tmp_path / "eval")]) == 0
    assert json.loads((tmp_path / "eval" / "eval.json").read_text())["rows"][0]["tokens"] == 460


def test_fitting_text_imports_neither_torch_nor_lightning_until_it_saves(
    recipe: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, yaml\nfrom pathlib import Path\nfrom tokenzoo.text.fit import fit\n"
        f"recipe = yaml.safe_load(Path({str(recipe)!r}).read_text())\n"
        "recipe['model']['options']['progress'] = False\n"
        f"tokenizer = fit(recipe['model'], recipe['data'], Path({str(tmp_path / 'work')!r}))\n"
        "print(len(tokenizer.encode_ids('of the')), [m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 []\n" or done.stdout == "3 []\n", done.stdout


@pytest.mark.parametrize("name", ["text_bpe", "text_superbpe"])
def test_the_recipes_of_the_defaults_are_what_the_bundled_folders_say(name: str) -> None:
    model = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]
    folder = Path(tokenzoo.__file__).parent / "checkpoints" / "bundled" / model["identity"]["name"]
    config = json.loads((folder / "config.json").read_text())
    assert {key: config[key] for key in ("name", "licence", "provenance")} == model["identity"]
    assert config["vocab_size"] == model["vocab_size"]
