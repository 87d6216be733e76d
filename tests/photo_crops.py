"""Small squares out of the photographs that ship with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import tokenzoo


def photo_crops(names: Sequence[str], count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, size, size, 3) of these photographs in turn, a quarter to all of the edge wide."""
    chance = np.random.default_rng(seed)
    folder = Path(str(tokenzoo.__file__)).parent / "image" / "samples"
    photographs = [Image.open(folder / f"{name}.jpg").convert("RGB") for name in names]
    crops = []
    for place in range(count):
        image = photographs[place % len(photographs)]
        side = int(chance.uniform(0.25, 1) * min(image.size))
        left, top = (int(chance.integers(0, edge - side + 1)) for edge in image.size)
        square = image.crop((left, top, left + side, top + side))
        crops.append(np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)))
    return np.stack(crops)
