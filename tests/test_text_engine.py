"""Engines: the ids of `tokenizers` and tiktoken on every text, specials that nobody can spell, no panics."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings

from tokenzoo.text.engine import LibraryEngine, RankEngine, SegmentEngine
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretokenizers import PATTERNS, PreTokenizer
from tokenzoo.text.ranks import ranks_of
from tokenzoo.text.vocab import TextVocab

from .text_samples import END, NASTY, documents, library, small, texts

COVERING = [kind for kind, pattern in PATTERNS.items() if pattern.covers]


@pytest.mark.parametrize("kind", PATTERNS)
def test_ids_are_those_of_tokenizers(kind: str) -> None:
    tokenizer, expected = small(kind), library(kind)
    assert tokenizer.engine.name == "tiktoken"
    for text in [*NASTY, *documents()]:
        assert tokenizer.encode_ids(text) == expected.encode(text, add_special_tokens=False).ids


@settings(max_examples=300, deadline=None)
@given(texts)
def test_on_any_text(text: str) -> None:
    for kind in ("llama3", "gpt2", "o200k", "superbpe"):
        assert small(kind).encode_ids(text) == library(kind).encode(text, add_special_tokens=False).ids


def test_on_every_character_and_on_random_bytes() -> None:
    chance = random.Random(0)
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x30000)]))
    runs = [everything[start : start + 500] for start in range(0, len(everything), 500)]
    noise = [chance.randbytes(60) for _ in range(500)]
    for text in [
        *runs,
        *(data.decode(errors="replace") for data in noise),
        *(d.decode("latin-1") for d in noise),
    ]:
        assert small().encode_ids(text) == library().encode(text, add_special_tokens=False).ids
        assert small().decode_bytes(small().encode_ids(text)) == text.encode()


@pytest.mark.parametrize("kind", COVERING)
def test_ids_are_those_of_tiktoken(kind: str) -> None:
    """With the pattern as it is written everywhere, not as we group it."""
    tokenizer = small(kind)
    peer = tiktoken.Encoding(
        kind, pat_str=PreTokenizer(kind).regex, mergeable_ranks=tokenizer.vocab.index, special_tokens={}
    )
    for text in [*NASTY, *documents()]:
        assert tokenizer.encode_ids(text) == peer.encode_ordinary(text)


def test_digits_from_the_right_as_tokenizers_looks_ahead() -> None:
    turned = PlainTokenizer.of(small().vocab, PreTokenizer("llama3", digits="right_to_left"))
    assert isinstance(turned.engine, RankEngine)
    by_library = LibraryEngine(turned.definition, turned.vocab)
    for text in [*NASTY, *documents()[::5], "1", "12", "123", "1234 x12345 1234567"]:
        assert turned.encode_ids(text) == by_library.encode(text)
    assert [turned.vocab.pieces[each] for each in turned.encode_ids("12345")] != [
        small().vocab.pieces[each] for each in small().encode_ids("12345")
    ]


def test_ids_that_do_not_rise_with_the_ranks() -> None:
    """Pieces numbered at random: the merges say the order, a table leads back to the ids."""
    vocab = small().vocab
    order = list(range(len(vocab)))
    random.Random(0).shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    shuffled = TextVocab(
        pieces=tuple(vocab.pieces[old] for old in order),
        merges=tuple((place[a], place[b], place[c]) for a, b, c in vocab.merges),
        specials={name: place[each] for name, each in vocab.specials.items()},
    )
    tokenizer = PlainTokenizer.of(shuffled)
    assert isinstance(tokenizer.engine, RankEngine)
    for text in [*NASTY, *documents()[::10]]:
        assert tokenizer.encode_ids(text) == [place[old] for old in small().encode_ids(text)]
    assert tokenizer.encode_ids(b"\xff") == [place[old] for old in small().encode_ids(b"\xff")]


def test_merges_that_no_ranks_can_say_go_to_tokenizers() -> None:
    alphabet = tuple(bytes([byte]) for byte in range(256))
    ids = {piece: place for place, piece in enumerate((*alphabet, b"bc", b"ab", b"abc"))}
    merges = tuple((ids[a], ids[b], ids[a + b]) for a, b in ((b"b", b"c"), (b"a", b"b"), (b"ab", b"c")))
    tokenizer = PlainTokenizer.of(TextVocab(tuple(ids), merges))
    assert isinstance(tokenizer.engine, LibraryEngine)
    assert tokenizer.encode_ids("abc ab") == [ids[b"a"], ids[b"bc"], 32, ids[b"ab"]]


def test_bytes_that_are_no_text_are_pretokens() -> None:
    tokenizer = small()
    assert tokenizer.encode_ids(b"ab \xff\xfe cd") == [
        *tokenizer.encode_ids("ab "),
        *tokenizer.engine.encode_piece(b"\xff\xfe"),
        *tokenizer.encode_ids(" cd"),
    ]
    by_library = LibraryEngine(tokenizer.definition, tokenizer.vocab)
    for data in (b"\xff", b"\xf0\x9f", b"\x80the\xff", b"\x00\xff" * 9):
        assert tokenizer.engine.encode_piece(data) == by_library.encode_piece(data)
    assert tokenizer.engine.encode_piece(b"") == []


@pytest.mark.parametrize("space", [" ", "\n", " \t"])
def test_endless_white_space_is_no_panic(space: str, capfd: pytest.CaptureFixture[str]) -> None:
    """tiktoken's own way ends in a stack overflow of its regex library."""
    text = space * (1_200_000 // len(space)) + "x"
    ids = small("gpt2").encode_ids(text)
    assert small("gpt2").decode_bytes(ids) == text.encode() and "panicked" not in capfd.readouterr().err


def test_a_word_of_ten_megabytes_in_bounded_time_and_memory(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "small")
    code = (
        "import resource, time, tokenzoo; resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30)); "
        f"tokenizer = tokenzoo.load({str(tmp_path / 'small')!r}); start = time.process_time(); "
        "ids = tokenizer.encode_ids('é日' * 2_000_000); "
        "print(tokenizer.decode_bytes(ids) == 'é日'.encode() * 2_000_000, time.process_time() - start < 60)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "True"]


UNIGRAM: dict[str, Any] = {
    "added_tokens": [
        {"id": 0, "content": "<unk>", "special": True},
        {"id": 1, "content": "</s>", "special": True},
    ],
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "model": {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], ["</s>", -1.0], *([letter, -5.0] for letter in "▁as</>"), ["▁a", -2.0]],
    },
}


