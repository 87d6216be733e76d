"""Nearest code in fused Triton: scores stay in registers, and no N x K matrix is written.

Small searches compute every score in float32 (`_scan`). Large ones find candidates on the tensor cores, in
half precision with an error that is bounded row by row, and decide between them in float32 (`_screen`); a row
that the bound leaves open is scanned. The online maximum is that of FlashAssign (arXiv 2603.09229), which has
neither the bound nor float32.
"""

# pyright: reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false
# The types of Triton know neither the options of a launch nor what it makes of constants.

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

# Multiplications from which screening pays: below, its launches take longer than float32 outside the tensor
# cores (H200). Up to 16 features count as 16, and finding the maximum as much again.
SCREEN_FROM_WORK = 2_500_000_000
# As fast as bfloat16, and three bits finer. Of Gaussian rows, against 16384 codes of 256 (1024) features,
# 0.4 % (0.7 %) stay open. Powers of two fit vectors to its range.
SCREEN_DTYPE = torch.float16
# Of a score in the screening, the last bits hold its tile. More of them would cost more than they save.
MOST_TILE_BITS = 14
# Programs that fill an H100 or H200 (132 multiprocessors) twice.
WANTED_PROGRAMS = 264
# The bits of the lowest finite float32.
LOWEST = tl.constexpr(0xFF7FFFFF - 2**32)
# Above the keys of all scores.
NO_KEY = tl.constexpr(2**63 - 1)


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
    width = min(padded(dim), 32)
    return Tiles(rows=64, codes=128 if width == 16 else 64, width=width, warps=4, stages=2)


def screen_tiles(num_rows: int, dim: int) -> Tiles:
    """Rows of up to 256 features are read once, before the codes stream by. The fastest of many (H200)."""
    width = padded(dim)
    if width > 256:
        return Tiles(rows=128, codes=128, width=64, warps=8, stages=4)
    if num_rows < WANTED_PROGRAMS * 64:
        return Tiles(rows=32, codes=64, width=width, warps=4, stages=3)
    if width > 128:
        return Tiles(rows=256, codes=32, width=width, warps=8, stages=3)
    if width > 64:
        return Tiles(rows=256, codes=64, width=width, warps=8, stages=3)
    return Tiles(rows=128, codes=32, width=width, warps=4, stages=4)


def padded(dim: int) -> int:
    """The least power of two that holds `dim` and that tl.dot takes."""
    return max(16, triton.next_power_of_2(dim))


def nearest_triton(latents: Tensor, codebook: Tensor, euclidean: bool) -> Tensor:
    """Index of the largest z.e - |e|^2 / 2, or z.e, the lowest at ties; 0 for a latent that holds NaN.

    latents   (N, D) float32
    codebook  (K, D) float32, K < 2**31
    returns   (N,)   int64 in [0, K); nothing waits for the device
    """
    latents, codebook = latents.contiguous(), codebook.contiguous()
    with torch.cuda.device_of(latents):
        bias = offsets(codebook) if euclidean else codebook.new_zeros(len(codebook))
        if not screening_pays(len(latents), *codebook.shape):
            return scanned(latents, codebook, bias)
        keys, left = screened(latents, codebook, bias)
        return scanned(latents, codebook, bias, keys, left)


def screening_pays(num_rows: int, num_codes: int, dim: int) -> bool:
    work = num_rows * num_codes * (16 + padded(dim))
    return work >= SCREEN_FROM_WORK and tile_bits(num_codes, screen_tiles(num_rows, dim)) <= MOST_TILE_BITS


def tile_bits(num_codes: int, tiles: Tiles) -> int:
    """How many bits number the tiles of codes."""
    return (triton.cdiv(num_codes, tiles.codes) - 1).bit_length()


def offsets(codebook: Tensor) -> Tensor:
    """-|e|^2 / 2 of each code: (..., D) -> (...)."""
    bias = codebook.new_empty(codebook.shape[:-1])
    dim = codebook.shape[-1]
    _offsets[(triton.cdiv(bias.numel(), 64),)](
        codebook, bias, bias.numel(), DIM=dim, ROWS=64, WIDTH=min(padded(dim), 64)
    )
    return bias


@dataclass(frozen=True, eq=False)
class OpenRows:
    """Rows that are still to be searched: the first `count` of `rows`, in any order.

    rows   (N,) int32
    count  (1,) int32, on the device
    """

    rows: Tensor
    count: Tensor


