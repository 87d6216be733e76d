"""Laws that text tokenizers should keep (Geng et al. 2024): decoding is a homomorphism, encoding picks one of
the sequences that decode to a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from .measure_boundaries import Encoder

Text = TypeVar("Text", str, bytes)


@dataclass(frozen=True)
class Break:
    """Two sequences of ids for which decoding them joined is not joining what they decode to."""

    left: tuple[int, ...]
    right: tuple[int, ...]


def homomorphism_break(
    decode: Callable[[list[int]], Text], sequences: Iterable[Sequence[int]]
) -> Break | None:
    """The first neighbours among `sequences` with decode(left + right) != decode(left) + decode(right).

    decode  `tokenizer.decode_bytes` passes always; decoders that make strings often do not, as they take
            spaces off the start or replace parts of a character
    """
    for left, right in pairwise(map(list, sequences)):
        if decode(left + right) != decode(left) + decode(right):
            return Break(tuple(left), tuple(right))
    return None


def is_proper(tokenizer: Encoder, ids: Sequence[int]) -> bool:
    """Whether the tokenizer itself would write the text of these ids so. Models that generate token by token
    need not: each improper sequence takes probability from the proper one."""
    return _encode(tokenizer, tokenizer.decode_bytes(ids)) == list(ids)


def proper_share(tokenizer: Encoder, sequences: Iterable[Sequence[int]]) -> float:
    """Which share of sequences is proper, e.g. of what a model generated. ValueError when there are none."""
    found = [is_proper(tokenizer, ids) for ids in sequences]
    if not found:
        raise ValueError("no sequences to test")
    return sum(found) / len(found)


def is_right_inverse(tokenizer: Encoder, text: str | bytes) -> bool:
    """Whether a text comes back from its ids, byte by byte."""
    data = text.encode() if isinstance(text, str) else text
    return tokenizer.decode_bytes(_encode(tokenizer, data)) == data


def _encode(tokenizer: Encoder, data: bytes) -> list[int]:
    try:
        return list(tokenizer.encode_ids(data.decode()))
    except UnicodeDecodeError:
        return list(tokenizer.encode_ids(data))
