"""Sums of the latents of each code in Triton, the same bits at every run: no float is added by an atomic."""

# pyright: reportCallIssue=false, reportArgumentType=false
# See vq_triton.py.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .statistics import code_counts

# Rows that one program adds. A code that is hit more often is shared out, so that none holds up the others.
PIECE_ROWS = 256
# Rows loaded at a time, and features of a program.
_STEP, _MOST_FEATURES = 16, 128


def statistics_triton(latents: Tensor, ids: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Counts (K,) and sums (K, D) float32 of (N, D) float32 and (N,) int64; negative ids are left out.

    A stable sort puts the rows of a code together, in their order, and cuts them into pieces of PIECE_ROWS.
    One launch adds the rows of each piece, the next one the pieces of each code. Nothing waits for the
    device: there are at most N / PIECE_ROWS + K pieces, and those that are too many are empty.
    """
    latents = latents.contiguous()
    with torch.cuda.device_of(latents):
        counts = code_counts(ids, num_codes)
        order = ids.argsort(stable=True)
        stops = counts.cumsum(0) + (len(ids) - counts.sum())
        pieces = (counts + PIECE_ROWS - 1) // PIECE_ROWS
        last_piece = pieces.cumsum(0)
        first_piece = last_piece - pieces

        piece = torch.arange(len(ids) // PIECE_ROWS + min(num_codes, len(ids)), device=ids.device)
        code = torch.searchsorted(last_piece, piece, right=True).clamp_(max=num_codes - 1)
        start = (stops - counts)[code] + (piece - first_piece[code]) * PIECE_ROWS
        stop = torch.minimum(start + PIECE_ROWS, stops[code])

        partial = _segment_sums(latents, order, start, stop)
        return counts.to(latents.dtype), _segment_sums(partial, None, first_piece, last_piece)


def _segment_sums(rows: Tensor, order: Tensor | None, starts: Tensor, stops: Tensor) -> Tensor:
    """Row s of the result adds rows[order[starts[s]:stops[s]]], one after the other: (M, D) -> (S, D)."""
    dim = rows.shape[1]
    sums = rows.new_empty(len(starts), dim)
    if sums.numel():
        width = min(triton.next_power_of_2(dim), _MOST_FEATURES)
        _sum_segments[(len(starts), triton.cdiv(dim, width))](
            rows, order, starts, stops, sums,
            DIM=dim, STEP=_STEP, WIDTH=width, num_warps=1 if width <= 32 else 4,
        )  # fmt: skip
    return sums


@triton.jit
def _sum_segments(
    rows, order, starts, stops, sums, DIM: tl.constexpr, STEP: tl.constexpr, WIDTH: tl.constexpr
):
    segment = tl.program_id(0).to(tl.int64)
    features = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    stop = tl.load(stops + segment)
    total = tl.zeros((STEP, WIDTH), tl.float32)
    for first in range(tl.load(starts + segment), stop, STEP):
        places = first + tl.arange(0, STEP)
        row = places
        if order is not None:
            row = tl.load(order + places, places < stop, 0)
        inside = (places < stop)[:, None] & (features < DIM)[None, :]
        total += tl.load(rows + row[:, None] * DIM + features[None, :], inside, 0.0)
    tl.store(sums + segment * DIM + features, tl.sum(total, axis=0), features < DIM)
