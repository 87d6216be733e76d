"""Places in text: bytes and characters, and what of a byte string is text at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

Span = tuple[int, int]
# How Python holds a byte that is no UTF-8 in a str, until it is taken out again.
_ESCAPED = re.compile("([\udc80-\udcff]+)")


def runs(data: bytes) -> list[str | bytes]:
    """`data` as UTF-8 text and, between it, runs of bytes that are none; in order, none of them empty."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        parts = _ESCAPED.split(data.decode(errors="surrogateescape"))
        return [
            part.encode(errors="surrogateescape") if place % 2 else part
            for place, part in enumerate(parts)
            if part
        ]
    return [text] if text else []


def spans_of(pieces: Iterable[bytes]) -> list[Span]:
    """Start and end of each of these byte strings, one after the other."""
    found, start = [], 0
    for piece in pieces:
        end = start + len(piece)
        found.append((start, end))
        start = end
    return found


def to_bytes(text: str, spans: Sequence[Span], start: int = 0) -> list[Span]:
    """Spans of characters as spans of bytes, counted from `start`."""
    if text.isascii():
        return [(start + left, start + right) for left, right in spans]
    leads = np.flatnonzero(_is_lead(text.encode()))
    places = [*(leads + start).tolist(), start + len(text.encode())]
    return [(places[left], places[right]) for left, right in spans]


def to_characters(text: str, spans: Sequence[Span]) -> list[Span]:
    """Spans of bytes as spans of characters: of a character in several spans each holds the whole."""
    if text.isascii():
        return list(spans)
    # Byte i lies in character number[i]; one more entry for the end.
    number = (np.cumsum(_is_lead(text.encode())) - 1).tolist()
    return [
        (number[left], number[right - 1] + 1) if right > left else _point(number, left)
        for left, right in spans
    ]


def whole_characters(text: str, ends: Sequence[int]) -> list[int]:
    """How many characters of `text` lie before each of these places in its bytes, whole."""
    if text.isascii():
        return list(ends)
    # Byte i begins a character or goes on with one; at the end of the text all are told.
    before = np.concatenate([np.cumsum(_is_lead(text.encode())) - 1, [len(text)]])
    return before[np.asarray(ends, int)].tolist()


def _is_lead(data: bytes) -> np.ndarray:
    """Whether each byte starts a character."""
    return np.frombuffer(data, np.uint8) & 0xC0 != 0x80


def _point(number: Sequence[int], place: int) -> Span:
    where = number[place] if place < len(number) else (number[-1] + 1 if number else 0)
    return where, where
