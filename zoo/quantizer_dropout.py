"""Quantizer dropout by item: a stage works on the items that keep it; for the others its ids are -1."""

from __future__ import annotations

import torch
from torch import Tensor

from .chance import Chance, select_generators
from .codebook_axis import add_axis, drop_axis
from .quantizer import Quantized, Quantizer, straight_through


def check_lengths(lengths: Tensor | None, latents: Tensor, most: int, *, least: int = 0) -> None:
    """ValueError unless there is one count of codebooks, least ... most, for each item of the latents."""
    if lengths is None:
        return
    if latents.ndim < 2 or lengths.shape != latents.shape[:1] or lengths.dtype != torch.int64:
        raise ValueError(
            f"lengths of shape {tuple(lengths.shape)} and dtype {lengths.dtype} for latents of shape "
            f"{tuple(latents.shape)}: expected int64, one count per item of the first axis"
        )
    if lengths.device.type != "cpu":
        raise ValueError(
            f"lengths on {lengths.device}: keep them on the CPU, or every stage waits for the device"
        )
    if len(lengths) and not least <= int(lengths.min()) <= int(lengths.max()) <= most:
        raise ValueError(f"lengths {lengths.tolist()[:8]}: expected {least} ... {most} codebooks")


def quantize_items(
    stage: Quantizer, latents: Tensor, lengths: Tensor | None, end: int, chance: Chance
) -> Quantized:
    """The training pass of a stage on the items that keep `end` codebooks or more.

    The stage is called even when no item is left: under DDP the other ranks wait for its statistics.

    latents  (B, ..., D) float
    lengths  (B,) int64 on the CPU; None: all items
    returns  latents 0 and values -1 for the other items; loss a mean over all items, to which those add 0
    """
    if lengths is None or bool((lengths >= end).all()):
        return stage(latents, generator=chance)
    items = torch.nonzero(lengths >= end).flatten()
    there = items.to(latents.device, non_blocking=True)
    part = stage(latents[there], generator=select_generators(chance, items.tolist()))
    # The mean over no items is NaN; its graph stays, or DDP would miss the gradients of this stage.
    loss = part.loss * (len(items) / len(latents)) if len(items) else part.loss.nan_to_num()
    codes = _spread(part.latents, there, len(latents), 0)
    values = _spread(part.values, there, len(latents), -1)
    if not stage.training:
        # A projection may round differently for fewer items. No code has moved since, so decode is exact.
        codes = straight_through(codes, decode_kept(stage, add_axis(values, stage)))
    return Quantized(codes, values, loss, part.usage)


def _spread(part: Tensor, items: Tensor, batch: int, filler: int) -> Tensor:
    return part.new_full((batch, *part.shape[1:]), filler).index_copy(0, items, part)


def decode_kept(stage: Quantizer, columns: Tensor) -> Tensor:
    """Codes of a stage, zero where it was dropped: (..., Q) int64, Q also for one codebook -> (..., D)."""
    dropped = columns[..., :1] < 0
    return torch.where(dropped, 0, stage.decode(drop_axis(torch.where(dropped, 0, columns), stage)))