def test_a_special_inside_a_unigram_vocabulary_is_not_found_in_text() -> None:
    """`tokenizers` finds it, even when it is told not to look for specials."""
    for entry in UNIGRAM["added_tokens"]:
        entry |= {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer = PlainTokenizer(UNIGRAM)
    assert tokenizer.encode_ids("a </s>") == [8, 2, 5, 6, 4, 7] and tokenizer.specials == {
        "<unk>": 0,
        "</s>": 1,
    }
    assert tokenizer.encode_ids("a</s>a", allow="</s>") == [8, 1, 8]
    assert tokenizer.encode_ids("a<unk>", allow="all") == [8, 0]


def test_dropout_is_left_out() -> None:
    definition = small().definition
    shaky = PlainTokenizer({**definition, "model": {**definition["model"], "dropout": 0.5}})
    assert isinstance(shaky.engine, LibraryEngine)
    assert shaky.encode_ids(NASTY[7]) == small().encode_ids(NASTY[7])


PATHOLOGICAL = r"(?:a|aa)+$|(a+)+b"


def test_a_pathological_pattern_is_an_error_and_no_panic() -> None:
    """The library panics, which is no Exception, on 60 characters."""
    definition = small().definition
    split = {"type": "Split", "pattern": {"Regex": PATHOLOGICAL}, "behavior": "Isolated", "invert": False}
    cut = {"type": "Sequence", "pretokenizers": [split, definition["pre_tokenizer"]["pretokenizers"][1]]}
    tokenizer = PlainTokenizer({**definition, "pre_tokenizer": cut})
    assert tokenizer.encode_ids("aab c") == small().encode_ids("aab") + small().encode_ids(" c")
    with pytest.raises(ValueError, match=r"fails on this text of 61 characters: .*retry-limit-in-match over"):
        tokenizer.encode_ids("a" * 60 + "c")


def test_a_definition_that_the_library_cannot_read() -> None:
    definition = small().definition
    for part in ({"type": "Sideways"}, {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}):
        with pytest.raises(ValueError, match="the library `tokenizers` cannot read this tokenizer"):
            PlainTokenizer({**definition, "pre_tokenizer": part}).encode_ids("a")


def test_short_pretokens_are_segmented_once() -> None:
    asked: list[bytes] = []

    def segment(piece: bytes) -> list[int]:
        asked.append(piece)
        return list(piece)

    engine = SegmentEngine("mine", segment, PreTokenizer("gpt2"))
    assert engine.encode("the cat the cat") == list(b"the cat the cat")
    assert asked == [b"the", b" cat", b" the"]
    first = engine.encode_piece(b"the")
    first.append(0)  # what is remembered is not what was handed out
    assert engine.encode_piece(b"the") == list(b"the")
    engine.encode("x" * 100)
    engine.encode("x" * 100)
    assert asked.count(b"x" * 100) == 2


def test_unused_pieces_hold_back_the_ranks() -> None:
    vocab = replace(small().vocab, unused=frozenset([600]))
    assert ranks_of(vocab) is None
    assert END not in vocab.index


def test_numbers_from_the_right_take_linear_time_in_the_library() -> None:
    """Whose pattern looks from each digit to the end of the number: 29 seconds for 100,000 of them."""
    alphabet = TextVocab.of_bytes()
    vocab = TextVocab((*alphabet.pieces, b"234", b"567"), scores=(*[-9.0] * 256, -1.0, -1.0))
    tokenizer = PlainTokenizer.of(vocab, PreTokenizer("llama3", digits="right_to_left"))
    assert tokenizer.engine.name == "tokenizers"
    pieces = [vocab.pieces[each] for each in tokenizer.encode_ids("n 1234567")]
    assert pieces == [b"n", b" ", b"1", b"234", b"567"]
    start = time.process_time()
    assert tokenizer.decode_bytes(tokenizer.encode_ids("1234567" * 20_000)) == b"1234567" * 20_000
    assert time.process_time() - start < 10
    assert tokenizer.offsets("n 1234567") == [(0, 1), (1, 2), (2, 3), (3, 6), (6, 9)]
