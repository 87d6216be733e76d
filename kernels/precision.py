"""Numbers that autocast must not touch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context, to be entered at once, in which operations on `device` keep the dtype of their inputs.

    The official decorators switch off the autocast of CUDA alone; this one follows the device. The meta
    device has no autocast.
    """
    # Where it is off already, nothing is entered: for small inputs that took as long as the work.
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
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


@contextmanager
def full_products() -> Iterator[None]:
    """Products of float32 in float32, whatever was allowed: TF32 keeps three digits, too few for scores and
    log-probabilities. The settings are the process's own: they are touched only where they allow less."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # pyright: ignore
    allowed = [
        (each, each.fp32_precision) for each in backends if each.fp32_precision not in ("none", "ieee")
    ]
    try:
        for backend, _ in allowed:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in allowed:
            backend.fp32_precision = precision
