"""The vocabulary itself: what can be found in text, what decodes to what, and what is refused."""

from __future__ import annotations

import json
import pickle

import pytest

from tokenzoo.text.byte_letters import LETTERS, bytes_of, letters_of
from tokenzoo.text.vocab import MAX_PIECES, TextVocab
from tokenzoo.text.vocab_file import parse_vocab, vocab_bytes

BYTES = TextVocab.of_bytes(["<end>"])
RICH = TextVocab(
    pieces=(*BYTES.pieces, b"th", b"", b"he", b"A", b"?"),
    merges=((116, 104, 257), (104, 101, 259)),
    scores=tuple(-float(place) for place in range(262)),
    specials=BYTES.specials,
    unused=frozenset([259]),
    fallback=tuple(range(256)),
    unknown=261,
)


def test_bytes_and_specials() -> None:
    assert len(BYTES) == 257 and BYTES.specials == {"<end>": 256} and BYTES.covers_bytes
    assert BYTES.index == {bytes([byte]): byte for byte in range(256)}
    assert BYTES.decode([104, 105, 256]) == b"hi<end>" and BYTES.decode([]) == b""
    assert BYTES.longest == 1 and BYTES.ranks == {}


def test_what_text_may_yield() -> None:
    """No special, no hole, nothing unused or unknown; a real piece before a fallback of the same byte."""
    assert RICH.index[b"A"] == 260 and RICH.index[b"B"] == 66 and RICH.index[b"th"] == 257
    assert not {b"<end>", b"", b"he"} & set(RICH.index) and RICH.index[b"?"] == 63
    assert RICH.ranks == {(116, 104): (0, 257), (104, 101): (1, 259)} and RICH.longest == 2


def test_it_survives_a_file_and_a_pickle() -> None:
    for vocab in (BYTES, RICH):
        assert parse_vocab(vocab_bytes(vocab)) == vocab == pickle.loads(pickle.dumps(vocab))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pieces": ()}, f"0 pieces: expected 1 ... {MAX_PIECES}"),
        ({"scores": (-1.0,)}, "1 scores for 257 pieces"),
        ({"scores": (float("nan"),) * 257}, "score nan: expected a finite log probability"),
        ({"fallback": (1, 2)}, "2 fallback ids: expected one for each of the 256 bytes"),
        ({"fallback": (1, *range(1, 256))}, r"fallback id 1 decodes to b'\\x01': expected byte 0"),
        ({"specials": {"<s>": 257}}, r"special id 257: expected 0 \.\.\. 256"),
        ({"unused": frozenset([-1])}, "unused id -1"),
        ({"unknown": 999}, "unknown id 999"),
        ({"merges": ((1, 2, 999),)}, r"merge 0 is \(1, 2, 999\): expected ids 0 \.\.\. 256"),
        ({"merges": ((97, 98, 99),)}, "merge 0 makes b'c' of b'a' and b'b': expected the two joined"),
    ],
)
def test_contradictions_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextVocab(**({"pieces": BYTES.pieces} | change))


def test_ids_out_of_range_are_named() -> None:
    for ids, message in (
        ([262], r"id 262 is out of range: expected 0 \.\.\. 261"),
        ([3, -2], "id -2 is out of range"),
        ([258], "id 258 is out of range: no piece has this id"),
    ):
        with pytest.raises(ValueError, match=message):
            RICH.decode(ids)


def test_letters_stand_for_bytes() -> None:
    assert len(set(LETTERS)) == 256 and LETTERS[ord("a")] == "a" and LETTERS[ord(" ")] == "Ġ"
    everything = bytes(range(256))
    assert bytes_of(letters_of(everything)) == everything and letters_of(b"\n ") == "ĊĠ"
    assert bytes_of("no space") is None and bytes_of("") == b""


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "Expecting"),
        (b"[]", "no vocabulary of tokenzoo"),
        (b"{}", "no vocabulary of tokenzoo"),
        (json.dumps({"format_version": 9}).encode(), r"format_version 9, this tokenzoo reads 1 \.\.\. 1"),
        (vocab_bytes(BYTES).replace(b'"<end>":256', b'"<end>":[]'), "no vocabulary of tokenzoo"),
        (vocab_bytes(BYTES).replace(b'["', b'["\xe4\xb8\xad', 1), "is not written in the letters of bytes"),
        (b"[" * 100_000, "no vocabulary of tokenzoo"),
    ],
)
def test_files_that_are_none_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_vocab(raw)
