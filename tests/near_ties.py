"""Inputs for searches, and how far a found code is from the nearest: ids alone may differ where codes tie."""

from __future__ import annotations

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lattice(*shape: int, seed: int = 0) -> Tensor:
    """-1, 0 and 1: every score is exact in any precision, and many tie."""
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def euclidean(codebook: Tensor) -> Tensor:
    """The bias of a search for the least distance: (K, D) -> (K,)."""
    return codebook.square().sum(dim=1) / -2


def score_gap(latents: Tensor, codebook: Tensor, ids: Tensor) -> float:
    """By how much the chosen scores (N,) miss the best ones, in float64, relative to |z| |e|."""
    latents, codebook = latents.double(), codebook.double()
    scores = latents @ codebook.T + euclidean(codebook)
    missed = scores.amax(dim=1) - scores.gather(1, ids[:, None])[:, 0]
    return float((missed / (latents.norm(dim=1) * codebook.norm(dim=1).max())).max())