def scanned(
    latents: Tensor, codebook: Tensor, bias: Tensor, keys: Tensor | None = None, left: OpenRows | None = None
) -> Tensor:
    """Ids (N,) by float32 scores: of all rows, or of the open ones where the others have their keys (N,).

    Where there are few rows, programs share out the codes. They meet in one integer minimum a row, its key:
    the score, turned around, and the index below it, which comes out the same in any order.
    """
    (num_rows, dim), num_codes = latents.shape, len(codebook)
    tiles = scan_tiles(dim)
    blocks = triton.cdiv(num_rows, tiles.rows)
    busy = triton.cdiv(blocks, 256) if left else blocks  # a guess, which sets the grid and nothing else
    splits = min(triton.cdiv(WANTED_PROGRAMS, max(busy, 1)), triton.cdiv(num_codes, tiles.codes))
    share = triton.cdiv(triton.cdiv(num_codes, splits), tiles.codes) * tiles.codes
    if keys is None:
        keys = torch.full((num_rows,), NO_KEY.value, device=latents.device)
    if num_rows:
        _scan[(blocks, splits)](
            latents, codebook, bias, left and left.rows, left and left.count, keys,
            num_rows, num_codes, share,
            DIM=dim, ROWS=tiles.rows, CODES=tiles.codes, WIDTH=tiles.width,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return keys.bitwise_and_(0xFFFFFFFF)


def screened(latents: Tensor, codebook: Tensor, bias: Tensor) -> tuple[Tensor, OpenRows]:
    """Keys (N,) of the rows whose id is proved; NO_KEY for the others, which are left open.

    Each lane, a column of the tiles, keeps its best score; the best three are compared in float32. When the
    best one leads all others by more than two errors (see `score_error`), none of them can be the nearest,
    nor tie with it.
    """
    num_rows, dim = latents.shape
    tiles = screen_tiles(num_rows, dim)
    bits = tile_bits(len(codebook), tiles)
    codes = halved(codebook[None], bias)
    rows, scales, errors = halved_rows(latents, codes.extremes, bits)
    keys = torch.empty(num_rows, dtype=torch.int64, device=latents.device)
    left = OpenRows(torch.empty_like(keys, dtype=torch.int32), keys.new_zeros(1, dtype=torch.int32))
    _screen[(triton.cdiv(num_rows, tiles.rows),)](
        latents, codebook, bias, rows, scales, errors, codes.values, codes.scales,
        keys, left.rows, left.count, num_rows, len(codebook),
        DIM=dim, ROWS=tiles.rows, CODES=tiles.codes, WIDTH=tiles.width, BITS=bits,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return keys, left


@dataclass(frozen=True, eq=False)
class HalfCodes:
    """Codebooks (Q, K, D) as scales * values, and how much that leaves out.

    values    (Q, K, D) half precision, each code scaled by a power of two to a largest size in [1, 2)
    scales    (Q, K) float32
    extremes  (Q, 3) float32, the greatest lengths of scales * values and of what they leave out, and the
              greatest |bias|, of each codebook
    """

    values: Tensor
    scales: Tensor
    extremes: Tensor


def halved(codebooks: Tensor, bias: Tensor) -> HalfCodes:
    """Half the bits of each code, (Q, K, D) with bias (Q, K)."""
    depth, num_codes, dim = codebooks.shape
    codes = HalfCodes(
        torch.empty_like(codebooks, dtype=SCREEN_DTYPE),
        codebooks.new_empty(depth, num_codes),
        codebooks.new_zeros(depth, 3),
    )
    _halve[(triton.cdiv(num_codes, 64), depth)](
        codebooks, bias, codes.values, codes.scales, codes.extremes, None, num_codes,
        DIM=dim, ROWS=64, WIDTH=min(padded(dim), 64), BITS=0,
    )  # fmt: skip
    return codes


def halved_rows(latents: Tensor, extremes: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Half the bits of each row (N, D), its scale and, over the scale, the error of its scores (N,)."""
    num_rows, dim = latents.shape
    values, (scales, errors) = torch.empty_like(latents, dtype=SCREEN_DTYPE), latents.new_empty(2, num_rows)
    _halve[(triton.cdiv(num_rows, 64), 1)](
        latents, None, values, scales, extremes, errors, num_rows,
        DIM=dim, ROWS=64, WIDTH=min(padded(dim), 64), BITS=bits,
    )  # fmt: skip
    return values, scales, errors


@triton.jit
def score_error(length, rest, inverse, extremes, DIM: tl.constexpr, BITS: tl.constexpr):
    """How far the score s' of halves may lie from the score s, both over the scale of the row (ROWS,).

    With z = z' + dz and e = e' + de, where z' and e' are the halves, and with C, dC and B the greatest |e'|,
    |de| and |bias| of the codebook, it is, NaN or infinity for rows that hold them,

        |s - s'|  <=  |dz| (C + dC) + |z'| dC + ((D + 2) 2**-22 + 2**(BITS - 23)) (|z'| C + B) + 1e-36

    The first terms are Cauchy-Schwarz on z.e - z'.e' = dz.e + z'.de. The next ones are for the arithmetic.
    Products of halves are exact in float32. To add 16 of them to a sum, tensor cores align the 17 terms and
    truncate each to 24 bits or more (Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021): with the
    rounding of the result less than 16 * 2**-22 |z'| C. Scale and bias round once more, and the last bits go
    to the number of the tile; 1e-36 is more than what all this does to numbers that are nearly zero. A
    factor 1 + 2**-7 covers the rounding of the lengths and of this formula.
    """
    longest, most_left, offset = tl.load(extremes), tl.load(extremes + 1), tl.load(extremes + 2) * inverse
    halving = rest * (longest + most_left) + length * most_left
    arithmetic = ((DIM + 2) * 2.0**-22 + 2.0 ** (BITS - 23)) * (length * longest + offset)
    return (halving + arithmetic) * (1 + 2.0**-7) + 1e-36


@triton.jit
def power_below(size):
    """The greatest power of two up to each size; it and its inverse are normal numbers."""
    exponent = size.to(tl.int32, bitcast=True) & 0x7F800000
    return tl.minimum(tl.maximum(exponent, 27 << 23), 253 << 23).to(tl.float32, bitcast=True)


@triton.jit
def inverse_of(power):
    """1 / a power of two, by its bits, as a division may round."""
    return ((254 << 23) - power.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)


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
def overtake(scores, start, best, tile):
    """The best score of each lane and the tile that it came from (ROWS, CODES), now with the tile at `start`.

    A tie stays with the earlier tile, and NaN never leads. Lanes are compared once, in `winner`.
    """
    leads = scores > best
    return tl.where(leads, scores, best), tl.where(leads, start, tile)


@triton.jit
def winner(best, tile, CODES: tl.constexpr):
    """The best score of each row, and its code, the lowest at ties (ROWS,)."""
    codes = tile + tl.arange(0, CODES)[None, :]
    score = tl.max(best, axis=1)
    return score, tl.min(tl.where(best == score[:, None], codes, 0x7FFFFFFF), axis=1)


@triton.jit
def scan_codes(
    latents, rows, codebook, bias, first, stop, num_codes,
    DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The best of the codes from `first` to `stop` by float32 scores: score and code (ROWS,)."""
    best = tl.full((ROWS, CODES), float("-inf"), tl.float32)
    tile = tl.zeros((ROWS, CODES), tl.int32)
    for start in range(first, stop, CODES):
        codes = start + tl.arange(0, CODES)
        near = tl.minimum(codes, num_codes - 1).to(tl.int64)
        scores = products(latents, rows, codebook, near, DIM, WIDTH)
        scores += tl.load(bias + codes, codes < num_codes, float("-inf"))[None, :]
        best, tile = overtake(scores, start, best, tile)
    return winner(best, tile, CODES)


@triton.jit
def overtake_roughly(scores, codes, num_codes, best, beaten, CODES: tl.constexpr, BITS: tl.constexpr):
    """The best score of each lane, and the best of those it has beaten (ROWS, CODES), now with these codes.

    The number of the tile takes the last bits of a score: there are no indices to carry along. Codes that do
    not exist score as low as a number can.
    """
    real = (codes < num_codes)[None, :]
    kept = tl.where(real, -1 << BITS, 0)
    number = tl.where(real, codes[None, :] // CODES, LOWEST)
    scores = ((scores.to(tl.int32, bitcast=True) & kept) | number).to(tl.float32, bitcast=True)
    return tl.maximum(best, scores), tl.maximum(beaten, tl.minimum(best, scores))


@triton.jit
def take_winner(best, num_codes, CODES: tl.constexpr, BITS: tl.constexpr):
    """The best score of all lanes and its code (ROWS,), and the scores without that lane."""
    lanes = tl.arange(0, CODES)[None, :]
    score = tl.max(best, axis=1)
    lane = tl.min(tl.where(best == score[:, None], lanes, CODES - 1), axis=1)
    code = (score.to(tl.int32, bitcast=True) & ((1 << BITS) - 1)) * CODES + lane
    # Where none is left, or all is NaN, any code will do.
    code = tl.minimum(code, num_codes - 1)
    return score, code, tl.where(lanes == lane[:, None], float("-inf"), best)


@triton.jit
def three_winners(best, beaten, num_codes, CODES: tl.constexpr, BITS: tl.constexpr):
    """The codes of the best three lanes, and by how much the first leads all others (ROWS,)."""
    rough, first, best = take_winner(best, num_codes, CODES, BITS)
    _, second, best = take_winner(best, num_codes, CODES, BITS)
    _, third, best = take_winner(best, num_codes, CODES, BITS)
    return first, second, third, rough - tl.max(tl.maximum(best, beaten), axis=1)


@triton.jit
def nearer(score, code, other_score, other_code):
    """The better of two scores, at a tie that of the lower code (ROWS,)."""
    swap = (other_score > score) | ((other_score == score) & (other_code < code))
    return tl.where(swap, other_score, score), tl.where(swap, other_code, code)


@triton.jit
def key_of(score, code):
    """Integers that the best score has least, and at ties the lowest code (ROWS,)."""
    bits = score.to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # those of negative numbers count backwards
    return ((~bits).to(tl.int64) << 32) | code.to(tl.int64)


@triton.jit
def _offsets(codebook, bias, num_codes, DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    codes = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, DIM, WIDTH):
        at = start + tl.arange(0, WIDTH)
        inside = (codes < num_codes)[:, None] & (at < DIM)[None, :]
        code = tl.load(codebook + codes[:, None] * DIM + at[None, :], inside, 0.0)
        total += tl.sum(code * code, axis=1)
    tl.store(bias + codes, -0.5 * total, codes < num_codes)


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
        rows = tl.load(order + rows, places < limit, 0).to(tl.int64)
    first = tl.program_id(1) * share
    stop = tl.minimum(first + share, num_codes)
    score, code = scan_codes(latents, rows, codebook, bias, first, stop, num_codes, DIM, ROWS, CODES, WIDTH)
    tl.atomic_min(keys + rows, key_of(score, code), places < limit, sem="relaxed")


@triton.jit
def _halve(
    vectors, bias, values, scales, extremes, errors, num_rows,
    DIM: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = places < num_rows
    rows = group * num_rows + places
    largest = tl.zeros((ROWS,), tl.float32)
    for start in range(0, DIM, WIDTH):
        at = start + tl.arange(0, WIDTH)
        inside = real[:, None] & (at < DIM)[None, :]
        vector = tl.load(vectors + rows[:, None] * DIM + at[None, :], inside, 0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(vector), axis=1))
    scale = power_below(largest)
    inverse = inverse_of(scale)
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
    length, rest = tl.sqrt(length), tl.sqrt(rest)
    tl.store(scales + rows, scale, real)
    if errors is None:
        # As integers, sizes have the order of floats, and NaN is above them all.
        at = extremes.to(tl.pointer_type(tl.int32), bitcast=True) + group * 3
        tl.atomic_max(at, _largest_bits(length * scale), sem="relaxed")
        tl.atomic_max(at + 1, _largest_bits(rest * scale), sem="relaxed")
        tl.atomic_max(at + 2, _largest_bits(tl.load(bias + rows, real, 0.0)), sem="relaxed")
    else:
        tl.store(errors + rows, score_error(length, rest, inverse, extremes, DIM, BITS), real)


@triton.jit
def _largest_bits(numbers):
    return tl.max(numbers.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=0)


@triton.jit
def _screen(
    latents, codebook, bias, half_rows, row_scales, errors, half_codes, code_scales,
    keys, open_rows, num_open, num_rows, num_codes,
    DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    rows = tl.minimum(places, num_rows - 1).to(tl.int64)
    # Scores are compared over the scale of their row, a power of two: that rounds nothing.
    inverse = inverse_of(tl.load(row_scales + rows))[:, None]
    best = tl.full((ROWS, CODES), float("-inf"), tl.float32)
    beaten = best
    for start in range(0, num_codes, CODES):
        codes = start + tl.arange(0, CODES)
        near = tl.minimum(codes, num_codes - 1)
        scores = products(half_rows, rows, half_codes, near.to(tl.int64), DIM, WIDTH)
        scores = scores * tl.load(code_scales + near)[None, :] + tl.load(bias + near)[None, :] * inverse
        best, beaten = overtake_roughly(scores, codes, num_codes, best, beaten, CODES, BITS)
    first, second, third, lead = three_winners(best, beaten, num_codes, CODES, BITS)
    score = _score(latents, rows, codebook, bias, first, DIM)
    score, code = nearer(score, first, _score(latents, rows, codebook, bias, second, DIM), second)
    score, code = nearer(score, code, _score(latents, rows, codebook, bias, third, DIM), third)
    settled = lead > 2 * tl.load(errors + rows)
    tl.store(keys + rows, tl.where(settled, key_of(score, code), NO_KEY), places < num_rows)
    left = ~settled & (places < num_rows)
    slots = tl.atomic_add(num_open + places * 0, 1, left, sem="relaxed")
    tl.store(open_rows + slots, rows.to(tl.int32), left)


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
