"""Closed-form starts for codebooks and projections: principal axes and k-means."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..kernels.statistics import code_statistics
from ..kernels.vq import nearest_code

MAX_AXES_ROWS = 200_000
# Draws of `distant_rows`; up to so many rows they are drawn one by one, which is k-means++.
MAX_DRAWS = 16


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
    rows: Tensor,
    size: int,
    *,
    generator: Generator,
    rounds: int = 10,
    rows_per_code: int = 200,
    spherical: bool = False,
    spread: bool = False,
) -> Tensor:
    """A codebook by Lloyd's algorithm, from random rows; empty codes start again at a random row.

    rows           (M, D) float, M >= 1; with fewer rows than codes some codes are equal
    size           K
    rows_per_code  at most so many rows a code are used, a random choice
    spherical      rows have length 1, and so have the codes
    spread         start from `distant_rows`: fewer clusters without a code, for the price of one more round
    returns        (K, D) float
    """
    if not len(rows):
        raise ValueError("k-means of no rows: expected at least one")
    rows = rows[torch.randperm(len(rows), generator=generator)[: rows_per_code * size]]
    if spread and size <= len(rows):
        codes = distant_rows(rows, size, generator)
    else:
        codes = rows[torch.arange(size) % len(rows)].clone()
    for _ in range(rounds):
        found = code_statistics(rows, nearest_code(rows, codes), size)
        fresh = rows[torch.randint(len(rows), (size,), generator=generator)]
        counts = found.counts[:, None]
        codes = torch.where(counts > 0, found.sums / counts.clamp(min=1), fresh)
        if spherical:
            codes = F.normalize(codes, dim=-1)
    return codes


def distant_rows(rows: Tensor, count: int, generator: Generator) -> Tensor:
    """Rows far from each other: drawn in turns, with odds by the squared distance to those drawn before.

    (M, D), count <= M -> (count, D). Source: k-means++ in few turns, as k-means|| (Bahmani et al. 2012,
    arXiv 1203.6402) has it.
    """
    odds = torch.ones(len(rows), device=rows.device)
    drawn: list[Tensor] = []
    left = count
    while left:
        turn = 1 if not drawn else min(left, -(-count // MAX_DRAWS))
        # The clocks that ring first, at rates that are the odds: a draw without repetition.
        waits = torch.empty(len(rows)).exponential_(generator=generator).to(rows.device)
        drawn.append(rows[(odds / waits).topk(turn).indices])
        left -= turn
        distances = (rows - drawn[-1][nearest_code(rows, drawn[-1])]).square().sum(dim=1)
        odds = distances if len(drawn) == 1 else torch.minimum(odds, distances)
    return torch.cat(drawn)
