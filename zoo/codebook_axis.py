"""The codebook axis: values of several codebooks end in it, (..., Q); those of one codebook have none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .quantizer import Quantizer


def add_axis(values: Tensor, quantizer: Quantizer) -> Tensor:
    """Values as `quantizer` gives them -> (..., Q), also for Q = 1."""
    return values.unsqueeze(-1) if len(quantizer.codebook_sizes) == 1 else values


def drop_axis(values: Tensor, quantizer: Quantizer) -> Tensor:
    """(..., Q), also for Q = 1 -> values as `quantizer` takes them."""
    return values.squeeze(-1) if len(quantizer.codebook_sizes) == 1 else values


def stack_usage(usages: Sequence[Tensor | None]) -> Tensor | None:
    """(K,) or (Q, K) counts of the parts -> (sum of Q, largest K), or (K,) of a single codebook.

    Smaller codebooks are padded with 0. None if a part has no counts.
    """
    counted = [torch.atleast_2d(usage) for usage in usages if usage is not None]
    if len(counted) < len(usages):
        return None
    largest = max(usage.shape[1] for usage in counted)
    stacked = torch.cat([F.pad(usage, (0, largest - usage.shape[1])) for usage in counted])
    return stacked if len(stacked) > 1 else stacked[0]


def check_discrete(quantizer: Quantizer) -> None:
    """ValueError for a quantizer without codebooks."""
    if not quantizer.codebook_sizes:
        raise ValueError(f"{type(quantizer).__name__} is continuous: expected a quantizer with codebooks")
