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

    Floats that are added by atomics depend on who comes first. Here each number is rounded to a whole number
    of steps, which int64 adds exactly in any order. A code's step is the same for all of its numbers: 2**-44
    of the largest of them with 65536 rows, where float32 keeps 2**-24 of each sum. Infinity and NaN are no
    whole numbers: they leave a mark beside the sum.
    """
    latents, ids = latents.contiguous(), ids.contiguous()
    num_rows, dim = latents.shape
    valid = torch.ones(1, dtype=torch.int32, device=latents.device)
    largest = torch.zeros(num_codes, dtype=torch.int32, device=latents.device)
    steps = torch.zeros(num_codes, dim + 1, dtype=torch.int64, device=latents.device)
    sums, counts = latents.new_zeros(num_codes, dim), latents.new_empty(num_codes)
    width = triton.next_power_of_2(dim + 1)
    tile = {"DIM": dim, "ROWS": max(1, _TILE_ELEMENTS // width), "WIDTH": width}
    blocks = triton.cdiv(num_rows, tile["ROWS"])
    # The sum of all rows stays below 2**62.
    bits = 61 - max(0, num_rows - 1).bit_length()
    with torch.cuda.device_of(latents):
        if num_rows:
            _survey[(blocks,)](latents, ids, largest, valid, num_rows, num_codes, **tile)
            message = f"an id of {num_codes} or more, where {num_codes} codes are counted"
            torch._assert_async(valid[0], message)  # pyright: ignore[reportPrivateImportUsage]
            _add[(blocks,)](latents, ids, largest, steps, sums, num_rows, num_codes, bits, **tile)
        _finish[(triton.cdiv(num_codes, tile["ROWS"]),)](
            steps, sums, counts, largest, num_codes, bits, **tile
        )
    return counts, sums


@triton.jit
def exponent_of(size):
    """e with 2**e <= x < 2**(e + 1), from the bits of a float32; -126 for subnormal numbers and zero."""
    return tl.maximum(size >> 23, 1) - 127


@triton.jit
def power_of_two(exponent):
    """2**exponent in float64."""
    return ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _survey(
    latents, ids, largest, valid, num_rows, num_codes,
    DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The bits of the largest finite number of each code, and whether all ids are codes."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)
    code = tl.load(ids + rows, rows < num_rows, -1)
    counted = (code >= 0) & (code < num_codes)
    inside = counted[:, None] & (features < DIM)[None, :]
    numbers = tl.load(latents + rows[:, None] * DIM + features[None, :], inside, 0.0)
    size = numbers.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    size = tl.max(tl.where(size < INFINITY, size, 0), axis=1)
    tl.atomic_max(largest + code, size, counted, sem="relaxed")
    tl.atomic_min(valid, (tl.max(code, axis=0) < num_codes).to(tl.int32), sem="relaxed")


@triton.jit
def _add(
    latents, ids, largest, steps, marks, num_rows, num_codes, bits,
    DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Adds whole steps to (K, D + 1), whose last column counts, and marks what is not finite in (K, D)."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)[None, :]
    code = tl.load(ids + rows, rows < num_rows, -1)
    counted = (code >= 0) & (code < num_codes)
    scale = power_of_two(bits - 1 - exponent_of(tl.load(largest + code, counted, 0)))[:, None]
    code, counted = code[:, None], counted[:, None]
    numbers = tl.load(latents + rows[:, None] * DIM + features, counted & (features < DIM), 0.0)
    word = numbers.to(tl.int32, bitcast=True)
    finite = (word & 0x7FFFFFFF) < INFINITY
    step = tl.floor(tl.where(finite, numbers, 0.0).to(tl.float64) * scale + 0.5).to(tl.int64)
    step = tl.where(features == DIM, 1, step)
    tl.atomic_add(steps + code * (DIM + 1) + features, step, counted & (features <= DIM), sem="relaxed")
    mark = tl.where(word == INFINITY, 1, tl.where(numbers == float("-inf"), 2, 4))
    tl.atomic_or(
        marks.to(tl.pointer_type(tl.int32), bitcast=True) + code * DIM + features,
        mark, counted & ~finite, sem="relaxed",
    )  # fmt: skip


@triton.jit
def _finish(
    steps, sums, counts, largest, num_codes, bits,
    DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Steps (K, D + 1) to floats. `sums` holds the marks, which give way to what they stand for."""
    codes = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)[None, :]
    scale = power_of_two(exponent_of(tl.load(largest + codes, codes < num_codes, 0)) + 1 - bits)[:, None]
    codes, real = codes[:, None], (codes < num_codes)[:, None]
    step = tl.load(steps + codes * (DIM + 1) + features, real & (features <= DIM), 0)
    at, inside = sums + codes * DIM + features, real & (features < DIM)
    mark = tl.load(at, inside, 0.0).to(tl.int32, bitcast=True)
    total = tl.where(mark == 0, (step.to(tl.float64) * scale).to(tl.float32), 0.0)
    total += tl.where(mark & 1 != 0, float("inf"), 0.0)
    total += tl.where(mark & 2 != 0, float("-inf"), 0.0)
    total += tl.where(mark & 4 != 0, float("nan"), 0.0)
    tl.store(at, total, inside)
    tl.store(counts + codes + 0 * features, step.to(tl.float32), real & (features == DIM))
