"""How evenly tokens are used: entropies of a stream of ids, in bits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

# The order at which efficiency went along best with translation quality (Zouhar et al. 2023).
RENYI_ORDER = 2.5


def frequencies(ids: Iterable[Sequence[int]]) -> np.ndarray:
    """How often each id that occurs does, most frequent first. (T,) int64."""
    counts = Counter(each for sequence in ids for each in sequence)
    return np.array(sorted(counts.values(), reverse=True), np.int64)


def renyi_entropy(counts: np.ndarray, order: float = RENYI_ORDER) -> float:
    """Rényi entropy of the shares that `counts` have, in bits: log2(sum of share^order) / (1 - order).

    order  from 0 up: 0 counts the types, 1 is Shannon's entropy, infinity is that of the largest share

    ValueError when nothing was counted or the order is negative.
    """
    if not order >= 0:
        raise ValueError(f"order={order}: expected 0 or more")
    counts = np.asarray(counts)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    if not shares.size:
        raise ValueError("no tokens were counted: their entropy is undefined")
    if order == 1:
        return float(-(shares * np.log2(shares)).sum()) + 0.0  # never -0.0
    if math.isinf(order):
        return float(-np.log2(shares.max())) + 0.0
    return float(np.log2((shares**order).sum()) / (1 - order)) + 0.0


def renyi_efficiency(counts: np.ndarray, order: float = RENYI_ORDER, *, size: int | None = None) -> float:
    """Rényi entropy over what it would be if `size` tokens were all used alike; 0 ... 1, more is better.

    size  of the vocabulary; by default the types that occur, as in the package tokenization-scorer. Only
          efficiencies of the same convention compare.

    Zouhar et al. 2023, "Tokenization and the Noiseless Channel".
    """
    types = int(np.count_nonzero(counts))
    size = types if size is None else size
    if size < max(types, 2):
        raise ValueError(f"a vocabulary of {size}: expected at least 2, and the {types} types that occur")
    return renyi_entropy(counts, order) / math.log2(size)


def capacity_utilisation(counts: np.ndarray, size: int) -> float:
    """Shannon entropy over log2 of the vocabulary: the share of what a token could say that it does say."""
    return renyi_efficiency(counts, 1, size=size)


def conditional_entropy(ids: Iterable[Sequence[int]], order: int) -> float:
    """Bits of a token when the `order` tokens before it are known: H(order + 1 tokens) - H(order tokens),
    over the places that have so many before them; order 0 is the plain entropy.

    Of few tokens it comes out too low: long contexts are seen once, and then nothing surprises.

    ValueError when no sequence is long enough.
    """
    if order < 0:
        raise ValueError(f"order={order}: expected 0 or more")
    contexts: Counter[Hashable] = Counter()
    spans: Counter[Hashable] = Counter()
    for sequence in ids:
        for start in range(len(sequence) - order):
            span = tuple(sequence[start : start + order + 1])
            spans[span] += 1
            contexts[span[:-1]] += 1
    if not spans:
        raise ValueError(f"no sequence is longer than {order} tokens")
    return max(0.0, _shannon(spans) - _shannon(contexts))


def _shannon(counts: Counter[Hashable]) -> float:
    return renyi_entropy(np.fromiter(counts.values(), np.int64, len(counts)), 1)
