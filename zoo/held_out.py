"""Which items training never sees."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np


def held_out(labels: Sequence[str], share: float, sizes: Sequence[int] | None = None) -> np.ndarray:
    """Which items are for validation: (N,) bool, the same ones every time, all of a label or none.

    labels  of each item; "" for all where nothing is known
    share   of the items to hold out, or of the sum of their sizes
    sizes   of each item, default 1

    Whole labels are taken in the order of their digests until `share` is reached; without labels the last
    items are taken, so that neighbours, which may be cuts of one photograph, stay together.
    """
    sizes = [1] * len(labels) if sizes is None else sizes
    wanted = round(share * sum(sizes))
    if not any(labels):
        return np.cumsum(sizes) > sum(sizes) - wanted
    totals: Counter[str] = Counter()
    for label, size in zip(labels, sizes, strict=True):
        totals[label] += size
    held: set[str] = set()
    for label in sorted(totals, key=lambda name: hashlib.blake2b(name.encode()).digest()):
        if wanted <= 0:
            break
        held.add(label)
        wanted -= totals[label]
    return np.array([label in held for label in labels])
