"""Numbers that autocast must not touch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which operations on `device` keep the dtype of their inputs.

    The official decorators switch off the autocast of CUDA alone; this one follows the device. Devices
    without autocast (meta) need nothing.
    """
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype quantizers compute in: the widest of the tensors, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def register_in_float32(name: str) -> None:
    """Autocast on any device hands the operator `name` its floats in float32; float64 stays as it is."""
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(name, device, torch.float32)
