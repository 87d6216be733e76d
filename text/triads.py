"""Triadic suffix tokenization (Chetverina 2026): three digits at a time, each with a mark that says what they
count. 1234567.8901 reads 1 million, 234 thousand, 567, then 890 thousandths, 1 of the next three places.

Integers are cut from the right and fractions from the left, so that digits of one weight always stand in one
place of a token. Digits are kept as they are, zeros too; numbers beyond the range stay plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from .normalizers import ESCAPE, Normalizer, escaped
from .vocab import TextVocab

# 10^3 ... 10^15; the last three digits of an integer have no mark.
_MAGNITUDES = "\ue0e0\ue0e1\ue0e2\ue0e3\ue0e4"
_DEPTH, _DEPTHS = "\ue0e8", 5
_MARKS = _MAGNITUDES + _DEPTH
_INTEGER_DIGITS, _FRACTION_DIGITS = 3 * (len(_MAGNITUDES) + 1), 3 * _DEPTHS

# Decimal numbers that stand by themselves: not 1e5, 0x10, v2, 1.2.3 or other digits than ASCII's.
_NUMBER = re.compile(r"(?<![\w.])([0-9]+)(?:\.([0-9]+))?(?!\w|\.[0-9])")
_MARKED = re.compile(f"{ESCAPE}(.?)|[{_MARKS}]", re.DOTALL)


@dataclass(frozen=True)
class TriadicSuffixes(Normalizer):
    """A normalizer that writes the marks, as characters for private use behind the digits.

    variant  what `extended` adds to a vocabulary, and so what a token is. "fixed": digits with their mark,
             12,210 pieces (the paper counts 10,000: it has none for one or two digits, whose leading zeros
             would then be lost). "marks": the digits and the marks apart, 1,110 + 10 pieces
    """

    variant: Literal["fixed", "marks"] = "fixed"

    def __post_init__(self) -> None:
        if self.variant not in ("fixed", "marks"):
            raise ValueError(f"variant {self.variant!r}: expected 'fixed' or 'marks'")

    @property
    def pattern(self) -> str:
        """A regular expression of the pretokens that the marks make, to stand before those of other text."""
        marked = f"(?:[{_MAGNITUDES}]|{_DEPTH}{{1,{_DEPTHS}}})"
        return (
            rf"[0-9]{{1,3}}{marked}|[0-9]{{1,3}}(?![0-9])"
            if self.variant == "fixed"
            else (rf"[0-9]{{1,3}}(?={marked}|(?![0-9]))|{marked}")
        )

    def parts(self, text: str) -> Iterator[tuple[str, str]]:
        end = 0
        for match in _NUMBER.finditer(text):
            yield from escaped(text[end : match.start()], _MARKS)
            yield from _marked(match)
            end = match.end()
        yield from escaped(text[end:], _MARKS)

    def undo(self, text: str) -> str:
        return _MARKED.sub(lambda match: match[1] or "", text)

    def pieces(self) -> list[bytes]:
        """What this adds to a vocabulary, in order."""
        digits = ["".join(each) for size in (1, 2, 3) for each in product("0123456789", repeat=size)]
        suffixes = [*_MAGNITUDES, *(_DEPTH * depth for depth in range(1, _DEPTHS + 1))]
        if self.variant == "marks":
            return [each.encode() for each in (*digits, *suffixes)]
        return [(each + suffix).encode() for suffix in ("", *suffixes) for each in digits]

    def extended(self, vocab: TextVocab) -> TextVocab:
        """The vocabulary with those of `pieces` that it lacks, as its last ids; for segmenters that need no
        merges and no scores, such as `segment.fewest`."""
        added = [piece for piece in self.pieces() if piece not in vocab.index]
        return replace(vocab, pieces=(*vocab.pieces, *added), merges=(), scores=())


def _marked(match: re.Match[str]) -> Iterator[tuple[str, str]]:
    integer, fraction = match[1], match[2]
    if len(integer) > _INTEGER_DIGITS or len(fraction or "") > _FRACTION_DIGITS:
        yield match[0], match[0]
        return
    first = len(integer) % 3 or 3
    groups = [integer[:first], *(integer[place : place + 3] for place in range(first, len(integer), 3))]
    for weight, group in zip(range(len(groups) - 1, -1, -1), groups, strict=True):
        yield group, group + ("", *_MAGNITUDES)[weight]
    if fraction is None:
        return
    yield ".", "."
    for depth, place in enumerate(range(0, len(fraction), 3), start=1):
        group = fraction[place : place + 3]
        yield group, group + _DEPTH * depth
