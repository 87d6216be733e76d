"""Pair merges, the core of every trainer that grows a vocabulary by joining neighbours (BPE and its heirs).

The words of a corpus lie end to end in flat numpy arrays, as linked lists of ids. For every pair of
neighbours the places where it was last seen are kept, and in a heap how often that was. Places only ever go
stale, never wrong: tokens grow and never come back. So a pair is counted again only when it reaches the top
of the heap, and what a merge undoes needs no bookkeeping at all. One merge is a few dozen numpy calls,
however often the pair occurs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .ranks import MAX_PIECE_BYTES

TieRule = Literal["ids", "text", "short"]

_SHIFT, _MASK = 32, (1 << 32) - 1
_DEAD = -1


@dataclass(frozen=True)
class Pair:
    """Two neighbours and how often they stand side by side, each word counted as often as it occurs."""

    left: int
    right: int
    count: int


class PairMerges:
    """Words as ids, and their pairs of neighbours by frequency.

    ids            (N,) integers, all words end to end
    lengths        (W,) how many ids each word has; their sum is N
    counts         (W,) how often each word occurs
    pieces         id -> bytes; the list of the caller, who appends what `merge` is to make
    tie            which of equally frequent pairs comes first. "ids": the smallest (left, right), as
                   tokenizers does; "text": the largest (left, right) as bytes, as subword-nmt does;
                   "short": the fewest bytes, then the smallest bytes, as sentencepiece does
    min_frequency  pairs rarer than this are never `best`
    max_piece_bytes
                   nor those that are longer than this together; one byte, over and over, would else make
                   pieces of megabytes
    allows         nor those whose bytes it refuses
    complete       keep the places of rare pairs too, for merges that are chosen elsewhere

    `best` and `merge` depend on the words and their counts alone, not on their order.
    """

    def __init__(
        self,
        ids: np.ndarray,
        lengths: np.ndarray,
        counts: np.ndarray,
        pieces: Sequence[bytes],
        *,
        tie: TieRule = "ids",
        min_frequency: int = 1,
        max_piece_bytes: int = MAX_PIECE_BYTES,
        allows: Callable[[bytes], bool] | None = None,
        complete: bool = False,
    ) -> None:
        self._pieces, self._order, self._allows = pieces, _order_of(tie, pieces), allows
        self._min_frequency, self._longest = max(1, min_frequency), max_piece_bytes
        self._floor = 1 if complete else self._min_frequency
        size = len(ids)
        # One place more than there are ids: it stands for "no neighbour" and holds an id that no token has.
        self._size = size
        self._ids = np.append(ids, _DEAD).astype(np.int32)
        self._next = np.arange(1, size + 2, dtype=np.int32)
        self._prev = np.arange(-1, size, dtype=np.int32)
        ends = np.cumsum(lengths[lengths > 0])
        self._next[ends - 1] = self._next[size] = size
        self._prev[ends - lengths[lengths > 0]] = size
        self._weights = np.repeat(np.asarray(counts, np.int64), lengths)
        self._largest = int(self._ids.max())
        self._where: dict[int, np.ndarray] = {}
        self._heap: list[tuple[Any, ...]] = []
        self.tokens = int(self._weights.sum())
        lefts = np.flatnonzero(self._next[:size] != size).astype(np.int32)
        self._register(lefts, _keys(self._ids[lefts], self._ids[self._next[lefts]]))

    @classmethod
    def of_words(
        cls,
        words: Mapping[bytes, int],
        pieces: Sequence[bytes],
        *,
        tie: TieRule = "ids",
        min_frequency: int = 1,
        max_piece_bytes: int = MAX_PIECE_BYTES,
        allows: Callable[[bytes], bool] | None = None,
        complete: bool = False,
    ) -> PairMerges:
        """Words of bytes and how often each occurs; the ids are the bytes."""
        ids = np.frombuffer(b"".join(words), np.uint8)
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        counts = np.fromiter(words.values(), np.int64, len(words))
        return cls(
            ids,
            lengths,
            counts,
            pieces,
            tie=tie,
            min_frequency=min_frequency,
            max_piece_bytes=max_piece_bytes,
            allows=allows,
            complete=complete,
        )

    def best(self) -> Pair | None:
        """The most frequent pair, None when none reaches `min_frequency`."""
        heap = self._heap
        while heap:
            claimed, key = -heap[0][0], heap[0][-1]
            if key not in self._where:
                heapq.heappop(heap)
                continue
            left, right = key >> _SHIFT, key & _MASK
            if not self._may_join(self._pieces[left], self._pieces[right]):
                heapq.heappop(heap)
                continue
            count = self.count(left, right)
            if count == claimed:
                return Pair(left, right, count)
            if count < self._min_frequency:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (-count, *heap[0][1:]))
        return None

    def ranked(self, most: int) -> list[Pair]:
        """The `most` most frequent pairs, in the order in which `best` would name them."""
        found, aside = [], []
        while len(found) < most and (pair := self.best()) is not None:
            found.append(pair)
            aside.append(heapq.heappop(self._heap))
        for entry in aside:
            heapq.heappush(self._heap, entry)
        return found

    def count(self, left: int, right: int) -> int:
        """How often the two stand side by side now; overlaps count, "aaa" holds "aa" twice."""
        return int(self._weights[self._places(left, right)].sum())

    def merge(self, left: int, right: int, product: int) -> int:
        """Join the two wherever they stand side by side, leftmost first; returns how often that was.

        Pairs rarer than `min_frequency` may be forgotten: unless `complete`, join only what `best` named.
        """
        first = self._places(left, right)
        self._where.pop(left << _SHIFT | right, None)
        if not len(first):
            return 0
        if left == right:
            first = every_other(first, self._next)
        second = self._next[first]
        after = self._next[second]
        self._ids[first], self._ids[second] = product, _DEAD
        self._next[first] = after
        self._prev[after] = first
        merged = int(self._weights[first].sum())
        self.tokens -= merged
        if product <= self._largest:
            # Some places had this token before. All of its pairs are listed anew.
            first = np.flatnonzero(self._ids == product).astype(np.int32)
            after = self._next[first]
        self._largest = max(self._largest, product)
        self._register(*self._new_pairs(first, after, product))
        return merged

    def words(self) -> Iterator[np.ndarray]:
        """The ids of every word as they are now, in the order given; words without ids are left out."""
        alive = np.flatnonzero(self._ids[:-1] != _DEAD)
        ids, starts = self._ids[alive], np.flatnonzero(self._prev[alive] == self._size)
        return iter(np.split(ids, starts[1:]) if len(ids) else ())

    def frequencies(self, size: int) -> np.ndarray:
        """(size,) int64: how often each id stands in the corpus now."""
        alive = self._ids[:-1] != _DEAD
        # bincount adds in float64, which is exact up to 2 ** 53.
        found = np.bincount(self._ids[:-1][alive], weights=self._weights[alive], minlength=size)
        return found.astype(np.int64)

    def _may_join(self, left: bytes, right: bytes) -> bool:
        if len(left) + len(right) > self._longest:
            return False
        return self._allows is None or self._allows(left + right)

    def _places(self, left: int, right: int) -> np.ndarray:
        """Where the pair stands, by its first id, ascending; what has gone stale is forgotten."""
        key = left << _SHIFT | right
        places = self._where.get(key)
        if places is None:
            return np.empty(0, np.int32)
        places = places[self._ids[places] == left]
        places = places[self._ids[self._next[places]] == right]
        self._where[key] = places
        return places

    def _new_pairs(self, first: np.ndarray, after: np.ndarray, product: int) -> tuple[np.ndarray, np.ndarray]:
        """Places and keys of the pairs that the product at `first` stands in, each once."""
        before = self._prev[first]
        before = before[before != self._size]
        following = self._ids[after]
        # Where the product follows itself, the pair is listed as the left neighbour of the second.
        ahead = (following != _DEAD) & (following != product)
        places = np.concatenate((before, first[ahead]))
        lefts, rights = self._ids[before].astype(np.int64), following[ahead].astype(np.int64)
        return places, np.concatenate((lefts << _SHIFT | product, product << _SHIFT | rights))

    def _register(self, places: np.ndarray, keys: np.ndarray) -> None:
        """Note places by pair, and in the heap how often each pair occurs there."""
        if not len(keys):
            return
        order = keys.argsort(kind="stable")
        places, keys = places[order], keys[order]
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        counts = np.add.reduceat(self._weights[places], starts)
        stops = np.append(starts[1:], len(keys))
        kept = counts >= self._floor
        rows = zip(*(column[kept].tolist() for column in (keys[starts], counts, starts, stops)), strict=True)
        where, heap, order_of, least = self._where, self._heap, self._order, self._min_frequency
        if not heap:
            # All at once is linear, one after the other is not.
            entries = []
            for key, count, start, stop in rows:
                where[key] = places[start:stop]
                if count >= least:
                    entries.append((-count, *order_of(key), key))
            heapq.heapify(entries)
            self._heap = entries
            return
        for key, count, start, stop in rows:
            where[key] = places[start:stop]
            if count >= least:
                heapq.heappush(heap, (-count, *order_of(key), key))


def _keys(lefts: np.ndarray, rights: np.ndarray) -> np.ndarray:
    """One int64 a pair, in the order of (left, right)."""
    return lefts.astype(np.int64) << _SHIFT | rights.astype(np.int64)


def every_other(places: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Of pairs of an id with itself those that a reader from the left joins: in "aaaaa" the 1st and 3rd."""
    numbers = np.arange(len(places))
    fresh = np.concatenate(([True], following[places[:-1]] != places[1:]))
    run_starts = np.maximum.accumulate(np.where(fresh, numbers, 0))
    return places[(numbers - run_starts) % 2 == 0]


def _order_of(tie: TieRule, pieces: Sequence[bytes]) -> Callable[[int], tuple[Any, ...]]:
    """What comes between count and key in the heap, whose smallest entry is the best pair."""

    def short(key: int) -> tuple[int, bytes]:
        joined = pieces[key >> _SHIFT] + pieces[key & _MASK]
        return len(joined), joined

    def text(key: int) -> tuple[tuple[int, ...], ...]:
        # Each byte upside down, and an end that comes after any byte: the reverse of the order of the bytes.
        return tuple((*(255 - byte for byte in pieces[i]), 256) for i in (key >> _SHIFT, key & _MASK))

    rules: dict[str, Callable[[int], tuple[Any, ...]]] = {"ids": lambda key: (), "short": short, "text": text}
    if tie not in rules:
        raise ValueError(f"tie rule {tie!r}: expected one of {', '.join(rules)}")
    return rules[tie]
