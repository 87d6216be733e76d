"""Counts and sums of the latents of each code: signature, torch reference, fast torch, choice of path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .paths import chosen_path
from .precision import register_in_float32, without_autocast, working_dtype
from .recording import is_recorded


@dataclass(frozen=True, eq=False)
class CodeStatistics:
    """What a moving average of a codebook needs to know of a batch.

    counts  (K,)    float, how many latents have each code; exact up to 2**24
    sums    (K, D)  float, the sum of those latents
    """

    counts: Tensor
    sums: Tensor


def code_statistics(
    latents: Tensor, ids: Tensor, num_codes: int, *, deterministic: bool = False
) -> CodeStatistics:
    """Counts and sums per code, in O(N D) time and O(K D) memory: no N x K matrix of zeros and ones is made.

    Computed in float32 at least, under any autocast, without gradient. Latents with a negative id are left
    out, whatever they hold.

    latents        (..., D) float
    ids            (...)    int64 in [0, K), or negative
    deterministic  add in a fixed order on CUDA too, where the torch path does not; the others always do

    Raises ValueError when the shapes or dtypes do not fit; an id of K or more fails where indices fail.
    """
    if latents.ndim == 0 or latents.shape[:-1] != ids.shape:
        raise ValueError(
            f"ids of shape {tuple(ids.shape)} for latents of shape {tuple(latents.shape)}; "
            "expected one id for each latent: (...) and (..., D)"
        )
    if not latents.is_floating_point() or ids.dtype != torch.int64:
        raise ValueError(f"latents of {latents.dtype}, ids of {ids.dtype}; expected floats and int64")
    if num_codes < 1:
        raise ValueError(f"num_codes={num_codes}: expected at least 1")
    with without_autocast(latents.device):
        flat = latents.detach().reshape(-1, latents.shape[-1]).to(working_dtype(latents))
        count = statistics_op if is_recorded(flat, ids) else _statistics
        return CodeStatistics(*count(flat, ids.reshape(-1), num_codes, deterministic))


def code_counts(ids: Tensor, num_codes: int) -> Tensor:
    """How often each code occurs, negative ids left out: (...) int64 -> (num_codes,) int64.

    Without waiting for the device, which `torch.bincount` does.
    """
    bins = _bins(ids.reshape(-1), num_codes)
    return bins.new_zeros(num_codes + 1).index_add_(0, bins, torch.ones_like(bins))[:num_codes]


def _statistics(latents: Tensor, ids: Tensor, num_codes: int, deterministic: bool) -> tuple[Tensor, Tensor]:
    """What the operator does: (N, D) float and (N,) int64 -> counts (K,), sums (K, D) in its dtype."""
    path = chosen_path(latents)
    if path == "triton":
        from .statistics_triton import statistics_triton

        return statistics_triton(latents, ids, num_codes)
    if path == "torch" and latents.device.type == "cpu":
        return statistics_cpu(latents, ids, num_codes)
    if path == "reference":
        sums = sums_reference(latents, ids, num_codes)
    elif deterministic and latents.is_cuda:
        sums = sums_sorted(latents, ids, num_codes)
    else:
        sums = sums_torch(latents, ids, num_codes)
    return code_counts(ids, num_codes).to(latents.dtype), sums


statistics_op = torch.library.custom_op("tokenzoo::code_statistics", mutates_args=())(_statistics)


@statistics_op.register_fake
def _(latents: Tensor, ids: Tensor, num_codes: int, deterministic: bool) -> tuple[Tensor, Tensor]:
    return latents.new_empty(num_codes), latents.new_empty(num_codes, latents.shape[1])


register_in_float32("tokenzoo::code_statistics")


def statistics_cpu(latents: Tensor, ids: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Counts (K,) and sums (K, D), in the order of the rows; here nothing is lost by looking at the ids."""
    if len(ids) and int(ids.min()) < 0:
        there = ids >= 0
        latents, ids = latents[there], ids[there]
    sums = latents.new_zeros(num_codes, latents.shape[1]).index_add_(0, ids, latents)
    return torch.bincount(ids, minlength=num_codes).to(latents.dtype), sums


def sums_reference(latents: Tensor, ids: Tensor, num_codes: int) -> Tensor:
    """What the fast paths compute, code by code: (N, D), (N,) -> (K, D)."""
    return torch.stack([latents[ids == code].sum(dim=0) for code in range(num_codes)])


def sums_torch(latents: Tensor, ids: Tensor, num_codes: int) -> Tensor:
    """One pass over the rows; in their order on the CPU, by atomics on CUDA: (N, D), (N,) -> (K, D)."""
    sums = latents.new_zeros(num_codes + 1, latents.shape[1])
    return sums.index_add_(0, _bins(ids, num_codes), latents)[:num_codes]


def sums_sorted(latents: Tensor, ids: Tensor, num_codes: int) -> Tensor:
    """The rows of a code lie together once sorted, and are added in order: (N, D), (N,) -> (K, D)."""
    bins, order = _bins(ids, num_codes).sort(stable=True)
    starts = torch.searchsorted(bins, torch.arange(num_codes + 1, device=ids.device))
    return F.embedding_bag(order, latents, starts, mode="sum")[:num_codes]


def _bins(ids: Tensor, num_codes: int) -> Tensor:
    """Bin K takes the negative ids; an id of K or more, one bin further, has none and fails."""
    return torch.where(ids < 0, num_codes, ids + (ids >= num_codes))
