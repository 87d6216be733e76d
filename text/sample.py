"""Samplers: another way to write the same text each time, to train models that have seen more than one.

Each is built on a vocabulary and a generator (numpy's or torch's) and called on the bytes of a pretoken; the
bytes come back when the ids are decoded. The same generator in the same state gives the same ids.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .chance import Draws
from .pretokenizers import PreTokenizer
from .segment import check_scores, walk_back
from .trie import Trie
from .vocab import TextVocab

if TYPE_CHECKING:
    from torch import Generator

Sample = Callable[[bytes], list[int]]
_END = -1
# Bits of a place in a text.
_PLACE = 40


def encode_sampled(text: str, pretokenizer: PreTokenizer, sample: Sample) -> list[int]:
    """The ids of a text, each pretoken sampled anew; nothing is remembered."""
    return [each for piece in pretokenizer.pieces(text) for each in sample(piece.encode())]


class BpeDropout:
    """Merges of which each occurrence fails with a probability (Provilkov et al. 2020).

    dropout  probability in [0, 1] that a merge which is possible somewhere is passed over in this step; it
             is possible again after the next merge. 0 gives the ids of BPE, 1 single bytes.

    ValueError for a vocabulary without merges or with a byte missing.
    """

    def __init__(
        self, vocab: TextVocab, generator: np.random.Generator | Generator, *, dropout: float = 0.1
    ) -> None:
        _check_rate("dropout", dropout)
        if not vocab.merges or not vocab.covers_bytes:
            raise ValueError("dropout needs a vocabulary of merges over all 256 bytes")
        self._ranks, self._draws, self._dropout = vocab.ranks, Draws(generator), dropout
        self._bytes = [vocab.index[bytes([byte])] for byte in range(256)]

    def __call__(self, data: bytes) -> list[int]:
        chain = _Chain([self._bytes[byte] for byte in data])
        ranks, ids, following, previous = self._ranks, chain.ids, chain.following, chain.previous

        def rank_at(place: int) -> int:
            found = ranks.get((ids[place], ids[following[place]])) if ids[place] >= 0 else None
            return -1 if found is None else found[0]

        # Rank and place in one number, so that a million of them fit.
        possible = [rank << _PLACE | at for at in range(len(data) - 1) if (rank := rank_at(at)) >= 0]
        heapq.heapify(possible)
        aside: list[int] = []
        while possible:
            entry = heapq.heappop(possible)
            place = entry & (1 << _PLACE) - 1
            if rank_at(place) != entry >> _PLACE:
                continue  # one of the two has become part of something else
            if self._dropout and self._draws.uniform() < self._dropout:
                aside.append(entry)
                continue
            chain.join(place, ranks[ids[place], ids[following[place]]][1])
            for passed_over in aside:
                heapq.heappush(possible, passed_over)
            aside.clear()
            for at in (previous[place], place):
                if at >= 0 and (rank := rank_at(at)) >= 0:
                    heapq.heappush(possible, rank << _PLACE | at)
        return chain.left()


class UnigramSampler:
    """Segmentations by their probability under a unigram model (Kudo 2018), drawn exactly: forward filtering,
    backward sampling.

    alpha  P(ids) is proportional to exp(alpha * sum of scores): 1 is the model itself, 0 makes all
           segmentations alike, and the larger alpha, the closer to the likeliest

    ValueError for a vocabulary without scores or with a byte missing.
    """

    def __init__(
        self, vocab: TextVocab, generator: np.random.Generator | Generator, *, alpha: float = 1.0
    ) -> None:
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha={alpha}: expected 0 or more")
        check_scores(vocab)
        self._trie, self._ending = Trie(vocab.index), Trie(vocab.index, backwards=True)
        self._scores = [alpha * score for score in vocab.scores]
        self._draws = Draws(generator)

    def __call__(self, data: bytes) -> list[int]:
        # Of each place the log of the sum over all ways to get there. The last steps of those ways are looked
        # up again on the way back: they would take a kilobyte a place.
        backwards = data[::-1]
        sums = array("d", [0.0])
        for end in range(1, len(data) + 1):
            sums.append(_log_sum(self._arriving(backwards, end, sums)))
        widths = array("i", [0]) * (len(data) + 1)
        end = len(data)
        while end:
            widths[end] = self._choose(self._arriving(backwards, end, sums))
            end -= widths[end]
        return walk_back(self._trie, data, widths)

    def _arriving(self, backwards: bytes, end: int, sums: Sequence[float]) -> list[tuple[float, int]]:
        """Of pieces that end at a place, the longest first, the weight of all ways by each and its bytes."""
        begin, scores = len(backwards) - end, self._scores
        matches = self._ending.matches(backwards, begin, len(backwards))
        widths = ((stop - begin, piece) for stop, piece in reversed(matches))
        return [(sums[end - width] + scores[piece], width) for width, piece in widths]

    def _choose(self, steps: Sequence[tuple[float, int]]) -> int:
        if len(steps) == 1:
            return steps[0][1]
        target = self._draws.uniform()
        total = _log_sum(steps)
        for weight, width in steps:
            target -= math.exp(weight - total)
            if target < 0:
                return width
        return max(steps)[1]  # the weights add up to a little less than 1


class FewestSampler:
    """Of all segmentations into the fewest pieces one by chance (PathPiece's random rule): from the end,
    every last piece of a shortest way is equally likely. ValueError for a vocabulary with a byte missing."""

    def __init__(self, vocab: TextVocab, generator: np.random.Generator | Generator) -> None:
        if not vocab.covers_bytes:
            raise ValueError("a byte is no piece: a segmenter needs all 256")
        self._trie, self._ending = Trie(vocab.index), Trie(vocab.index, backwards=True)
        self._draws = Draws(generator)

    def __call__(self, data: bytes) -> list[int]:
        size, backwards = len(data), data[::-1]
        counts = array("i", [0]) * (size + 1)
        for end in range(1, size + 1):
            begin = size - end
            found = self._ending.matches(backwards, begin, size)
            counts[end] = 1 + min(counts[end - (stop - begin)] for stop, _ in found)
        widths = array("i", [0]) * (size + 1)
        end = size
        while end:
            begin = size - end
            found = reversed(self._ending.matches(backwards, begin, size))
            choices = [stop - begin for stop, _ in found if counts[size - stop] + 1 == counts[end]]
            widths[end] = choices[self._draws.below(len(choices))] if len(choices) > 1 else choices[0]
            end -= widths[end]
        return walk_back(self._trie, data, widths)


class StochasTok:
    """Ids of any tokenizer, some of them split in two (Sims et al. 2025). Called on ids, not on bytes.

    rate  n ids are struck int(rate * n) times: each time one of the ids as they are now, all alike, is split
          at a place chosen from all that leave two pieces of the vocabulary, if there is one
    """

    def __init__(
        self, vocab: TextVocab, generator: np.random.Generator | Generator, *, rate: float = 0.1
    ) -> None:
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"rate={rate}: expected 0 or more")
        self._vocab, self._draws, self._rate = vocab, Draws(generator), rate
        self._splits: dict[int, list[tuple[int, int]]] = {}

    def __call__(self, ids: Sequence[int]) -> list[int]:
        # What is split off goes to the end of the list, and `following` knows the order: to make room in the
        # middle would take the square of the time. All places are alike to the draw.
        found, following = list(ids), array("q", range(1, len(ids) + 1))
        for _ in range(int(self._rate * len(ids))):
            place = self._draws.below(len(found))
            if splits := self.splits(found[place]):
                found[place], right = splits[self._draws.below(len(splits))]
                following.append(following[place])
                following[place] = len(found)
                found.append(right)
        return list(_in_order(found, following))

    def splits(self, piece_id: int) -> list[tuple[int, int]]:
        """Every pair of ids whose bytes together are those of this one; none for specials."""
        found = self._splits.get(piece_id)
        if found is None:
            index, piece = self._vocab.index, self._vocab.pieces[piece_id]
            cuts = range(1, len(piece)) if piece_id not in self._vocab.specials.values() else ()
            pairs = ((index.get(piece[:cut]), index.get(piece[cut:])) for cut in cuts)
            found = [(left, right) for left, right in pairs if left is not None and right is not None]
            self._splits[piece_id] = found
        return found


def _in_order(ids: Sequence[int], following: Sequence[int]) -> Iterator[int]:
    """From the first place on."""
    place = 0
    for _ in ids:
        yield ids[place]
        place = following[place]


class _Chain:
    """Ids as a linked list; one place more than there are ids stands for the end."""

    def __init__(self, ids: list[int]) -> None:
        size = len(ids)
        self.ids = array("q", [*ids, _END])
        self.following = array("q", [*range(1, size + 1), size])
        self.previous = array("q", range(-1, size))

    def join(self, place: int, product: int) -> None:
        """The id at `place` and the one after it become `product`."""
        gone = self.following[place]
        after = self.following[gone]
        self.ids[place], self.ids[gone] = product, _END
        self.following[place] = after
        if after < len(self.previous):
            self.previous[after] = place

    def left(self) -> list[int]:
        return [each for each in self.ids if each != _END]


def _log_sum(steps: Sequence[tuple[float, int]]) -> float:
    largest = max(weight for weight, _ in steps)
    return largest + math.log(sum(math.exp(weight - largest) for weight, _ in steps))


def _check_rate(name: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"{name}={rate}: expected a probability in [0, 1]")
