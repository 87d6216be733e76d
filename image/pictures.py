"""Pictures to train on: the files of a folder, or the rows of one array file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor

from ..zoo.batches import Source
from .captioned import CaptionedImages, read_captions
from .image_files import ImageFiles
from .preprocess import ImagePreprocess, ImageReadError, read_image

_log = logging.getLogger("tokenzoo")


class ArrayPictures(Source):
    """uint8 (B, 3, size, size) out of a uint8 array (N, H, W, 3), read from disk as they are needed.

    rows      which of them; ValueError unless H and W are at least `size`
    size      pixels along one side: the centre, or a random place
    flip      mirror half of the randomly cut ones
    captions  of the chosen rows: batches are `CaptionedImages`
    """

    def __init__(
        self, path: Path, rows: np.ndarray, size: int, flip: bool, captions: Sequence[str] | None = None
    ) -> None:
        self._array = open_array(path)
        self._rows = rows
        self._size = size
        self._flip = flip
        self._captions = captions
        height, width = self._array.shape[1:3]
        if min(height, width) < size:
            raise ValueError(f"{path} holds images of {height} x {width}: expected at least {size} x {size}")

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor | CaptionedImages:
        size = self._size
        spare_y, spare_x = self._array.shape[1] - size, self._array.shape[2] - size
        cuts = np.empty((len(indices), size, size, 3), np.uint8)
        for cut, index in zip(cuts, indices, strict=True):
            top, left = spare_y // 2, spare_x // 2
            if generator is not None and (spare_y or spare_x):
                top, left = _below(spare_y + 1, generator), _below(spare_x + 1, generator)
            cut[:] = self._array[self._rows[index], top : top + size, left : left + size]
        images = torch.from_numpy(cuts).permute(0, 3, 1, 2).contiguous()
        if self._flip and generator is not None:
            images = _mirrored(images, generator)
        return _captioned(images, self._captions, indices)


class FolderPictures(Source):
    """uint8 (B, 3, size, size) out of files; one that cannot be read is reported once, another replaces it.

    preprocess  sizes them; random cuts are squares, brought to the same size
    crop        side of the smallest random square as a share of the shorter edge
    flip        mirror half of the randomly cut ones
    captions    of the files: batches are `CaptionedImages`
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocess: ImagePreprocess,
        crop: float,
        flip: bool,
        captions: Sequence[str] | None = None,
    ) -> None:
        self._paths = list(paths)
        self._preprocess = preprocess
        self._crop = crop
        self._flip = flip
        self._captions = captions
        # Shared with the workers, so that each bad file is reported by one of them only.
        self._is_bad = torch.zeros(len(self._paths), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor | CaptionedImages:
        found = [self._read_one(index, generator) for index in indices]
        images = torch.stack([planes for _, planes in found])
        if self._flip and generator is not None:
            images = _mirrored(images, generator)
        return _captioned(images, self._captions, [index for index, _ in found])

    def _read_one(self, index: int, generator: Generator | None) -> tuple[int, Tensor]:
        """The picture at `index` or in its place, and where that is."""
        while True:
            if not self._is_bad[index]:
                try:
                    return index, self._planes(self._paths[index], generator)
                except ImageReadError as error:
                    self._is_bad[index] = True
                    _log.warning("skipped: %s", error)
            if bool(self._is_bad.all()):
                raise ImageReadError(f"none of {len(self)} pictures can be read, from {self._paths[0]} on")
            index = (index + 1) % len(self) if generator is None else _below(len(self), generator)

    def _planes(self, path: Path, generator: Generator | None) -> Tensor:
        image = read_image(path)
        if generator is not None:
            image = _random_square(ImageOps.exif_transpose(image), self._crop, generator)
        return self._preprocess(image).mul(255).round().to(torch.uint8)


def open_pictures(
    path: Path,
    rows: np.ndarray | None,
    preprocess: ImagePreprocess,
    *,
    crop: float = 1.0,
    flip: bool = False,
    captions: bool = False,
) -> Source:
    """The pictures of a folder or a `.npy` file; `rows` chooses some, in the order of `source_labels`.

    captions  with the texts that `read_captions` finds
    """
    texts = read_captions(path, source_labels(path)) if captions else None
    if texts is not None and rows is not None:
        texts = [texts[row] for row in rows]
    if path.suffix == ".npy":
        if preprocess.size is None:
            raise ValueError(f"{path}: this tokenizer takes pictures of any size; train it on a folder")
        rows = np.arange(len(open_array(path))) if rows is None else rows
        return ArrayPictures(path, rows, preprocess.size, flip, texts)
    paths = find_pictures(path)
    paths = paths if rows is None else [paths[row] for row in rows]
    return FolderPictures(paths, preprocess, crop, flip, texts)


def open_array(path: Path) -> np.ndarray:
    """A memory map of uint8 (N, H, W, 3); ValueError for any other content."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy file ({error})") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        raise ValueError(f"{path} holds {array.dtype} {array.shape}: expected uint8 (N, H, W, 3)")
    return array


def find_pictures(folder: Path) -> list[Path]:
    """Every picture file below a folder, in the order of their names; ValueError when there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected a folder of pictures or a .npy file")
    paths = [path for path, _ in ImageFiles().find([folder])]
    if not paths:
        raise ValueError(f"{folder} holds no pictures ({', '.join(ImageFiles.suffixes)})")
    return paths


def source_labels(path: Path) -> list[str]:
    """Which photograph each picture was cut from: its file; for array rows "" where nothing says it."""
    if path.suffix != ".npy":
        return [each.relative_to(path).as_posix() for each in find_pictures(path)]
    count = len(open_array(path))
    beside = path.with_suffix(".sources.npy")
    if not beside.is_file():
        return [""] * count
    labels = [str(label) for label in np.load(beside, allow_pickle=False).tolist()]
    if len(labels) != count:
        raise ValueError(f"{beside} names {len(labels)} sources: {path} has {count} rows")
    return labels


def _captioned(
    images: Tensor, captions: Sequence[str] | None, indices: Sequence[int]
) -> Tensor | CaptionedImages:
    if captions is None:
        return images
    return CaptionedImages(images, tuple(captions[index] for index in indices))


def _random_square(image: Image.Image, smallest: float, generator: Generator) -> Image.Image:
    """A square of `smallest` ... 1 times the shorter edge, anywhere in the picture."""
    share = smallest + (1 - smallest) * float(torch.rand((), generator=generator))
    side = max(1, round(share * min(image.size)))
    left, top = (_below(edge - side + 1, generator) for edge in image.size)
    return image.crop((left, top, left + side, top + side))


def _mirrored(images: Tensor, generator: Generator) -> Tensor:
    chosen = torch.rand(len(images), generator=generator) < 0.5
    images[chosen] = images[chosen].flip(-1)
    return images


def _below(limit: int, generator: Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))
