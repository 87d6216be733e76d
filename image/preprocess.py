"""One picture of any kind to one float32 (3, H, W) tensor in [0, 1], sized as the official model sizes it."""

from __future__ import annotations

import functools
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 89_478_485
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
# What Pillow's readers raise on damaged files besides UnidentifiedImageError; RuntimeError is AVIF's.
_DAMAGED = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")


class ImageReadError(ValueError):
    """A file that is no readable picture; the message names it."""


@dataclass(frozen=True)
class ImagePreprocess:
    """Resize and crop; weightless and picklable.

    size           side of the square result in pixels; None keeps the picture's own size
    resize         "shorter_edge": the shorter edge becomes `size`, then the centre is cut out;
                   "squash": both edges become `size`, whatever the proportions;
                   "halving": as ADM does (arXiv 2105.05233). Pixels are averaged two by two while the shorter
                   edge has at least twice `size`; the rest as in "shorter_edge", but for the rounding
    interpolation  "bicubic", "bilinear", "lanczos" or "box", all with antialiasing (Pillow's filters)
    background     RGB that shows through where a picture is transparent

    Takes a path, a PIL image, a uint8, uint16 or float array (H, W), (H, W, 1|3|4), or a tensor (C, H, W) of
    the same types; floats are in [0, 1]. EXIF orientation is applied, greyscale and palettes become RGB, 16
    bits are scaled to [0, 1] without passing through 8 (but Pillow reads colour files at 8 bits). Of an
    animation the first frame counts. A tensor of the right size passes unchanged.
    """

    size: int | None = 256
    resize: Literal["shorter_edge", "squash", "halving"] = "shorter_edge"
    interpolation: Literal["bicubic", "bilinear", "lanczos", "box"] = "bicubic"
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= 8192:
            raise ValueError(f"size={self.size}: expected 1 ... 8192 pixels, or None")
        if self.resize not in ("shorter_edge", "squash", "halving"):
            raise ValueError(f"resize={self.resize!r}: expected 'shorter_edge', 'squash' or 'halving'")
        if self.interpolation not in _FILTERS:
            raise ValueError(f"interpolation={self.interpolation!r}: expected one of {', '.join(_FILTERS)}")
        if len(self.background) != 3 or any(not 0 <= level <= 255 for level in self.background):
            raise ValueError(f"background={self.background!r}: expected three levels from 0 to 255")

    def __call__(self, item: Any) -> Tensor:
        """float32 (3, size, size) in [0, 1]. Raises ImageReadError, ValueError or TypeError."""
        if isinstance(item, str | os.PathLike):
            item = read_image(item)
        if isinstance(item, Image.Image):
            return self._planes_of_image(item)
        if isinstance(item, Tensor):
            return self._planes_of_array(_channels_last(item))
        if isinstance(item, np.ndarray):
            return self._planes_of_array(item)
        raise TypeError(f"picture is a {type(item).__name__}: expected a path, PIL image, array or tensor")

    def _planes_of_image(self, image: Image.Image) -> Tensor:
        _check_pixels(image.size, "picture")
        try:
            image = ImageOps.exif_transpose(image)
        except _DAMAGED as error:
            raise ImageReadError(f"picture cannot be loaded ({error})") from error
        if image.mode in _WIDE_MODES:
            return self._planes_of_array(_wide_to_float(image))
        image = self._flatten(image)
        image = self._resized(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)

    def _flatten(self, image: Image.Image) -> Image.Image:
        """RGB without transparency."""
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("RGBA")
            canvas = Image.new("RGBA", image.size, (*self.background, 255))
            image = Image.alpha_composite(canvas, image)
        return image.convert("RGB")

    def _planes_of_array(self, array: np.ndarray) -> Tensor:
        """(H, W), (H, W, C) of uint8, uint16 or float to the finished tensor."""
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
            raise ValueError(
                f"picture has shape {array.shape}: expected (H, W) or (H, W, 1|3|4) for arrays, "
                "(C, H, W) for tensors"
            )
        _check_pixels((array.shape[1], array.shape[0]), "picture")
        if array.dtype == np.uint8:
            picture = array[..., 0] if array.shape[2] == 1 else array
            return self._planes_of_image(Image.fromarray(np.ascontiguousarray(picture)))
        values = _unit_floats(array)
        if values.shape[2] == 4:
            alpha, back = values[..., 3:], np.asarray(self.background, np.float32) / 255
            values = values[..., :3] * alpha + back * (1 - alpha)
        values = np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values
        # Pillow's filters work on one float plane at a time; bicubic overshoots, as it would not in 8 bits.
        planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in values.transpose(2, 0, 1)]
        return torch.from_numpy(np.stack([np.asarray(self._resized(p)) for p in planes])).clamp_(0, 1)

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        while self.resize == "halving" and min(image.size) >= 2 * self.size:
            image = image.resize((image.width // 2, image.height // 2), _FILTERS["box"])
        width, height = image.size
        if self.resize == "squash":
            target = (self.size, self.size)
        elif self.resize == "halving":
            scale = self.size / min(width, height)
            target = (round(width * scale), round(height * scale))
        elif width <= height:
            target = (self.size, int(self.size * height / width))
        else:
            target = (int(self.size * width / height), self.size)
        _check_pixels(target, "resized picture")
        if target != image.size:
            image = image.resize(target, _FILTERS[self.interpolation])
        left, top = (target[0] - self.size) / 2.0, (target[1] - self.size) / 2.0
        # torchvision's CenterCrop rounds, ties to even; ADM cuts off.
        left, top = (int(left), int(top)) if self.resize == "halving" else (round(left), round(top))
        return image.crop((left, top, left + self.size, top + self.size))


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """A picture from a file, fully loaded.

    ImageReadError names the file when it is missing, no picture, damaged, truncated or too large.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_formats()) as image:
                _check_pixels(image.size, str(path))
                image.load()
                return image.copy() if image.getexif() else image
    except FileNotFoundError as error:
        raise ImageReadError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ImageReadError(f"{path}: is a folder, expected a picture") from error
    except UnidentifiedImageError as error:
        raise ImageReadError(f"{path}: not a picture of a known format ({', '.join(FORMATS)})") from error
    except _DAMAGED as error:
        raise ImageReadError(f"{path}: cannot be read as a picture ({error})") from error


def to_image(signal: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] to an 8-bit PIL image, clamped and rounded to the nearest level."""
    levels = signal.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow reads: AVIF came with 11.3, and Image.open fails on unknown names."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _channels_last(tensor: Tensor) -> np.ndarray:
    if tensor.ndim not in (2, 3):
        raise ValueError(
            f"picture has shape {tuple(tensor.shape)}: expected (C, H, W), one picture at a time"
        )
    array = tensor.detach().cpu()
    if array.dtype == torch.bfloat16:
        array = array.float()
    return array.numpy() if array.ndim == 2 else np.moveaxis(array.numpy(), 0, 2)


def _wide_to_float(image: Image.Image) -> np.ndarray:
    """16- and 32-bit greyscale to floats in [0, 1]."""
    array = np.asarray(image)
    if image.mode == "F":
        return array
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= 65535:
        raise ValueError(
            f"picture holds {array.min()} ... {array.max()}: expected 16-bit values from 0 to 65535"
        )
    return array.astype(np.float32) / 65535


def _unit_floats(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        return array.astype(np.float32) / 65535
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"picture is {array.dtype}: expected uint8, uint16 or floats in [0, 1]")
    if not np.isfinite(array).all():
        raise ValueError("picture holds NaN or infinity")
    low, high = float(array.min()), float(array.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            f"picture holds {low:g} ... {high:g}: floats are expected in [0, 1]; divide by 255 first"
        )
    return array.astype(np.float32)


def _check_pixels(size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageReadError(f"{what} has {size[0]} x {size[1]} pixels: more than {MAX_PIXELS} are refused")
