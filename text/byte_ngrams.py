"""A small model of bytes by n-grams: how surprising each byte of a word is after those before it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

_ALPHABET = 256
_REMEMBERED_CONTEXTS = 1 << 14


class ByteNgrams:
    """Witten and Bell's interpolation of all orders, counted over words: nothing before a word is seen.

    words  pretokens and how often each occurs
    order  bytes of context at most

    Every byte has a probability after every context; those of one context add up to 1.
    """

    def __init__(self, words: Mapping[bytes, int], *, order: int = 4) -> None:
        if order < 0:
            raise ValueError(f"order={order}: expected 0 or more bytes of context")
        self._order = order
        # Context -> byte -> how often. What begins a word says little about what goes on in one: a context
        # that reaches back to the start of the word is another.
        counts: dict[tuple[bool, bytes], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for word, count in words.items():
            for place, byte in enumerate(word):
                for context in self._contexts(word, place):
                    counts[context][byte] += count
        self._counts = {context: dict(after) for context, after in counts.items()}
        self._totals = {context: sum(after.values()) for context, after in counts.items()}
        self._distribution = lru_cache(maxsize=_REMEMBERED_CONTEXTS)(self._computed)

    def surprisals(self, word: bytes) -> list[float]:
        """Of each byte, minus the logarithm of its probability, in bits."""
        return [-math.log2(self._probability(word, place)) for place in range(len(word))]

    def entropies(self, word: bytes) -> list[float]:
        """Before each byte, how uncertain it is, in bits."""
        found = []
        for place in range(len(word)):
            chances = self.distribution(word[:place])
            found.append(float(-(chances * np.log2(chances)).sum()))
        return found

    def distribution(self, before: bytes) -> np.ndarray:
        """(256,) float64: the probability of each byte after the start of a word."""
        return self._distribution(len(before) <= self._order, before[-self._order :] if self._order else b"")

    def _contexts(self, word: bytes, place: int) -> list[tuple[bool, bytes]]:
        """From the shortest to the longest; only one that reaches back to the start of the word knows so."""
        longest = min(self._order, place)
        found = [(False, word[place - size : place]) for size in range(longest + 1)]
        return [*found, (True, word[:place])] if place <= self._order else found

    def _probability(self, word: bytes, place: int) -> float:
        chance = 1 / _ALPHABET
        for context in self._contexts(word, place):
            after = self._counts.get(context)
            if after is None:
                continue
            total = self._totals[context]
            chance = (after.get(word[place], 0) + len(after) * chance) / (total + len(after))
        return chance

    def _computed(self, whole: bool, before: bytes) -> np.ndarray:
        chances = np.full(_ALPHABET, 1 / _ALPHABET)
        for context in self._contexts(before, len(before)):
            if context[0] and not whole:
                continue
            after = self._counts.get(context)
            if after is None:
                continue
            chances = chances * len(after)
            chances[list(after)] += list(after.values())
            chances /= self._totals[context] + len(after)
        return chances
