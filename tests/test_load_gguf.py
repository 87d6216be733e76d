"""GGUF files: written here by hand, small; the real ones are the business of test_vectors.py."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest

import tokenzoo
from tokenzoo.text.byte_letters import letters_of
from tokenzoo.text.gguf import read_head
from tokenzoo.text.plain import PlainTokenizer

from .text_samples import END, NASTY, documents, small

_KINDS = {bool: (7, "?"), int: (5, "i"), float: (6, "f")}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(held: Any) -> bytes:
    if isinstance(held, str):
        return struct.pack("<I", 8) + text(held)
    if isinstance(held, list):
        kind, form = (8, "") if isinstance(held[0], str) else _KINDS[type(held[0])]
        items = b"".join(
            text(each) if isinstance(each, str) else struct.pack(f"<{form}", each) for each in held
        )
        return struct.pack("<IIQ", 9, kind, len(held)) + items
    kind, form = _KINDS[type(held)]
    return struct.pack(f"<I{form}", kind, held)


def gguf(head: dict[str, Any], version: int = 3) -> bytes:
    pairs = b"".join(text(key) + value(held) for key, held in head.items())
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(head)) + pairs


def byte_level() -> dict[str, Any]:
    """`small` as llama.cpp keeps it."""
    vocab = small().vocab
    names = [letters_of(piece) for piece in vocab.pieces]
    names[0] = END
    return {
        "general.name": "a small one",
        "general.license": "mit",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": [3, *[1] * (len(names) - 1)],
        "tokenizer.ggml.merges": [f"{names[left]} {names[right]}" for left, right, _ in vocab.merges],
        "tokenizer.ggml.add_bos_token": False,
    }


def load(head: dict[str, Any] | bytes, folder: Path) -> PlainTokenizer:
    path = folder / "model.gguf"
    path.write_bytes(head if isinstance(head, bytes) else gguf(head))
    loaded = tokenzoo.load(path)
    assert isinstance(loaded, PlainTokenizer)
    return loaded


def test_byte_level(tmp_path: Path) -> None:
    tokenizer = load(byte_level(), tmp_path)
    assert tokenizer.engine.name == "tiktoken" and tokenizer.specials == {END: 0}
    assert (tokenizer.facts.name, tokenizer.facts.licence) == ("a small one", "mit")
    for each in [*NASTY, *documents()[::10]]:
        assert tokenizer.encode_ids(each) == small().encode_ids(each)


def test_several_patterns_one_after_the_other(tmp_path: Path) -> None:
    tokenizer = load(byte_level() | {"tokenizer.ggml.pre": "starcoder"}, tmp_path)
    assert tokenizer.engine.name == "tokenizers" and tokenizer.facts.is_lossless
    digits = [tokenizer.vocab.pieces[each] for each in tokenizer.encode_ids("a 123")]
    assert digits[-3:] == [b"1", b"2", b"3"]


LISTED: dict[str, Any] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "▁", "a", "b", "▁a", "ab", "<x>"],
    "tokenizer.ggml.scores": [0.0, 0.0, -9.0, -8.0, -7.0, -1.0, -2.0, 0.0],
    "tokenizer.ggml.token_type": [2, 3, 1, 1, 1, 1, 1, 4],
}


def test_sentencepiece_inside(tmp_path: Path) -> None:
    tokenizer = load(LISTED, tmp_path)
    assert tokenizer.encode_ids("ab a<x>") == [5, 4, 5, 7]  # "▁a" has the higher score
    assert tokenizer.encode_ids("<s>c") == [2, 0] and tokenizer.specials == {"<unk>": 0, "<s>": 1}
    assert load(LISTED | {"tokenizer.ggml.add_space_prefix": False}, tmp_path).encode_ids("ab") == [6]
    likely = load(LISTED | {"tokenizer.ggml.model": "t5"}, tmp_path)
    assert likely.encode_ids("ab") == [5, 4]


def test_wordpiece_inside(tmp_path: Path) -> None:
    head = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": ["[UNK]", "[CLS]", "▁play", "ing", "▁!"],
        "tokenizer.ggml.token_type": [3, 3, 1, 1, 1],
        "tokenizer.ggml.unknown_token_id": 0,
    }
    tokenizer = load(head, tmp_path)
    assert tokenizer.encode_ids("Playing! [CLS]") == [2, 3, 4, 0, 0, 0]
    with pytest.raises(tokenzoo.CheckpointError, match="unknown_token_id is 99: expected an id"):
        load(head | {"tokenizer.ggml.unknown_token_id": 99}, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "rwkv"}, "holds a vocabulary of kind 'rwkv'; known: gpt2, llama"),
        (
            {"tokenizer.ggml.pre": "mine"},
            r"pre-tokenizer 'mine' \(tokenizer.ggml.pre\) is not known; known: gpt-2",
        ),
        ({"tokenizer.ggml.tokens": [1, 2]}, "lacks tokenizer.ggml.tokens, a list of strings"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "2 token types for 1200 tokens"),
        ({"tokenizer.ggml.merges": ["ab"]}, "merge 'ab': expected two pieces with a space between"),
        ({"tokenizer.ggml.merges": ["q zzz"]}, "the merge of 'q' and 'zzz' needs 'zzz', which is no piece"),
        ({"general.name": "bell\x07"}, "expected printable characters"),
    ],
)
def test_contradictions(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(tokenzoo.CheckpointError, match=message) as caught:
        load(byte_level() | change, tmp_path)
    assert "file model.gguf" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gguf({"a": 1}, version=1), "version 1: expected 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "1099511627776 keys: expected at most"),
        (gguf({"a": 1})[:-2], "it ends too early"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 77),
            "value of unknown kind 77",
        ),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 50), "string of 1125899906842624 bytes"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 4, 1 << 40),
            "array of 1099511627776: expected at most",
        ),
        (gguf({"a": "é"}).replace("é".encode(), b"\xff\xff"), "'utf-8' codec can't decode"),
        (b"GGUF", "4 bytes are no GGUF file"),
        (gguf({"a": 1}), "holds a vocabulary of kind None"),
    ],
)
def test_files_that_are_damaged(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(tokenzoo.CheckpointError, match=message):
        load(content, tmp_path)


def test_any_bytes_are_an_error_and_nothing_worse(tmp_path: Path) -> None:
    chance = random.Random(0)
    path = tmp_path / "noise.gguf"
    for _ in range(300):
        content = bytearray(gguf(LISTED))
        for _ in range(3):
            content[chance.randrange(4, len(content))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            read_head(path)
        except ValueError as error:
            assert "noise.gguf: no readable GGUF file" in str(error)
