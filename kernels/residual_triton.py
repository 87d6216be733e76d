"""Residual vector quantization in one Triton launch: the residual stays on the chip between the stages."""

# pyright: reportCallIssue=false, reportArgumentType=false
# See vq_triton.py.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .residual import Walk, residual_torch
from .vq_triton import SCREEN_ABOVE_DIM, Tiles, better, padded

# A residual, a sum and a tile of codes of this width fit in registers.
FUSED_UP_TO_DIM = 128
# From here on the tensor cores save more, in a search for each stage, than one launch does (an estimate).
STAGEWISE_FROM_ROWS = 16_384


def residual_tiles(num_rows: int, dim: int) -> Tiles:
    """Few rows are spread over more programs."""
    width = padded(dim)
    rows = 16 if num_rows <= 2048 else 4096 // max(width, 64)
    return Tiles(rows=rows, codes=64, width=width, warps=4, stages=2)


def residual_triton(latents: Tensor, codebooks: Tensor, stages: Tensor) -> Walk:
    """Quantized (N, D), ids (N, Q) and squared errors (N, Q) of (N, D) and (Q, K, D) float32, (N,) int64.

    The first stages[n] stages of row n are taken; the others have id -1, error 0 and add nothing. Scores are
    float32, ties go to the lowest index, codes are added in the order of the stages.
    """
    (num_rows, dim), (num_stages, num_codes, _) = latents.shape, codebooks.shape
    if dim > FUSED_UP_TO_DIM or (dim > SCREEN_ABOVE_DIM and num_rows >= STAGEWISE_FROM_ROWS):
        return residual_torch(latents, codebooks, stages)
    latents, codebooks, stages = latents.contiguous(), codebooks.contiguous(), stages.contiguous()
    quantized = torch.empty_like(latents)
    ids = latents.new_full((num_rows, num_stages), -1, dtype=torch.int64)
    errors = latents.new_zeros(num_rows, num_stages)
    tiles = residual_tiles(num_rows, dim)
    with torch.cuda.device_of(latents):
        if num_rows:
            _walk[(triton.cdiv(num_rows, tiles.rows),)](
                latents, codebooks, codebooks.square().sum(dim=2).mul_(-0.5), stages, quantized, ids, errors,
                num_rows, num_stages, num_codes,
                DIM=dim, ROWS=tiles.rows, CODES=tiles.codes, WIDTH=tiles.width,
                num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
    return quantized, ids, errors


@triton.jit
def _walk(
    latents, codebooks, bias, stages, quantized, ids, errors, num_rows, depth, num_codes,
    DIM: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = rows < num_rows
    features = tl.arange(0, WIDTH)
    inside = real[:, None] & (features < DIM)[None, :]
    at = rows[:, None] * DIM + features[None, :]
    residual = tl.load(latents + at, inside, 0.0)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    kept = tl.load(stages + rows, real, 0)
    for stage in range(tl.minimum(tl.max(kept, axis=0), depth)):
        first = stage * num_codes
        best = tl.full((ROWS,), float("-inf"), tl.float32)
        best_code = tl.zeros((ROWS,), tl.int32)
        for start in range(0, num_codes, CODES):
            codes = start + tl.arange(0, CODES)
            near = first + tl.minimum(codes, num_codes - 1).to(tl.int64)
            tile = tl.load(
                codebooks + near[None, :] * DIM + features[:, None], (features < DIM)[:, None], 0.0
            )
            scores = tl.dot(residual, tile, input_precision="ieee")
            scores += tl.load(bias + first + codes, codes < num_codes, float("-inf"))[None, :]
            best, best_code = better(scores, start, best, best_code)
        live = stage < kept
        chosen = (first + best_code.to(tl.int64))[:, None] * DIM + features[None, :]
        code = tl.load(codebooks + chosen, inside & live[:, None], 0.0)
        residual -= code
        total += code
        tl.store(ids + rows * depth + stage, best_code.to(tl.int64), live)
        tl.store(errors + rows * depth + stage, tl.sum(residual * residual, axis=1), live)
    tl.store(quantized + at, total, inside)
