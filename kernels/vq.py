"""Nearest code of a codebook: signature, torch reference, fast torch, choice of path."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from . import certified
from .paths import chosen_path
from .precision import full_products, register_in_float32, without_autocast, working_dtype
from .recording import is_recorded

Metric = Literal["euclidean", "dot"]

# Scores in flight at a time (4 MiB in float32): codes stay in cache, and no N x K matrix is ever made.
TILE_ELEMENTS = 1 << 20
LEAST_ROWS = 256
# Codes that share one maximum in the first pass. A row's maximum is vectorised, its argmax is not: only the
# winning block is searched for the index.
BLOCK_CODES = 64


def nearest_code(latents: Tensor, codebook: Tensor, *, metric: Metric = "euclidean") -> Tensor:
    """Index of the code closest to each latent; ties go to the lowest index.

    Computed in float32 at least, under any autocast; float64 stays float64. Memory grows with N + K, never
    with N x K. A latent that holds NaN gets index 0; a codebook that does has no nearest code. Where two
    codes score within 1e-6 (|z| |e| + |e|^2) of each other, with the longest e, float32 may take either
    (1.2e-7 D at worst, where all products have one sign); copies of a code tie exactly.

    latents   (..., D) float
    codebook  (K, D)   float
    metric    "euclidean": least |z - e|^2, found as the largest z.e - |e|^2 / 2; "dot": largest z.e
    returns   (...)    int64 in [0, K), without gradient

    Raises ValueError when the shapes do not fit together, the codebook is empty or the metric unknown.
    """
    _check_inputs(latents, codebook, metric)
    dtype = working_dtype(latents, codebook)
    with without_autocast(latents.device):
        flat = latents.detach().reshape(-1, latents.shape[-1]).to(dtype)
        codebook = codebook.detach().to(dtype)
        search = nearest_op if is_recorded(flat, codebook) else nearest
        return search(flat, codebook, metric).reshape(latents.shape[:-1])


def _check_inputs(latents: Tensor, codebook: Tensor, metric: str) -> None:
    if codebook.ndim != 2 or 0 in codebook.shape:
        raise ValueError(f"codebook of shape {tuple(codebook.shape)}; expected (K, D) with K >= 1 and D >= 1")
    if latents.ndim == 0 or latents.shape[-1] != codebook.shape[1]:
        raise ValueError(
            f"latents of shape {tuple(latents.shape)} against a codebook of shape {tuple(codebook.shape)}; "
            f"expected (..., {codebook.shape[1]}): move the features to the last axis"
        )
    for name, tensor in (("latents", latents), ("codebook", codebook)):
        if not tensor.is_floating_point():
            raise ValueError(f"{name} of dtype {tensor.dtype}; expected a floating point tensor")
    if metric not in get_args(Metric):
        raise ValueError(f"metric {metric!r}; expected {' or '.join(map(repr, get_args(Metric)))}")


def nearest(latents: Tensor, codebook: Tensor, metric: str) -> Tensor:
    """What the operator does: (N, D) and (K, D) of one dtype -> (N,) int64."""
    path = chosen_path(latents)
    if path == "triton":
        from .vq_triton import nearest_triton

        return nearest_triton(latents, codebook, metric == "euclidean")
    bias = _half_squares(codebook).neg_() if metric == "euclidean" else codebook.new_zeros(len(codebook))
    num_codes = len(codebook)
    if num_codes % BLOCK_CODES:
        codebook, bias = _whole_blocks(codebook, bias)
    with full_products():
        found = (nearest_reference if path == "reference" else nearest_torch)(latents, codebook, bias)
    return found.clamp_(max=num_codes - 1)  # infinity times the zeros that were added is NaN, and leads


nearest_op = torch.library.custom_op("tokenzoo::nearest_code", mutates_args=())(nearest)


@nearest_op.register_fake
def _(latents: Tensor, codebook: Tensor, metric: str) -> Tensor:
    return latents.new_empty(latents.shape[0], dtype=torch.int64)


register_in_float32("tokenzoo::nearest_code")


def _half_squares(codebook: Tensor) -> Tensor:
    """|e|^2 / 2 of each code, some codes at a time: (K, D) -> (K,)."""
    parts = codebook.split(max(1, TILE_ELEMENTS // codebook.shape[1]))
    squares = [part.square().sum(dim=1) for part in parts]
    return (torch.cat(squares) if len(squares) > 1 else squares[0]).mul_(0.5)


def nearest_reference(latents: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    """What the fast paths compute: (N, D), (K, D), (K,) -> (N,). Holds all N x K scores."""
    scores = latents @ codebook.T + bias
    return torch.where(latents.isnan().any(dim=1), 0, scores.argmax(dim=1))


def nearest_torch(latents: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    """Tiles of rows against all codes, in bfloat16 first where that pays: (N, D), (K, D), (K,) -> (N,).

    K is a multiple of BLOCK_CODES: `nearest` sees to it.
    """
    if certified.pays(latents, codebook):
        search = certified.CertifiedSearch(codebook, bias, tile_shape(len(codebook)))
        found = search(latents)
        if found is not None:
            return found
    return _nearest_in_tiles(latents, codebook, bias)


def _nearest_in_tiles(latents: Tensor, codebook: Tensor, bias: Tensor) -> Tensor:
    rows, columns = tile_shape(len(codebook))
    room = latents.new_empty(min(rows, len(latents)) * min(columns, len(codebook)))
    ids = torch.empty(len(latents), dtype=torch.int64, device=latents.device)
    for tile, found in zip(latents.split(rows), ids.split(rows), strict=True):
        best: Tensor | None = None
        for start in range(0, len(codebook), columns):
            codes = codebook[start : start + columns]
            scores = room[: len(tile) * len(codes)].view(len(tile), len(codes))
            torch.addmm(bias[start : start + columns], tile, codes.T, out=scores)
            value, index = _two_level_max(scores)
            if best is None:
                best = value
                found.copy_(index)
            else:
                better = value > best
                best = torch.where(better, value, best)
                found.copy_(torch.where(better, index + start, found))
    return ids


def tile_shape(num_codes: int) -> tuple[int, int]:
    """Rows and columns of a tile: enough rows that a product is worth laying out its codes."""
    rows = max(LEAST_ROWS, TILE_ELEMENTS // num_codes)
    return rows, max(1, TILE_ELEMENTS // rows // BLOCK_CODES) * BLOCK_CODES


def _whole_blocks(codebook: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Codebook and bias padded to a multiple of BLOCK_CODES; what is added can never win.

    Products sum the last columns in another order than the rest, so that copies of a code would not tie.
    """
    missing = -len(codebook) % BLOCK_CODES
    codebook = torch.cat([codebook, codebook.new_zeros(missing, codebook.shape[1])])
    return codebook, torch.cat([bias, bias.new_full((missing,), -torch.inf)])


def _two_level_max(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Value and index of the first maximum of each row (M, K): the best block, then the best code in it."""
    rows, count = len(scores), scores.shape[1] // BLOCK_CODES
    blocks = scores.view(rows, count, BLOCK_CODES)
    value, best = blocks.amax(dim=2).max(dim=1)
    # Several times faster on a CPU than blocks[row, best].
    place = torch.arange(rows, device=scores.device) * count + best
    winners = blocks.view(rows * count, BLOCK_CODES).index_select(0, place)
    return value, best * BLOCK_CODES + winners.max(dim=1).indices
