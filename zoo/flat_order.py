"""In which order the ids of a span stand in a flat stream, and the delay pattern as a grid. Without torch.

A span of N tokens of Q codebooks has N Q cells (token, codebook). Order "token" writes token after token,
the Q ids of each side by side. Order "delay" (MusicGen, Copet et al. 2023, arXiv 2306.05284) lets codebook q
come q steps late: step t holds codebook 0 of token t, codebook 1 of token t - 1, and so on; there are
N + Q - 1 steps, and at both ends the cells that fall outside are left out. So both orders have N Q ids and
no filler.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Order = Literal["token", "delay"]
ORDERS: tuple[str, ...] = get_args(Order)


@functools.lru_cache(maxsize=64)
def cells(order: Order, count: int, depth: int) -> tuple[tuple[int, int], ...]:
    """(token, codebook) of each id of `count` tokens of `depth` codebooks, in the order they are written."""
    every = itertools.product(range(count), range(depth))
    if order == "token":
        return tuple(every)
    return tuple(sorted(every, key=lambda cell: (cell[0] + cell[1], cell[1])))


def ids_before_step(step: int, depth: int) -> int:
    """How many ids stand before a step of the delayed stream, while tokens still begin: step i has
    min(i + 1, depth)."""
    rising = min(step, depth)
    return rising * (rising + 1) // 2 + (step - rising) * depth


@functools.lru_cache(maxsize=1024)
def tail(count: int, depth: int) -> tuple[int, ...]:
    """The codebooks whose ids end a delayed stream of `count` tokens, after the last token has begun."""
    return tuple(q for step in range(count, count + depth - 1) for q in _late(step, count, depth))


def _late(step: int, count: int, depth: int) -> range:
    return range(step - count + 1, min(step, depth - 1) + 1)


def cells_so_far(order: Order, codebooks: Sequence[int], depth: int) -> tuple[tuple[int, int], ...]:
    """The cells of a stream that may have been cut, one for each id unless there are too many.

    codebooks  which codebook each id belongs to

    How often codebook 0 stands there says how many tokens began; in a delayed stream with more ids than fit
    before the next token begins, none begins any more.
    """
    size = len(codebooks)
    if order == "token":
        return cells(order, -(-size // depth), depth)[:size]
    begun = sum(each == 0 for each in codebooks)
    ended = size > ids_before_step(begun, depth)
    return cells(order, begun if ended else begun + depth, depth)[:size]


def delay_grid(ids: Tensor, fill: int) -> Tensor:
    """(..., N, Q) ids to the grid (..., N + Q - 1, Q) whose column q comes q steps late.

    fill  what stands in the cells that hold no id: for a model with Q heads an id past the codebook

    Rows of several lengths go in padded with `fill`: the padding is delayed as ids are.
    """
    count, depth = ids.shape[-2:]
    grid = ids.new_full((*ids.shape[:-2], count + depth - 1, depth), fill)
    for codebook in range(depth):
        grid[..., codebook : codebook + count, codebook] = ids[..., codebook]
    return grid


def undelay_grid(grid: Tensor) -> Tensor:
    """(..., N + Q - 1, Q) to (..., N, Q): the inverse of `delay_grid`. ValueError for fewer than Q steps."""
    steps, depth = grid.shape[-2:]
    count = steps - depth + 1
    if count < 1:
        raise ValueError(f"{steps} steps of {depth} codebooks: expected at least {depth}")
    ids = grid.new_empty((*grid.shape[:-2], count, depth))
    for codebook in range(depth):
        ids[..., codebook] = grid[..., codebook : codebook + count, codebook]
    return ids
