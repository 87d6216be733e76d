"""Scalar quantize-and-pack in Triton: one launch reads the latents and writes ids and values."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
# See vq_triton.py.

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .scalar import level_grid, levels_torch

_TILE_ELEMENTS = 2048
# Adding and taking away 1.5 * 2**23 rounds numbers below 2**22 half to even, as torch.round does.
_MOST_LEVELS = 1 << 22


def levels_triton(
    latents: Tensor, levels: Sequence[int], epsilon: float, symmetric: bool, clamp: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (N,) int64, values (N, D) and squashed latents (N, D), both float32, of (N, D) float32.

    tanh is 1 - 2 / (exp(2x) + 1), within 3e-7 of torch's: a latent as close to a boundary may go either way.
    """
    if max(levels) >= _MOST_LEVELS:
        return levels_torch(latents, levels, epsilon, symmetric, clamp)
    latents = latents.contiguous()
    num_rows, dim = latents.shape
    ids = latents.new_empty(num_rows, dtype=torch.int64)
    values, squashed = torch.empty_like(latents), torch.empty_like(latents)
    shift, reach, offset = _grid(tuple(levels), epsilon, symmetric, clamp)
    with torch.cuda.device_of(latents):
        if num_rows:
            rows, width = _tile(dim)
            _levels[(triton.cdiv(num_rows, rows),)](
                latents, ids, values, squashed, num_rows,
                LEVELS=tuple(levels), SHIFT=shift, REACH=reach, OFFSET=offset,
                SYMMETRIC=symmetric, CLAMP=clamp, DIM=dim, ROWS=rows, WIDTH=width,
            )  # fmt: skip
    return ids, values, squashed


def signs_triton(latents: Tensor, scale: float, high_first: bool) -> tuple[Tensor, Tensor]:
    """Ids (N,) int64 and values (N, D) float32 of (N, D) float32."""
    latents = latents.contiguous()
    num_rows, dim = latents.shape
    ids, values = latents.new_empty(num_rows, dtype=torch.int64), torch.empty_like(latents)
    with torch.cuda.device_of(latents):
        if num_rows:
            rows, width = _tile(dim)
            _signs[(triton.cdiv(num_rows, rows),)](
                latents, ids, values, num_rows, scale, HIGH_FIRST=high_first, DIM=dim, ROWS=rows, WIDTH=width
            )
    return ids, values


def bins_triton(latents: Tensor, edges: Tensor) -> Tensor:
    """How many edges (L - 1,) float32 lie below each of (...) float32: (...) int64."""
    latents, edges = latents.contiguous(), edges.contiguous()
    ids = torch.empty_like(latents, dtype=torch.int64)
    with torch.cuda.device_of(latents):
        if latents.numel():
            _bins[(triton.cdiv(latents.numel(), _TILE_ELEMENTS),)](
                latents, edges, ids, latents.numel(), len(edges),
                HALVINGS=len(edges).bit_length(), SIZE=_TILE_ELEMENTS,
            )  # fmt: skip
    return ids


def _tile(dim: int) -> tuple[int, int]:
    """Rows and padded features of a program."""
    width = triton.next_power_of_2(dim)
    return max(1, _TILE_ELEMENTS // width), width


@lru_cache(maxsize=256)
def _grid(
    levels: tuple[int, ...], epsilon: float, symmetric: bool, clamp: bool
) -> tuple[tuple[float, ...], ...]:
    """Shift, reach and offset of each feature, the numbers of torch on the CPU: constants of the kernel."""
    grid = level_grid(levels, epsilon, symmetric, clamp, torch.empty(0))
    return tuple(tuple(column.tolist()) for column in (grid.shift, grid.reach, grid.offset))


@triton.jit
def _per_feature(NUMBERS: tl.constexpr, WIDTH: tl.constexpr, DTYPE: tl.constexpr):
    """The numbers as a vector (WIDTH,), which the compiler folds into the code; twos behind them."""
    features = tl.arange(0, WIDTH)
    vector = tl.full((WIDTH,), 2, DTYPE)
    for feature in tl.static_range(len(NUMBERS)):
        vector = tl.where(features == feature, NUMBERS[feature], vector)
    return vector.to(DTYPE)


@triton.jit
def _levels(
    latents, ids, values, squashed, num_rows,
    LEVELS: tl.constexpr, SHIFT: tl.constexpr, REACH: tl.constexpr, OFFSET: tl.constexpr,
    SYMMETRIC: tl.constexpr, CLAMP: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)
    inside = (rows < num_rows)[:, None] & (features < DIM)[None, :]
    at = rows[:, None] * DIM + features[None, :]
    levels = _per_feature(LEVELS, WIDTH, tl.int32)
    shifted = tl.load(latents + at, inside, 0.0) + _per_feature(SHIFT, WIDTH, tl.float32)[None, :]
    if CLAMP:
        squash = tl.where(shifted < -1.0, -1.0, tl.where(shifted > 1.0, 1.0, shifted))
    else:
        squash = 1.0 - tl.div_rn(2.0, tl.exp(2.0 * shifted) + 1.0)
    steps = squash * _per_feature(REACH, WIDTH, tl.float32)[None, :]
    steps -= _per_feature(OFFSET, WIDTH, tl.float32)[None, :]
    if SYMMETRIC:
        digits = tl.floor(steps + levels.to(tl.float32)[None, :] * 0.5)
        centre = (levels - 1).to(tl.float32) * 0.5
    else:
        centre = (levels // 2).to(tl.float32)
        digits = (steps + 12582912.0) - 12582912.0 + centre[None, :]
    digits = tl.where(digits >= 0, digits, 0.0)  # NaN too
    digits = tl.minimum(digits, (levels - 1).to(tl.float32)[None, :])
    # The first feature counts fastest: its place is 1, the next one's its number of levels, and so on.
    place = tl.full((WIDTH,), 1, tl.int64)
    for feature in tl.static_range(DIM - 1):
        place = tl.where(features > feature, place * LEVELS[feature], place)
    packed = tl.sum(tl.where(inside, digits, 0.0).to(tl.int64) * place[None, :], axis=1)
    tl.store(ids + rows, packed, rows < num_rows)
    # Rounded as IEEE asks, for the values that decoding computes bit for bit.
    tl.store(values + at, tl.div_rn(digits - centre[None, :], centre[None, :]), inside)
    tl.store(squashed + at, squash, inside)


@triton.jit
def _signs(
    latents, ids, values, num_rows, scale,
    HIGH_FIRST: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)
    inside = (rows < num_rows)[:, None] & (features < DIM)[None, :]
    at = rows[:, None] * DIM + features[None, :]
    positive = tl.load(latents + at, inside, 0.0) > 0
    place = DIM - 1 - features if HIGH_FIRST else features
    bits = positive.to(tl.int64) << tl.where(features < DIM, place, 0)[None, :].to(tl.int64)
    tl.store(ids + rows, tl.sum(bits, axis=1), rows < num_rows)
    tl.store(values + at, tl.where(positive, scale, -scale), inside)


@triton.jit
def _bins(latents, edges, ids, size, num_edges, HALVINGS: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    number = tl.load(latents + at, at < size, 0.0)
    below = tl.zeros((SIZE,), tl.int64)
    for halving in tl.static_range(HALVINGS):
        probe = below + (1 << (HALVINGS - 1 - halving))
        edge = tl.load(edges + probe - 1, probe <= num_edges, float("inf"))
        below = tl.where(number > edge, probe, below)  # NaN is above none
    tl.store(ids + at, below, at < size)
