"""Closed-form starts for codebooks and projections: principal axes and k-means."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ..kernels.vq import nearest_code

MAX_AXES_ROWS = 200_000


def principal_axes(rows: Tensor, dim: int) -> Tensor:
    """The first `dim` principal axes of rows whose mean is taken for zero, strongest first.

    rows     (M, D) float; at most MAX_AXES_ROWS of them, evenly spaced, are used
    returns  (D, dim), orthonormal columns
    """
    if not 1 <= dim <= rows.shape[1]:
        raise ValueError(f"dim={dim}: expected 1 ... {rows.shape[1]}, the width of the rows")
    rows = rows[:: max(1, len(rows) // MAX_AXES_ROWS)].double()
    axes = torch.linalg.eigh(rows.T @ rows / len(rows)).eigenvectors.flip(1)[:, :dim]
    # The sign of an eigenvector is free; its largest entry settles it, whatever LAPACK says.
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return (axes * largest.sign()).float().contiguous()


def kmeans(
    rows: Tensor, size: int, *, generator: Generator, rounds: int = 10, rows_per_code: int = 200
) -> Tensor:
    """A codebook by Lloyd's algorithm, from a random start; empty codes start again at a random row.

    rows           (M, D) float, M >= 1; with fewer rows than codes some codes are equal
    size           K
    rows_per_code  at most so many rows a code are used, a random choice
    returns        (K, D) float
    """
    if not len(rows):
        raise ValueError("k-means of no rows: expected at least one")
    rows = rows[torch.randperm(len(rows), generator=generator)[: rows_per_code * size]]
    codes = rows[torch.arange(size) % len(rows)].clone()
    for _ in range(rounds):
        index = nearest_code(rows, codes)
        sums = torch.zeros_like(codes).index_add_(0, index, rows)
        count = torch.bincount(index, minlength=size)[:, None]
        fresh = rows[torch.randint(len(rows), (size,), generator=generator)]
        codes = torch.where(count > 0, sums / count.clamp(min=1), fresh)
    return codes
