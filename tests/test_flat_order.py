"""The order of ids in a span: every cell once, delayed as told, and readable when it was cut."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenzoo.zoo.flat_order import (
    Order,
    cells,
    cells_so_far,
    delay_grid,
    ids_before_step,
    tail,
    undelay_grid,
)

SIZES = {"count": st.integers(1, 7), "depth": st.integers(1, 5)}


def test_the_delayed_order_of_three_tokens() -> None:
    assert cells("delay", 3, 2) == ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (2, 1))
    assert cells("token", 2, 2) == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert tail(3, 2) == (1,) and tail(1, 3) == (1, 2) and tail(9, 3) == (1, 2, 2) and tail(4, 1) == ()


@given(order=st.sampled_from(["token", "delay"]), **SIZES)
def test_every_cell_stands_once_and_after_the_one_before(order: Order, count: int, depth: int) -> None:
    written = cells(order, count, depth)
    assert sorted(written) == [(token, q) for token in range(count) for q in range(depth)]
    place = {cell: at for at, cell in enumerate(written)}
    assert all(place[token, q] < place[token, q + 1] for token in range(count) for q in range(depth - 1))
    assert all(place[token, q] < place[token + 1, q] for token in range(count - 1) for q in range(depth))


@given(**SIZES)
def test_the_delayed_order_is_the_grid_row_by_row(count: int, depth: int) -> None:
    written = cells("delay", count, depth)
    ids = torch.arange(count * depth).view(count, depth)
    grid = delay_grid(ids, -1)
    assert grid.shape == (count + depth - 1, depth)
    assert grid.flatten()[grid.flatten() >= 0].tolist() == [int(ids[cell]) for cell in written]
    assert torch.equal(undelay_grid(grid), ids)
    assert ids_before_step(count, depth) + len(tail(count, depth)) == count * depth


def test_a_batch_is_delayed_row_by_row() -> None:
    ids = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [9, 9]]])  # the second item is a token long, padded with 9
    assert delay_grid(ids, 9).tolist() == [[[1, 9], [3, 2], [9, 4]], [[5, 9], [9, 6], [9, 9]]]
    with pytest.raises(ValueError, match="2 steps of 3 codebooks: expected at least 3"):
        undelay_grid(torch.zeros(2, 3, dtype=torch.int64))


@given(order=st.sampled_from(["token", "delay"]), cut=st.floats(0, 1), **SIZES)
def test_a_cut_stream_is_read_as_far_as_it_goes(order: Order, cut: float, count: int, depth: int) -> None:
    written = cells(order, count, depth)
    left = written[: round(cut * len(written))]
    assert cells_so_far(order, [codebook for _, codebook in left], depth) == left
