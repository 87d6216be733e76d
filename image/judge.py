"""Photographs as an evaluation sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..zoo.judge import Example, Examples, Judge
from ..zoo.measured import Measure
from .metrics import psnr, ssim
from .pictures import find_pictures, open_array


class PictureFiles(Examples):
    """The pictures below a folder, by name, or one file."""

    def __init__(self, path: Path) -> None:
        self._paths = [path] if path.is_file() else find_pictures(path)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Example:
        path = self._paths[index]
        return Example(path, path.read_bytes())


class PictureRows(Examples):
    """The rows of a `.npy` file of uint8 (N, H, W, 3)."""

    def __init__(self, path: Path) -> None:
        self._array = open_array(path)

    def __len__(self) -> int:
        return len(self._array)

    def read(self, index: int) -> Example:
        row = np.ascontiguousarray(self._array[index])
        return Example(Image.fromarray(row), row.tobytes())


class ImageJudge(Judge):
    """PSNR and SSIM of the picture that a person would save: eight bits, at the tokenizer's size."""

    bits_per = "image"
    notes = "Pictures are resized as the tokenizer asks, and compared at that size in eight bits."

    def _available(self) -> tuple[Measure, ...]:
        return (Measure("psnr", "PSNR", "dB"), Measure("ssim", "SSIM", digits=3))

    @staticmethod
    def open(data: Path) -> Examples:
        examples = PictureRows(data) if data.suffix == ".npy" else PictureFiles(data)
        if not len(examples):
            raise ValueError(f"{data} holds no pictures")
        return examples

    def reference(self, item: Any, signal: Tensor) -> Tensor:
        return _eight_bits(signal)

    def scores(self, decoded: Tensor, reference: Tensor) -> dict[str, float]:
        seen = _eight_bits(decoded.cpu())[None]
        return {"psnr": float(psnr(seen, reference[None])[0]), "ssim": float(ssim(seen, reference[None])[0])}

    def size(self, signal: Tensor) -> float:
        return 1.0


def _eight_bits(image: Tensor) -> Tensor:
    return torch.round(image.clamp(0, 1).double() * 255) / 255
