"""Nearest code in fused Triton: scores stay in registers, and no N x K matrix is written.

With few features or few rows `_scan` computes every score in float32. Otherwise `_screen` finds candidates on
the tensor cores, in half precision with an error that is bounded row by row, and decides between them in
float32; a row that the bound leaves open is scanned. The online maximum is that of FlashAssign (arXiv
2603.09229), which has neither the bound nor float32.
"""

# pyright: reportCallIssue=false, reportArgumentType=false
# The types of Triton know neither the options of a launch nor what it makes of constants.

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

# float32 is multiplied outside the tensor cores; up to this width that costs less than to screen and decide.
SCREEN_ABOVE_DIM = 32
# With fewer rows the screening leaves multiprocessors idle, where the scan shares out the codes instead.
SCREEN_FROM_ROWS = 4096
# As fast as bfloat16, and three bits finer. Of Gaussian rows, against 16384 codes of 256 (1024) features, 1 %
# (3 %) stay open; bfloat16 leaves 19 % (37 %). Powers of two fit vectors to its range.
SCREEN_DTYPE = torch.float16
# Programs that fill an H100 or H200 (132 multiprocessors) twice.
WANTED_PROGRAMS = 264


@dataclass(frozen=True)
class Tiles:
    """What a program holds at a time: rows, codes, and the features multiplied in one step.

    All three are powers of two, at least 16. The width follows from D alone: it sets the order in which
    products are added, and ids must not depend on what ran faster.
    """

    rows: int
    codes: int
    width: int
    warps: int
    stages: int


def scan_tiles(dim: int) -> Tiles:
    return Tiles(rows=64, codes=64, width=min(padded(dim), 32), warps=4, stages=2)


def screen_tiles(dim: int) -> Tiles:
    """Rows of up to 256 features are read once, before the codes stream by."""
    width = padded(dim)
    if width > 256:
        return Tiles(rows=128, codes=128, width=64, warps=8, stages=4)
    return Tiles(rows=128, codes=64 if width == 256 else 128, width=width, warps=8, stages=3)


def padded(dim: int) -> int:
    """The least power of two that holds `dim` and that tl.dot takes."""
    return max(16, triton.next_power_of_2(dim))


