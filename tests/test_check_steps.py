"""A tokenizer.json whose normalizer would fill the memory is refused before the library sees it."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tokenzoo
from tokenzoo.text import engine
from tokenzoo.text.check_steps import growth_of
from tokenzoo.text.plain import PlainTokenizer

from .text_samples import small


def replace(pattern: Mapping[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps: Any) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def table(tree: int, said: int | None = None, leaves: bytes = b"abc\0") -> dict[str, Any]:
    data = (tree if said is None else said).to_bytes(4, "little") + bytes(tree) + leaves
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


nested: dict[str, Any] = {"type": "NFC"}
for _ in range(40):
    nested = sequence(nested)
A = replace({"String": "a"}, "a" * 1000)


@pytest.mark.parametrize(
    ("normalizer", "message"),
    [
        (sequence(A, A, A, A), "more than 65536 bytes of one"),
        (replace({"Regex": "a*"}, "x" * 70_000), "more than 65536 bytes of one"),
        (replace({"String": ""}, "x" * 70_000), "more than 65536 bytes of one"),
        ({"type": "Prepend", "prepend": "x" * 257}, "prepends something else than 256 bytes"),
        (sequence(*[{"type": "Prepend", "prepend": "x" * 200}] * 64), "more than 65536 bytes of one"),
        (sequence(*[{"type": "Strip"}] * 65), "65 steps: expected at most 64"),
        (nested, "nested deeper than 16"),
        ({"type": "Explode"}, "unknown normalizer 'Explode'"),
        ({"type": "Sequence", "normalizers": 3}, "unknown normalizer 'Sequence'"),
        (["NFC"], "the normalizer is a list"),
        (table(4, said=0xFFFFFFFF), "cut off: 12 bytes, 4294967295 of them its tree"),
        (table(4, said=3), "cut off"),
        ({"type": "Precompiled", "precompiled_charsmap": "%%"}, "no base64"),
        ({"type": "Precompiled", "precompiled_charsmap": None}, "cut off: 0 bytes"),
        (replace({"String": "a"}, None), "replaces something else than a pattern by a text"),  # pyright: ignore
    ],
)
def test_what_fills_memory_is_refused(normalizer: Any, message: str, tmp_path: Path) -> None:
    definition = {**small().definition, "normalizer": normalizer}
    with pytest.raises(ValueError, match=message):
        growth_of(definition)
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(ValueError, match=message):
        tokenzoo.load(tmp_path / "tokenizer.json")


def test_a_table_of_nonsense_is_an_error_and_no_panic() -> None:
    tokenizer = PlainTokenizer({**small().definition, "normalizer": table(1024)}, name="odd")
    for text in ("a", "é", "漢\uffff"):
        try:
            tokenizer.encode_ids(text)
        except ValueError as error:
            assert "fails on this text" in str(error)
    wild = table(1024)
    data = bytearray(base64.b64decode(wild["precompiled_charsmap"]))
    data[4:1028] = b"\xff" * 1024
    wild["precompiled_charsmap"] = base64.b64encode(data).decode()
    with pytest.raises(ValueError, match="this tokenizer fails on this text of 3 characters"):
        PlainTokenizer({**small().definition, "normalizer": wild}).encode_ids("abc")


@pytest.mark.parametrize(
    ("normalizer", "growth"),
    [
        (None, 1),
        ({"type": "NFKC"}, 11),
        (sequence({"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁")), 12),  # Llama 2's
        (replace({"String": "''"}, '"'), 1),
        (sequence(table(4, leaves=b"x" * 33 + b"\0y"), replace({"Regex": " {2,}"}, "▁")), 132),  # T5's
    ],
)
def test_what_is_in_use_passes(normalizer: Any, growth: int) -> None:
    assert growth_of({"normalizer": normalizer}) == growth


def test_a_text_that_would_grow_beyond_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_MOST_NORMALIZED", 1 << 20)
    tokenizer = PlainTokenizer({**small().definition, "normalizer": A})
    assert len(tokenizer.encode_ids("a" * 100)) > 100
    with pytest.raises(ValueError, match="makes more than a gigabyte of this text of 1000 characters"):
        tokenizer.encode_ids("a" * 1000)
    assert tokenizer.encode_ids("b" * 10_000)  # of which it makes nothing
