"""Reading as Less-is-Better does: the longest known chunk, unless the second longest reads on better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .vocab import TextVocab

# Bytes by which a shorter chunk may read ahead before the two readings must have met.
_LOOK_AHEAD = 24


@dataclass(frozen=True)
class Choice:
    """One step of reading.

    chunk     what is read
    rejected  the other candidate, or b"" when there was none
    """

    chunk: bytes
    rejected: bytes = b""


def choose(data: bytes, start: int, ranks: Mapping[bytes, int], longest: int) -> Choice:
    """What to read at `start`: the longest known chunk or the second longest.

    ranks    known chunks of two bytes or more, and their places in the lexicon; single bytes are unknown
    longest  bytes of a chunk at most

    Both candidates read on greedily until they end at the same place. The second is better when it leaves
    fewer unknown bytes; or as many, and fewer chunks; or as many of both, and a smaller sum of ranks.
    """
    candidates = _matches(data, start, ranks, longest)
    if len(candidates) < 2:
        return Choice(candidates[0] if candidates else data[start : start + 1])
    big, small = candidates
    ahead = _Reading(data, start, big, ranks, longest)
    behind = _Reading(data, start, small, ranks, longest)
    limit = min(len(data), start + len(big) + _LOOK_AHEAD)
    while ahead.end != behind.end and min(ahead.end, behind.end) < limit:
        (ahead if ahead.end < behind.end else behind).read_on()
    if ahead.end == behind.end and behind.cost < ahead.cost:
        return Choice(small, big)
    return Choice(big, small)


def less_is_better_segmenter(vocab: TextVocab) -> Callable[[bytes], list[int]]:
    """The ids of a text under a vocabulary whose ids are in the order of the lexicon. ValueError when a
    byte is missing."""
    if not vocab.covers_bytes:
        raise ValueError("a byte is no piece: a segmenter needs all 256")
    index = vocab.index
    ranks = {piece: number for piece, number in index.items() if len(piece) > 1}
    longest = vocab.longest

    def segment(data: bytes) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(data):
            chunk = choose(data, start, ranks, longest).chunk
            found.append(index[chunk])
            start += len(chunk)
        return found

    return segment


class _Reading:
    """One candidate and what it leads to: unknown bytes, chunks, ranks, and how far it has come."""

    def __init__(
        self, data: bytes, start: int, first: bytes, ranks: Mapping[bytes, int], longest: int
    ) -> None:
        self._data, self._ranks, self._longest = data, ranks, longest
        self.end = start + len(first)
        self.cost = (0, 1, ranks[first])

    def read_on(self) -> None:
        unknown, chunks, total = self.cost
        found = _matches(self._data, self.end, self._ranks, self._longest)
        if found:
            self.cost = (unknown, chunks + 1, total + self._ranks[found[0]])
            self.end += len(found[0])
        else:
            self.cost = (unknown + 1, chunks + 1, total)
            self.end += 1


def _matches(data: bytes, start: int, ranks: Mapping[bytes, int], longest: int) -> list[bytes]:
    """The two longest known chunks at a place, the longest first."""
    found: list[bytes] = []
    for size in range(min(longest, len(data) - start), 1, -1):
        chunk = data[start : start + size]
        if chunk in ranks:
            found.append(chunk)
            if len(found) == 2:
                break
    return found