def nearest_triton(latents: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    """Index of the largest z.e + bias, the lowest at ties; 0 for a latent that holds NaN.

    latents   (N, D) float32
    codebook  (K, D) float32, K < 2**31
    bias      (K,)   float32
    returns   (N,)   int64 in [0, K); nothing waits for the device
    """
    latents, codebook, bias = latents.contiguous(), codebook.contiguous(), bias.contiguous()
    with torch.cuda.device_of(latents):
        if len(latents) < SCREEN_FROM_ROWS or latents.shape[1] <= SCREEN_ABOVE_DIM:
            return scanned(latents, codebook, bias)
        ids, settled = screened(latents, codebook, bias)
        return torch.where(settled, ids, scanned(latents, codebook, bias, skip=settled))


def scanned(latents: Tensor, codebook: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
    """Ids (N,) by float32 scores; without meaning for rows to `skip` (N,) bool.

    Where there are few rows, programs share out the codes. They meet in one integer maximum a row, over the
    score and, below it, the complement of the index: it comes out the same in any order.
    """
    (num_rows, dim), num_codes = latents.shape, len(codebook)
    tiles = scan_tiles(dim)
    blocks = busy = triton.cdiv(num_rows, tiles.rows)
    order = count = None
    if skip is not None:
        order, count = skip.to(torch.uint8).argsort(stable=True), skip.logical_not().sum()
        busy = triton.cdiv(blocks, 64)  # a guess, which sets the grid and nothing else
    splits = min(triton.cdiv(WANTED_PROGRAMS, max(busy, 1)), triton.cdiv(num_codes, tiles.codes))
    share = triton.cdiv(triton.cdiv(num_codes, splits), tiles.codes) * tiles.codes
    keys = torch.full((num_rows,), torch.iinfo(torch.int64).min, device=latents.device)
    if num_rows:
        _scan[(blocks, splits)](
            latents, codebook, bias, order, count, keys, num_rows, num_codes, share,
            DIM=dim, ROWS=tiles.rows, CODES=tiles.codes, WIDTH=tiles.width,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return keys.bitwise_not_().bitwise_and_(0xFFFFFFFF)


def screened(latents: Tensor, codebook: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Ids (N,), and whether each is proved (N,) bool.

    Two candidates, the best codes of two tiles, are kept and compared in float32. When the best score leads
    all others by more than two errors (`score_errors`), none of them can be the nearest, nor tie with it.
    """
    num_rows, dim = latents.shape
    tiles = screen_tiles(dim)
    rows, codes = halved(latents), halved(codebook)
    ids = torch.empty(num_rows, dtype=torch.int64, device=latents.device)
    settled = torch.empty(num_rows, dtype=torch.bool, device=latents.device)
    _screen[(triton.cdiv(num_rows, tiles.rows),)](
        latents, codebook, bias, rows.values, rows.scales, codes.values, codes.scales,
        score_errors(rows, codes, bias), ids, settled, num_rows, len(codebook),
        DIM=dim, ROWS=tiles.rows, CODES=tiles.codes, WIDTH=tiles.width,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return ids, settled


@dataclass(frozen=True, eq=False)
class Halves:
    """Vectors (M, D) as scales * values, and how much that leaves out.

    values   (M, D) half precision, each row scaled by a power of two to a largest size in [1, 2)
    scales   (M,) float32
    lengths  (M,) float32, of scales * values
    rests    (M,) float32, lengths of vectors - scales * values
    """

    values: Tensor
    scales: Tensor
    lengths: Tensor
    rests: Tensor


def halved(vectors: Tensor) -> Halves:
    num_rows, dim = vectors.shape
    halves = Halves(torch.empty_like(vectors, dtype=SCREEN_DTYPE), *vectors.new_empty(3, num_rows).unbind())
    _halve[(triton.cdiv(num_rows, 64),)](
        vectors, halves.values, halves.scales, halves.lengths, halves.rests, num_rows,
        DIM=dim, ROWS=64, WIDTH=min(padded(dim), 64),
    )  # fmt: skip
    return halves


def score_errors(rows: Halves, codes: Halves, bias: Tensor) -> Tensor:
    """How far the score s' of halves may lie from the score s: (N,), NaN or infinity for rows that hold them.

    With z = z' + dz and e = e' + de, where z' and e' are the halves, and with C, dC and B the greatest |e'|,
    |de| and |bias| of the codebook,

        |s - s'|  <=  |dz| (C + dC) + |z'| dC + (D + 2) 2**-22 (|z'| C + B)

    The first terms are Cauchy-Schwarz on z.e - z'.e' = dz.e + z'.de. The last one is for the arithmetic.
    Products of halves are exact in float32. To add 16 of them to a sum, tensor cores align the 17 terms and
    truncate each to 24 bits or more (Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021): with the
    rounding of the result less than 16 * 2**-22 |z'| C. Scale and bias round once more. A factor 1 + 2**-8
    covers the rounding of the lengths and of this formula.
    """
    length, rest, offset = codes.lengths.amax(), codes.rests.amax(), bias.abs().amax()
    products = rows.rests * (length + rest) + rows.lengths * rest
    arithmetic = (rows.values.shape[1] + 2) * 2.0**-22 * (rows.lengths * length + offset)
    return (products + arithmetic) * (1 + 2.0**-8)


@triton.jit
def products(left, rows, right, codes, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Products of rows of two matrices (ROWS, CODES), summed in float32 in the order of the features."""
    features = tl.arange(0, WIDTH)
    total = tl.zeros((rows.shape[0], codes.shape[0]), tl.float32)
    for start in range(0, DIM, WIDTH):
        at = start + features
        some_rows = tl.load(left + rows[:, None] * DIM + at[None, :], (at < DIM)[None, :], 0.0)
        some_codes = tl.load(right + codes[None, :] * DIM + at[:, None], (at < DIM)[:, None], 0.0)
        total = tl.dot(some_rows, some_codes, total, input_precision="ieee")
    return total


@triton.jit
def better(scores, start, best, best_code):
    """Best score and code of each row so far (ROWS,), and now of the codes from `start` on (ROWS, CODES)."""
    scores = tl.where(scores == scores, scores, float("-inf"))  # NaN never leads
    score, code = tl.max(scores, axis=1, return_indices=True)
    best_code = tl.where(score > best, start + code, best_code)  # a tie stays with the earlier code
    return tl.maximum(best, score), best_code


@triton.jit
def _scan(
    latents, codebook, bias, order, count, keys, num_rows, num_codes, share,
    DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    limit = num_rows
    if count is not None:
        limit = tl.load(count)
    if tl.program_id(0) * ROWS >= limit:
        return
    # What lies past the end reads the last row or code: no load needs a mask, store and bias leave it out.
    rows = tl.minimum(places, num_rows - 1).to(tl.int64)
    if order is not None:
        rows = tl.load(order + rows)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    best_code = tl.zeros((ROWS,), tl.int32)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, num_codes), CODES):
        codes = start + tl.arange(0, CODES)
        near = tl.minimum(codes, num_codes - 1).to(tl.int64)
        scores = products(latents, rows, codebook, near, DIM, WIDTH)
        scores += tl.load(bias + codes, codes < num_codes, float("-inf"))[None, :]
        best, best_code = better(scores, start, best, best_code)
    # Bits of floats in the order of integers: those of negative numbers count backwards.
    bits = best.to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = (bits.to(tl.int64) << 32) | (0xFFFFFFFF - best_code.to(tl.int64))
    tl.atomic_max(keys + rows, key, places < limit, sem="relaxed")


@triton.jit
def _halve(
    vectors, values, scales, lengths, rests, num_rows,
    DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = rows < num_rows
    largest = tl.zeros((ROWS,), tl.float32)
    for start in range(0, DIM, WIDTH):
        at = start + tl.arange(0, WIDTH)
        inside = real[:, None] & (at < DIM)[None, :]
        vector = tl.load(vectors + rows[:, None] * DIM + at[None, :], inside, 0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(vector), axis=1))
    # A power of two and its inverse by their bits, as a division would round. Both stay normal numbers.
    exponent = largest.to(tl.int32, bitcast=True) & 0x7F800000
    exponent = tl.minimum(tl.maximum(exponent, 27 << 23), 253 << 23)
    scale = exponent.to(tl.float32, bitcast=True)
    inverse = ((254 << 23) - exponent).to(tl.float32, bitcast=True)
    length = tl.zeros((ROWS,), tl.float32)
    rest = tl.zeros((ROWS,), tl.float32)
    for start in range(0, DIM, WIDTH):
        at = start + tl.arange(0, WIDTH)
        inside = real[:, None] & (at < DIM)[None, :]
        vector = tl.load(vectors + rows[:, None] * DIM + at[None, :], inside, 0.0) * inverse[:, None]
        half = vector.to(values.dtype.element_ty)
        tl.store(values + rows[:, None] * DIM + at[None, :], half, inside)
        kept = half.to(tl.float32)
        length += tl.sum(kept * kept, axis=1)
        rest += tl.sum((vector - kept) * (vector - kept), axis=1)
    tl.store(scales + rows, scale, real)
    tl.store(lengths + rows, tl.sqrt(length) * scale, real)
    tl.store(rests + rows, tl.sqrt(rest) * scale, real)


@triton.jit
def _screen(
    latents, codebook, bias, half_rows, row_scales, half_codes, code_scales, errors, ids, settled,
    num_rows, num_codes, DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    rows = tl.minimum(places, num_rows - 1).to(tl.int64)
    scale = tl.load(row_scales + rows)[:, None]
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    second, others = best, best
    best_code = tl.zeros((ROWS,), tl.int32)
    second_code = best_code
    for start in range(0, num_codes, CODES):
        codes = start + tl.arange(0, CODES)
        near = tl.minimum(codes, num_codes - 1)
        scores = products(half_rows, rows, half_codes, near.to(tl.int64), DIM, WIDTH)
        scores *= scale * tl.load(code_scales + near)[None, :]
        scores += tl.load(bias + codes, codes < num_codes, float("-inf"))[None, :]
        scores = tl.where(scores == scores, scores, float("-inf"))
        score, code = tl.max(scores, axis=1, return_indices=True)
        code += start
        beside = tl.max(tl.where(codes[None, :] == code[:, None], float("-inf"), scores), axis=1)
        others = tl.maximum(tl.maximum(others, beside), tl.minimum(second, score))
        second_code = tl.where(score > best, best_code, tl.where(score > second, code, second_code))
        second = tl.where(score > best, best, tl.maximum(second, score))
        best_code = tl.where(score > best, code, best_code)
        best = tl.maximum(best, score)
    exact = _score(latents, rows, codebook, bias, best_code, DIM)
    rival = _score(latents, rows, codebook, bias, second_code, DIM)
    swap = (rival > exact) | ((rival == exact) & (second_code < best_code))
    tl.store(ids + rows, tl.where(swap, second_code, best_code).to(tl.int64), places < num_rows)
    tl.store(settled + rows, best - others > 2 * tl.load(errors + rows), places < num_rows)


@triton.jit
def _score(latents, rows, codebook, bias, codes, DIM: tl.constexpr):
    """The float32 score of one code for each row: (ROWS,)."""
    score = tl.load(bias + codes)
    for start in range(0, DIM, 32):  # more or fewer at a time run out of registers
        at = start + tl.arange(0, 32)[None, :]
        row = tl.load(latents + rows[:, None] * DIM + at, at < DIM, 0.0)
        code = tl.load(codebook + codes.to(tl.int64)[:, None] * DIM + at, at < DIM, 0.0)
        score += tl.sum(row * code, axis=1)
    return score
