"""MYTE behind `Tokenizer`: ids of MyT5, and the text comes back."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenzoo
from tokenzoo.text import myte
from tokenzoo.text.measure_laws import homomorphism_break
from tokenzoo.text.myte import MorphemeBytes
from tokenzoo.text.myte_tokenizer import MyteConfig, MyteTokenizer
from tokenzoo.zoo.cli import main

from .real_text import parallel
from .text_samples import small_myte


def test_ids_are_the_bytes_of_the_written_form() -> None:
    tokenizer = MyteTokenizer(MorphemeBytes({b"rough": bytes.fromhex("5282a393")}))
    ids = tokenizer.encode_ids("Rough at\n")
    assert ids == [byte + 3 for byte in bytes.fromhex("41 5282a393 20 61 74 0a")]
    assert tokenizer.decode_bytes(ids) == bytes.fromhex("415282a39320 61740a")
    assert tokenizer.decode_text(ids) == "Rough at\n" and tokenizer.facts.vocab_size == 384
    # Part of a code stands for nothing yet.
    assert tokenizer.decode_text(ids[:4]) == "" and tokenizer.decode_text(ids[:5]) == "Rough"
    assert tokenizer.offsets("Rough at\n") == [
        *((0, 0), (0, 0), (0, 0), (0, 0), (0, 5)),
        *((5, 6), (6, 7), (7, 8), (8, 9)),
    ]
    assert tokenizer.truncate("Rough at", 4) == "" and tokenizer.truncate("Rough at", 6) == "Rough "


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), st.text("theTHE maθαΘZÉ"), st.binary(max_size=30)))
def test_everything_comes_back(text: str | bytes) -> None:
    tokenizer = small_myte()
    data = text.encode() if isinstance(text, str) else text
    ids = tokenizer.encode_ids(text)
    assert tokenizer.restore(ids) == data and len(ids) <= tokenizer.num_tokens([len(data)])
    spans = tokenizer.offsets(text)
    assert len(spans) == len(ids) and (not ids or (spans[0][0], spans[-1][1]) == (0, len(data)))
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    parts = [ids[:2], ids[2:3], ids[3:]]
    assert homomorphism_break(tokenizer.decode_bytes, parts) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 383), max_size=20))
def test_whatever_a_model_writes_decodes(ids: list[int]) -> None:
    assert isinstance(small_myte().decode_text(ids), str)


def test_restoring_is_no_homomorphism() -> None:
    tokenizer = small_myte()
    ids = tokenizer.encode_ids("The mat")
    assert homomorphism_break(tokenizer.restore, [ids[:1], ids[1:]]) is not None


# Its constructor leaves the file open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ids_are_those_of_transformers(tmp_path: Path) -> None:
    import transformers

    tokenizer = small_myte()
    text = " ".join(parallel()["en"][:6] + parallel()["el"][:6])
    capitals = {letter for letter in text if myte.lowered(letter) != letter.encode()}
    maps = {
        "decompose_map": {each.encode().hex(" "): myte.lowered(each).hex(" ") for each in sorted(capitals)},
        "merge_map": {key.hex(" "): code.hex(" ") for key, code in tokenizer.codes.codes.items()},
    }
    (tmp_path / "byte_maps.json").write_text(json.dumps(maps))
    official = transformers.MyT5Tokenizer(vocab_file=str(tmp_path / "byte_maps.json"))
    assert tokenizer.encode_ids(text) == official(text, add_special_tokens=False)["input_ids"]
    for name in ("<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_124>"):
        assert tokenizer.specials[name] == official.convert_tokens_to_ids(name)


def test_specials_only_on_request() -> None:
    tokenizer = small_myte()
    attack = "a</s>b"
    assert 1 not in tokenizer.encode_ids(attack)
    assert tokenizer.encode_ids(attack, allow="all").count(1) == 1
    assert tokenizer.restore(tokenizer.encode_ids(attack, allow="all")) == attack.encode()


def test_it_saves_loads_and_serves_the_command_line(tmp_path: Path) -> None:
    tokenizer = small_myte()
    tokenizer.save_pretrained(tmp_path / "saved")
    again: Any = tokenzoo.load(tmp_path / "saved")
    assert again.facts == tokenizer.facts and again.codes.codes == tokenizer.codes.codes
    (tmp_path / "text.txt").write_bytes("The mat, θα\n".encode() + b"\xff")
    saved = ["--tokenizer", str(tmp_path / "saved")]
    assert main(["encode", str(tmp_path / "text.txt"), *saved, "--out", str(tmp_path / "ids")]) == 0
    assert main(["decode", str(tmp_path / "ids"), *saved, "--out", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back" / "text.txt").read_bytes() == (tmp_path / "text.txt").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "holds no codes"),
        (b'{"abc": 3}', "holds no codes"),
        (b'{"abc": "zz"}', "hexadecimal"),
        (b'{"abc": "41"}', "expected a shorter code"),
        (b'{"\xe6\xbc\xa2": "4280"}', "not written in the letters of bytes"),
        (b"{}", "has 0 morphemes, config.json 3"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    small_myte().save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tokenzoo.load(tmp_path)


def test_configurations_are_checked() -> None:
    with pytest.raises(ValueError, match="morphemes=-1"):
        MyteConfig(-1)
