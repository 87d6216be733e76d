"""Files of tensors that a loss reads: state dicts of torch, or safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a pickle that holds nothing else.

    what  is wanted, for the message of FileNotFoundError
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give {what}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
