"""Nearest code of a codebook: signature, torch reference, choice of path."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import without_autocast

# A block of distances never holds more elements than this (64 MiB in float32).
MAX_BLOCK_ELEMENTS = 1 << 24


def nearest_code(latents: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code closest to each latent, by squared distance; ties go to the lowest index.

    Computed in float32 at least, under any autocast; float64 stays float64.

    latents   (..., D) float
    codebook  (K, D)   float
    returns   (...)    int64 in [0, K)

    Raises ValueError when the shapes do not fit together or the codebook is empty.
    """
    _check_shapes(latents, codebook)
    dtype = torch.promote_types(torch.promote_types(latents.dtype, codebook.dtype), torch.float32)
    with torch.no_grad(), without_autocast(latents.device):
        flat = latents.reshape(-1, latents.shape[-1]).to(dtype)
        return _nearest_torch(flat, codebook.to(dtype)).reshape(latents.shape[:-1])


def _check_shapes(latents: Tensor, codebook: Tensor) -> None:
    if codebook.ndim != 2 or codebook.shape[0] == 0:
        raise ValueError(f"codebook of shape {tuple(codebook.shape)}; expected (K, D) with K >= 1")
    if latents.ndim == 0 or latents.shape[-1] != codebook.shape[1]:
        raise ValueError(
            f"latents of shape {tuple(latents.shape)} against a codebook of shape {tuple(codebook.shape)}; "
            f"expected (..., {codebook.shape[1]}): move the features to the last axis"
        )
    for name, tensor in (("latents", latents), ("codebook", codebook)):
        if not tensor.is_floating_point():
            raise ValueError(f"{name} of dtype {tensor.dtype}; expected a floating point tensor")


def _nearest_torch(latents: Tensor, codebook: Tensor) -> Tensor:
    """Torch reference, in blocks of at most MAX_BLOCK_ELEMENTS distances: (M, D), (K, D) -> (M,)."""
    num_codes = codebook.shape[0]
    columns = min(num_codes, MAX_BLOCK_ELEMENTS)
    rows = max(1, MAX_BLOCK_ELEMENTS // columns)
    blocks = [_nearest_in_rows(block, codebook, columns) for block in latents.split(rows)]
    return torch.cat(blocks) if len(blocks) > 1 else blocks[0]


def _nearest_in_rows(latents: Tensor, codebook: Tensor, columns: int) -> Tensor:
    latents_squared = latents.square().sum(dim=1, keepdim=True)
    best = latents.new_zeros(latents.shape[0], dtype=torch.int64)
    best_distance = latents.new_full((latents.shape[0],), torch.inf)
    for start in range(0, codebook.shape[0], columns):
        codes = codebook[start : start + columns]
        # |z|^2 + |e|^2 - 2 z.e, in this order: near-ties must fall as they do in the official code.
        distances = (latents_squared + codes.square().sum(dim=1)).sub_(latents @ codes.T, alpha=2)
        distance, index = distances.min(dim=1)
        closer = distance < best_distance
        best = torch.where(closer, index + start, best)
        best_distance = torch.where(closer, distance, best_distance)
    return best
