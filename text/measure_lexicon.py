"""Which share of tokens are words, or pure morphemes: %TR and %Pure of Bayram et al. 2025."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """`found` of `total`. The total belongs to the figure: it grows with text and vocabulary."""

    found: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.found / self.total if self.total else 0.0


def emitted_pieces(ids: Iterable[Sequence[int]], pieces: Sequence[bytes]) -> list[bytes]:
    """The bytes of every id that occurs, once each, by id."""
    return [pieces[each] for each in sorted({each for sequence in ids for each in sequence})]


def share_of_pieces(pieces: Iterable[bytes], accepts: Callable[[str], bool]) -> Share:
    """How many pieces are what `accepts` says yes to.

    pieces   unique tokens, e.g. of `emitted_pieces`: how often they occur does not count
    accepts  of a text without white space around it, in the case it has: a word? a morpheme? A word list's
             `__contains__` will do, or `Turkish.is_word` and `Turkish.is_pure`.

    Pieces that are no UTF-8, or all white space, are refused but counted.
    """
    found = total = 0
    for piece in pieces:
        total += 1
        try:
            text = piece.decode().strip()
        except UnicodeDecodeError:
            continue
        found += bool(text) and bool(accepts(text))
    return Share(found, total)
