"""Counting a text that grows: always the count of the whole, and what is settled is not encoded again."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text.counting import last_cut
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretokenizers import PATTERNS

from .text_samples import NASTY, documents, small, texts


@cache
def composing() -> PlainTokenizer:
    """With Unicode's composed form in front, as Qwen has it."""
    return PlainTokenizer({**small().definition, "normalizer": {"type": "NFC"}})


COVERING = [kind for kind, pattern in PATTERNS.items() if pattern.covers]


@settings(deadline=None)
@given(st.lists(texts | st.binary(max_size=8), max_size=12))
def test_the_count_is_that_of_the_whole(parts: list[Any]) -> None:
    counter = small().counter()
    whole = b""
    for part in parts:
        counter.append(part)
        whole += part if isinstance(part, bytes) else part.encode()
        if len(whole) % 2:  # sometimes nobody asks in between
            assert counter.count == small().count(whole)
    assert counter.count == small().count(whole)


def test_bytes_may_end_inside_a_character() -> None:
    counter = small().counter()
    assert counter.count == 0
    for byte in "é🚀 x".encode():
        counter.append(bytes([byte]))
    assert counter.count == small().count("é🚀 x")


@settings(deadline=None, max_examples=300)
@given(texts, texts)
def test_a_cut_holds_whatever_comes_after(text: str, more: str) -> None:
    for kind in COVERING:
        cut = last_cut(text)
        ids = small(kind).encode_ids
        assert ids(text + more) == ids(text[:cut]) + ids(text[cut:] + more)


@settings(deadline=None)
@given(texts, texts)
def test_composing_reaches_over_no_cut(text: str, more: str) -> None:
    ids, cut = composing().encode_ids, composing().last_cut(text)
    assert ids(text + more) == ids(text[:cut]) + ids(text[cut:] + more)


def test_every_cut_in_real_text_holds() -> None:
    for text in [*NASTY, *documents()[::10]]:
        text = text[:400]
        for kind in COVERING:
            ids = small(kind).encode_ids
            whole = ids(text)
            for end in range(0, len(text), 7):
                cut = last_cut(text[:end])
                assert ids(text[:cut]) + ids(text[cut:]) == whole


def test_what_is_settled_is_encoded_once() -> None:
    tokenizer = PlainTokenizer(small().definition)
    asked: list[int] = []
    encode = tokenizer.engine.encode
    tokenizer.engine.encode = lambda text: asked.append(len(text)) or encode(text)
    counter, text = tokenizer.counter(), "some words, and more of them; " * 300
    for start in range(0, len(text), 50):
        counter.append(text[start : start + 50])
        assert counter.count > 0
    assert counter.count == small().count(text)
    assert sum(asked) < 3 * len(text)


def test_where_no_cut_is_safe_all_is_counted_again() -> None:
    tokenizer = PlainTokenizer({**small().definition, "normalizer": {"type": "NFKC"}})
    assert not tokenizer.cuts_safely and tokenizer.last_cut("two words") == 0
    counter = tokenizer.counter()
    counter.append("two wo")
    counter.append("rds ㎏")
    assert counter.count == tokenizer.count("two words ㎏")
    assert not small("superbpe").cuts_safely
    assert composing().cuts_safely and composing().last_cut("two words") == 3


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(ValueError, match="lone surrogate at character 1"):
        small().counter().append("a\udcff")
