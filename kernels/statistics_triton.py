"""Sums of the latents of each code in Triton, the same bits at every run: whole numbers add in any order."""

# pyright: reportCallIssue=false, reportArgumentType=false
# See vq_triton.py.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Numbers of the latents that a program reads.
_TILE_ELEMENTS = 2048
# Its bits; those of NaN are larger.
INFINITY = tl.constexpr(0x7F800000)


def statistics_triton(latents: Tensor, ids: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Counts (K,) and sums (K, D) float32 of (N, D) float32 and (N,) int64; negative ids are left out.

    Floats that are added by atomics depend on who comes first. Here the numbers are multiples of 2**-E times
    the largest one, in an int64, with E as large as N allows: 44 for 65536 rows, where float32 has 24 bits.
    Infinity and NaN are no multiples: they leave a mark beside the sum.
    """
    latents = latents.contiguous()
    num_rows, dim = latents.shape
    # The bits of the largest number, and whether all ids are codes.
    state = torch.ones(2, dtype=torch.int32, device=latents.device)
    steps = torch.zeros(num_codes, dim + 1, dtype=torch.int64, device=latents.device)
    sums, counts = latents.new_zeros(num_codes, dim), latents.new_empty(num_codes)
    width = triton.next_power_of_2(dim + 1)
    tile = {"DIM": dim, "ROWS": max(1, _TILE_ELEMENTS // width), "WIDTH": width}
    blocks = triton.cdiv(num_rows, tile["ROWS"])
    # The sum of all rows stays below 2**62.
    bits = 61 - max(0, num_rows - 1).bit_length()
    with torch.cuda.device_of(latents):
        if num_rows:
            _survey[(blocks,)](latents, ids, state, num_rows, num_codes, **tile)
            message = f"an id of {num_codes} or more, where {num_codes} codes are counted"
            torch._assert_async(state[1], message)  # pyright: ignore[reportPrivateImportUsage]
            _add[(blocks,)](latents, ids, state, steps, sums, num_rows, num_codes, bits, **tile)
        _finish[(triton.cdiv(num_codes, tile["ROWS"]),)](steps, sums, counts, state, num_codes, bits, **tile)
    return counts, sums


@triton.jit
def exponent_of(largest):
    """E with 2**E <= x < 2**(E + 1), of the bits of a float32; -126 for subnormal numbers."""
    return tl.maximum(largest >> 23, 1) - 127


@triton.jit
def power_of_two(exponent):
    """2**exponent in float64."""
    return ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _survey(
    latents, ids, state, num_rows, num_codes, DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)
    code = tl.load(ids + rows, rows < num_rows, -1)
    inside = (code >= 0)[:, None] & (features < DIM)[None, :]
    numbers = tl.load(latents + rows[:, None] * DIM + features[None, :], inside, 0.0)
    size = numbers.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    size = tl.where(size < INFINITY, size, 0)
    tl.atomic_max(state, tl.max(tl.max(size, axis=1), axis=0), sem="relaxed")
    tl.atomic_min(state + 1, (tl.max(code, axis=0) < num_codes).to(tl.int32), sem="relaxed")


@triton.jit
def _add(
    latents, ids, state, steps, marks, num_rows, num_codes, bits,
    DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)[None, :]
    code = tl.load(ids + rows, rows < num_rows, -1)
    counted = ((code >= 0) & (code < num_codes))[:, None]
    numbers = tl.load(latents + rows[:, None] * DIM + features, counted & (features < DIM), 0.0)
    word = numbers.to(tl.int32, bitcast=True)
    finite = (word & 0x7FFFFFFF) < INFINITY
    scale = power_of_two(bits - 1 - exponent_of(tl.load(state)))
    step = (tl.where(finite, numbers, 0.0).to(tl.float64) * scale).to(tl.int64)
    step = tl.where(features == DIM, 1, step)  # the last column counts
    tl.atomic_add(
        steps + code[:, None] * (DIM + 1) + features, step, counted & (features <= DIM), sem="relaxed"
    )
    mark = tl.where(word == INFINITY, 1, tl.where(numbers == float("-inf"), 2, 4))
    tl.atomic_or(
        marks.to(tl.pointer_type(tl.int32), bitcast=True) + code[:, None] * DIM + features,
        mark, counted & ~finite, sem="relaxed",
    )  # fmt: skip


@triton.jit
def _finish(
    steps, sums, counts, state, num_codes, bits, DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    codes = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)[None, :]
    real = (codes < num_codes)[:, None]
    step = tl.load(steps + codes[:, None] * (DIM + 1) + features, real & (features <= DIM), 0)
    total = (step.to(tl.float64) * power_of_two(exponent_of(tl.load(state)) + 1 - bits)).to(tl.float32)
    at, inside = sums + codes[:, None] * DIM + features, real & (features < DIM)
    mark = tl.load(at, inside, 0.0).to(tl.int32, bitcast=True)
    total += tl.where(mark & 1 != 0, float("inf"), 0.0)
    total += tl.where(mark & 2 != 0, float("-inf"), 0.0)
    total += tl.where(mark & 4 != 0, float("nan"), 0.0)
    tl.store(at, total, inside)
    count = counts + codes[:, None] + 0 * features
    tl.store(count, step.to(tl.float32), real & (features == DIM))
