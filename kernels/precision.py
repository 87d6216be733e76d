"""Numbers that autocast must not touch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which operations on `device` keep the dtype of their inputs.

    The official decorators switch off the autocast of CUDA alone; this one follows the device. Devices
    without autocast (meta) need nothing.
    """
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
