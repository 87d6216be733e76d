"""Sums and gatherings over the ranks of a distributed run; without one, what a single rank would get.

Every rank must make the same calls in the same order, whatever its data: call them unconditionally.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from .quantizer import straight_through


def num_ranks() -> int:
    """How many processes train together; 1 without torch.distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def sum_over_ranks(*tensors: Tensor) -> list[Tensor]:
    """Each tensor summed over the ranks, without gradient, in one message.

    tensors  of any shapes, the same on every rank, and of one dtype, for they travel as one
    """
    if num_ranks() == 1:
        return [tensor.detach() for tensor in tensors]
    if len({tensor.dtype for tensor in tensors}) > 1:
        raise ValueError(f"tensors of {[tensor.dtype for tensor in tensors]}; expected one dtype: cast them")
    flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def mean_over_ranks(mean: Tensor, rows: int = 1) -> Tensor:
    """The mean over the rows of all ranks, from the mean over the rows of each.

    The gradient is that of the global mean once DistributedDataParallel has averaged over the ranks. It
    needs no message, so a rank without rows cannot hang: all ranks are taken to go on from here with the
    same loss.

    mean  float, of the same shape on every rank; ignored on a rank without rows
    rows  how many rows this rank has; they may differ
    """
    ranks = num_ranks()
    if ranks == 1:
        return mean
    local = mean * rows if rows else torch.zeros_like(mean)
    total, all_rows = sum_over_ranks(local, local.new_tensor([rows]))
    all_rows = all_rows.clamp(min=1)
    return straight_through(local * (ranks / all_rows), total / all_rows)


def broadcast_from_first(tensor: Tensor) -> Tensor:
    """The tensor of rank 0, on every rank; shapes and dtypes must agree."""
    if num_ranks() == 1:
        return tensor
    result = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.broadcast(result, src=0)
    return result


def gather(tensor: Tensor) -> Tensor:
    """The tensors of all ranks, of one shape (...), stacked in the order of the ranks: (ranks, ...)."""
    if num_ranks() == 1:
        return tensor.detach()[None]
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(num_ranks())]
    distributed.all_gather(parts, tensor.detach().contiguous())
    return torch.stack(parts)


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks in the order of the ranks: (M, D), M may differ and be 0 -> (sum of M, D).

    Waits for the device, to learn the sizes.
    """
    if num_ranks() == 1:
        return rows.detach()
    sizes: list[int] = gather(torch.tensor([len(rows)], device=rows.device)).flatten().tolist()
    padded = F.pad(rows.detach(), (0, 0, 0, max(sizes) - len(rows)))
    return torch.cat([part[:size] for part, size in zip(gather(padded), sizes, strict=True)])
