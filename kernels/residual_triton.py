"""Residual vector quantization in one Triton launch: the residual stays on the chip between the stages."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false
# See vq_triton.py.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .residual import Walk, residual_torch
from .vq_triton import (
    MOST_TILE_BITS,
    Tiles,
    halved,
    inverse_of,
    nearer,
    offsets,
    overtake_roughly,
    padded,
    power_below,
    scan_codes,
    score_error,
    three_winners,
    tile_bits,
)

# A residual and a tile of codes of this width fit in registers.
FUSED_UP_TO_DIM = 128


def residual_tiles(num_rows: int, dim: int) -> Tiles:
    """Few rows, as one that is left open holds up all of a program. The fastest of those tried (H200)."""
    rows = 32 if num_rows > 16_384 and dim <= 64 else 16
    return Tiles(rows=rows, codes=64, width=padded(dim), warps=4, stages=3)


def residual_triton(latents: Tensor, codebooks: Tensor, stages: Tensor) -> Walk:
    """Quantized (N, D), ids (N, Q) and squared errors (N, Q) of (N, D) and (Q, K, D) float32, (N,) int64.

    The first stages[n] stages of row n are taken; the others have id -1, error 0 and add nothing. Each stage
    is screened as in `vq_triton`; ties go to the lowest index, codes are added in the order of the stages.
    """
    (num_rows, dim), (num_stages, num_codes, _) = latents.shape, codebooks.shape
    tiles = residual_tiles(num_rows, dim)
    bits = tile_bits(num_codes, tiles)
    if dim > FUSED_UP_TO_DIM or bits > MOST_TILE_BITS:
        return residual_torch(latents, codebooks, stages)
    latents, codebooks, stages = latents.contiguous(), codebooks.contiguous(), stages.contiguous()
    quantized = torch.zeros_like(latents)
    ids = latents.new_full((num_rows, num_stages), -1, dtype=torch.int64)
    errors = latents.new_zeros(num_rows, num_stages)
    with torch.cuda.device_of(latents):
        if num_rows:
            bias = offsets(codebooks)
            codes = halved(codebooks, bias)
            _walk[(triton.cdiv(num_rows, tiles.rows),)](
                latents, codebooks, bias, codes.values, codes.scales, codes.extremes, stages,
                torch.empty_like(latents), quantized, ids, errors, num_rows, num_stages, num_codes,
                DIM=dim, ROWS=tiles.rows, CODES=tiles.codes, WIDTH=tiles.width, BITS=bits,
                SCAN_CODES=64, SCAN_WIDTH=min(tiles.width, 32),
                num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
    return quantized, ids, errors


@triton.jit
def _walk(
    latents, codebooks, bias, half_codes, code_scales, extremes, stages, residuals, quantized, ids, errors,
    num_rows, depth, num_codes,
    DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr,
    SCAN_CODES: tl.constexpr, SCAN_WIDTH: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, WIDTH)
    inside = (rows < num_rows)[:, None] & (features < DIM)[None, :]
    at = rows[:, None] * DIM + features[None, :]
    residual = tl.load(latents + at, inside, 0.0)
    kept = tl.load(stages + rows, rows < num_rows, 0)
    for stage in range(tl.minimum(tl.max(kept, axis=0), depth)):
        live = stage < kept
        first = (stage * num_codes).to(tl.int64)
        code, settled = _screen_stage(
            residual, codebooks, bias + first, half_codes, code_scales + first, extremes + stage * 3,
            first, num_codes, DIM, ROWS, CODES, WIDTH, BITS,
        )  # fmt: skip
        if tl.max((live & ~settled).to(tl.int32), axis=0) > 0:
            # Through memory: in registers, a second copy of the residual has no room.
            tl.debug_barrier()
            tl.store(residuals + at, residual, inside)
            tl.debug_barrier()
            _, scanned = scan_codes(
                residuals, tl.minimum(rows, num_rows - 1), codebooks + first * DIM, bias + first,
                0, num_codes, num_codes, DIM, ROWS, SCAN_CODES, SCAN_WIDTH,
            )  # fmt: skip
            code = tl.where(settled, code, scanned)
        taken = _rows_of(codebooks, first + code, live[:, None] & (features < DIM)[None, :], DIM, WIDTH)
        residual -= taken
        tl.store(quantized + at, tl.load(quantized + at, inside, 0.0) + taken, inside & live[:, None])
        tl.store(ids + rows * depth + stage, code.to(tl.int64), live)
        tl.store(errors + rows * depth + stage, tl.sum(residual * residual, axis=1), live)


@triton.jit
def _rows_of(codebooks, codes, inside, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Codes of the stack of codebooks: (ROWS,) -> (ROWS, WIDTH)."""
    features = tl.arange(0, WIDTH)
    return tl.load(codebooks + codes[:, None] * DIM + features[None, :], inside, 0.0)


@triton.jit
def _screen_stage(
    residual, codebooks, bias, half_codes, code_scales, extremes, stage_start, num_codes,
    DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """The nearest code by halves, decided in float32 among three; and whether it is proved (ROWS,)."""
    features = tl.arange(0, WIDTH)
    inverse = inverse_of(power_below(tl.max(tl.abs(residual), axis=1)))
    scaled = residual * inverse[:, None]
    half = scaled.to(half_codes.dtype.element_ty)
    kept = half.to(tl.float32)
    length = tl.sqrt(tl.sum(kept * kept, axis=1))
    rest = tl.sqrt(tl.sum((scaled - kept) * (scaled - kept), axis=1))
    best = tl.full((ROWS, CODES), float("-inf"), tl.float32)
    beaten = best
    for start in range(0, num_codes, CODES):
        codes = start + tl.arange(0, CODES)
        near = tl.minimum(codes, num_codes - 1)
        tile = tl.load(
            half_codes + (stage_start + near)[None, :] * DIM + features[:, None],
            (features < DIM)[:, None],
            0.0,
        )
        scores = tl.dot(half, tile) * tl.load(code_scales + near)[None, :]
        scores += tl.load(bias + near)[None, :] * inverse[:, None]
        best, beaten = overtake_roughly(scores, codes, num_codes, best, beaten, CODES, BITS)
    first, second, third, lead = three_winners(best, beaten, num_codes, CODES, BITS)
    score = _score(residual, codebooks, bias, stage_start, first, DIM, WIDTH)
    score, code = nearer(
        score, first, _score(residual, codebooks, bias, stage_start, second, DIM, WIDTH), second
    )
    score, code = nearer(
        score, code, _score(residual, codebooks, bias, stage_start, third, DIM, WIDTH), third
    )
    return code, lead > 2 * score_error(length, rest, inverse, extremes, DIM, BITS)


@triton.jit
def _score(residual, codebooks, bias, stage_start, codes, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """The float32 score of one code for each row: (ROWS,)."""
    inside = (tl.arange(0, WIDTH) < DIM)[None, :]
    some = _rows_of(codebooks, stage_start + codes, inside, DIM, WIDTH)
    return tl.load(bias + codes) + tl.sum(residual * some, axis=1)
