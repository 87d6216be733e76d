"""Several small whole numbers as one id, in mixed radix, exact in int64.

A float sum of digits, the usual way, is wrong beyond 2**24 codes in float32 and beyond 2**8 in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

# Whole numbers up to here are exact in float32, and so are sums that stay below.
EXACT_IN_FLOAT32 = 1 << 24


def check_sizes(sizes: Sequence[int]) -> None:
    """ValueError unless digits in [0, size) are exact in float32, and the number of their ids in int64."""
    if not sizes or min(sizes) < 2 or max(sizes) > EXACT_IN_FLOAT32 or math.prod(sizes) >= 1 << 63:
        raise ValueError(
            f"levels {tuple(sizes)}: expected at least one, each 2 or more, up to 2**24, product below 2**63"
        )


def place_values(sizes: Sequence[int], *, high_first: bool = False) -> list[int]:
    """What a step of each digit adds to the id. The first counts fastest, or slowest with `high_first`."""
    if high_first:
        return place_values(sizes[::-1])[::-1]
    return [math.prod(sizes[:position]) for position in range(len(sizes))]


def pack_digits(digits: Tensor, sizes: Sequence[int], *, high_first: bool = False) -> Tensor:
    """Joins digits to ids: (N, D) float32, whole numbers in [0, sizes) -> (N,) int64.

    A matrix-vector product adds floats several times faster than any sum adds integers, and is exact below
    2**24. Longer ids are put together in int64 from such pieces.
    """
    places = place_values(sizes, high_first=high_first)
    pieces = []
    for start, stop in _exact_pieces(sizes):
        unit = min(places[start:stop])
        weights = torch.tensor(places[start:stop], device=digits.device) // unit
        pieces.append((digits[:, start:stop] @ weights.to(digits.dtype)).to(torch.int64).mul_(unit))
    return reduce(torch.add, pieces)


def unpack_digits(ids: Tensor, sizes: Sequence[int], *, high_first: bool = False) -> Tensor:
    """Takes ids apart: (...) int64 in [0, prod sizes) -> (..., D) int64."""
    places = torch.tensor(place_values(sizes, high_first=high_first), device=ids.device)
    return ids.unsqueeze(-1) // places % torch.tensor(sizes, device=ids.device)


def _exact_pieces(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring digits with at most 2**24 codes together, as (start, stop)."""
    pieces, start = [], 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or math.prod(sizes[start : stop + 1]) > EXACT_IN_FLOAT32:
            pieces.append((start, stop))
            start = stop
    return pieces
