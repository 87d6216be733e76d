"""Images to train on: a folder of pictures or one array file, in batches whose order survives an interruption."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image, ImageOps
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from .preprocess import ImagePreprocess, ImageReadError, read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
_log = logging.getLogger("tokenzoo")


class Pictures(ABC):
    """Random access to pictures of any origin."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor:
        """uint8 (B, 3, size, size); with a generator cut at random, without one as the tokenizer's preprocess."""


class ArrayPictures(Pictures):
    """Rows of a uint8 array (N, H, W, 3), read from disk as they are needed.

    rows  which of them; ValueError unless H and W are at least `size`
    """

    def __init__(self, path: Path, rows: np.ndarray, size: int) -> None:
        self._array = open_array(path)
        self._rows = rows
        self._size = size
        height, width = self._array.shape[1:3]
        if min(height, width) < size:
            raise ValueError(
                f"{path} holds images of {height} x {width}: the tokenizer takes {size} x {size} or larger"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor:
        size = self._size
        spare_y, spare_x = self._array.shape[1] - size, self._array.shape[2] - size
        cuts = np.empty((len(indices), size, size, 3), np.uint8)
        for cut, index in zip(cuts, indices, strict=True):
            top, left = spare_y // 2, spare_x // 2
            if generator is not None and (spare_y or spare_x):
                top, left = _below(spare_y + 1, generator), _below(spare_x + 1, generator)
            cut[:] = self._array[self._rows[index], top : top + size, left : left + size]
        return torch.from_numpy(cuts).permute(0, 3, 1, 2).contiguous()


class FolderPictures(Pictures):
    """Picture files. One that cannot be read is reported once and another takes its place.

    crop  side of the smallest random square as a share of the shorter edge
    """

    def __init__(self, paths: Sequence[Path], preprocess: ImagePreprocess, crop: float) -> None:
        self._paths = list(paths)
        self._preprocess = preprocess
        self._crop = crop
        # Shared with the workers, so that each bad file is reported by one of them only.
        self._is_bad = torch.zeros(len(self._paths), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor:
        return torch.stack([self._read_one(index, generator) for index in indices])

    def _read_one(self, index: int, generator: Generator | None) -> Tensor:
        while True:
            if not self._is_bad[index]:
                try:
                    return self._planes(self._paths[index], generator)
                except ImageReadError as error:
                    self._is_bad[index] = True
                    _log.warning("skipped: %s", error)
            if bool(self._is_bad.all()):
                raise ImageReadError(
                    f"none of {len(self)} pictures can be read; the first is {self._paths[0]}"
                )
            index = (index + 1) % len(self) if generator is None else _below(len(self), generator)

    def _planes(self, path: Path, generator: Generator | None) -> Tensor:
        image = read_image(path)
        if generator is not None:
            image = _random_square(ImageOps.exif_transpose(image), self._crop, generator)
        return self._preprocess(image).mul(255).round().to(torch.uint8)


@dataclass(frozen=True)
class Draw:
    """One batch: which pictures, and the seed of what is random in it (None: nothing is)."""

    indices: tuple[int, ...]
    seed: int | None


class Batches:
    """uint8 (B, 3, size, size) batches of one process, in an order that the seed and the epoch decide.

    `state_dict` says how far it got and Lightning saves it, so that a fit resumed in the middle of an epoch goes
    on with the next batch. Batches are whole: what is left over at the end of an epoch waits for another one.
    With `seed=None` the order is fixed, nothing is random, and the last batch may be short.
    """

    def __init__(
        self,
        pictures: Pictures,
        batch_size: int,
        *,
        seed: int | None = None,
        flip: bool = False,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._dataset = _Drawn(pictures, flip)
        self._batch_size = batch_size
        self._seed = seed
        self._num_workers = num_workers
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._position = 0
        if len(self) == 0:
            raise ValueError(
                f"{len(pictures)} pictures do not fill a batch of {batch_size} on each of {world_size} processes; "
                "lower batch_size"
            )

    def __len__(self) -> int:
        """Batches an epoch."""
        share = len(self._dataset.pictures) / self._world_size / self._batch_size
        return int(share) if self._seed is not None else -int(-share // 1)

    def __iter__(self) -> Iterator[Tensor]:
        """What is left of this epoch, or the next one when nothing is."""
        if self._position >= len(self):
            self._epoch += 1
            self._position = 0
        draws = self._draws()[self._position :]
        # Its own generator: the workers' seeds are not to be taken from the one that the model draws from.
        loader = DataLoader(
            self._dataset,
            sampler=draws,
            batch_size=None,
            num_workers=self._num_workers,
            generator=Generator(),
        )
        for batch in loader:
            self._position += 1
            yield batch
        if self._seed is None:
            self._position = 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "position": self._position, "length": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._position = state["epoch"], state["position"]
        if state["length"] != len(self):
            _log.warning(
                "an epoch had %d batches in the checkpoint and has %d now: a new epoch begins",
                state["length"],
                len(self),
            )
            self._position = len(self)

    def _draws(self) -> list[Draw]:
        count, size = len(self._dataset.pictures), self._batch_size
        if self._seed is None:
            mine = torch.arange(self._rank, count, self._world_size).tolist()
            return [Draw(tuple(mine[i : i + size]), None) for i in range(0, len(mine), size)]
        order = torch.randperm(count, generator=Generator().manual_seed(self._stamp(0)))
        mine = order[self._rank :: self._world_size].tolist()
        return [Draw(tuple(mine[i * size : (i + 1) * size]), self._stamp(i + 1)) for i in range(len(self))]

    def _stamp(self, step: int) -> int:
        """A seed for this step of this epoch on this process; the order itself (step 0) is the same on all."""
        words = (self._seed, self._epoch, step, self._rank if step else 0)
        return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=7).digest(), "big")


class _Drawn(Dataset):
    """Pictures by `Draw`, flipped when asked to."""

    def __init__(self, pictures: Pictures, flip: bool) -> None:
        self.pictures = pictures
        self._flip = flip

    def __getitem__(self, draw: Draw) -> Tensor:
        if draw.seed is None:
            return self.pictures.read(draw.indices, None)
        generator = Generator().manual_seed(draw.seed)
        images = self.pictures.read(draw.indices, generator)
        if self._flip:
            flipped = torch.rand(len(images), generator=generator) < 0.5
            images[flipped] = images[flipped].flip(-1)
        return images


class ImageFolderData(LightningDataModule):
    """Pictures for an image tokenizer, sized as its `preprocess` sizes them.

    train              a folder, searched through, or a `.npy` file of uint8 (N, H, W, 3). Beside `x.npy`,
                       `x.sources.npy` (N,) may say which photograph each row was cut from
    validation         the same, for validation; default: a share of `train`
    validation_share   of the pictures, when `validation` is not given. All crops of one photograph stay on one
                       side; an array without sources gives its last rows
    validation_images  at most so many are looked at
    batch_size         pictures a step in each process
    num_workers        processes that read ahead; 0 reads in the training process, which is enough for arrays
    flip               mirror half of the pictures
    crop               side of the smallest random square as a share of the shorter edge; 1 crops no closer than
                       needed. Array rows are cut at `size` pixels, anywhere
    seed               of order, flips and crops
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        *,
        validation_share: float = 0.02,
        validation_images: int = 256,
        batch_size: int = 16,
        num_workers: int = 0,
        flip: bool = True,
        crop: float = 0.6,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= validation_share < 1:
            raise ValueError(f"validation_share={validation_share}: expected from 0 to below 1")
        if not 0 < crop <= 1:
            raise ValueError(f"crop={crop}: expected above 0, at most 1")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self.train = Path(train).expanduser()
        self.validation = None if validation is None else Path(validation).expanduser()
        self.validation_share = validation_share
        self.validation_images = validation_images
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.flip = flip
        self.crop = crop
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Finds the pictures; size and preprocessing are those of the trainer's module."""
        preprocess = self._preprocess()
        if self.validation is None:
            kept, held = _split(self.train, self.validation_share)
            self._held_out = _pictures(self.train, held, preprocess, self.crop)
        else:
            kept, held = None, None
            self._held_out = _pictures(self.validation, None, preprocess, self.crop)
        self._pictures = _pictures(self.train, kept, preprocess, self.crop)

    def train_dataloader(self) -> Batches:
        trainer = self.trainer
        return Batches(
            self._pictures,
            self.batch_size,
            seed=self.seed,
            flip=self.flip,
            num_workers=self.num_workers,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def val_dataloader(self) -> Batches | list[Any]:
        """Nothing to validate on is an empty list, which Lightning skips."""
        if not len(self._held_out):
            return []
        return Batches(_First(self._held_out, self.validation_images), self.batch_size)

    def _preprocess(self) -> ImagePreprocess:
        if self.trainer is None:
            raise RuntimeError(
                "ImageFolderData takes the size of the pictures from the module: give it to Trainer.fit"
            )
        return self.trainer.lightning_module.preprocess  # pyright: ignore[reportReturnType]


class _First(Pictures):
    """An even choice of at most `count` pictures."""

    def __init__(self, pictures: Pictures, count: int) -> None:
        self._pictures = pictures
        count = min(count, len(pictures))
        self._chosen = [i * len(pictures) // count for i in range(count)]

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor:
        return self._pictures.read([self._chosen[index] for index in indices], generator)


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
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return paths


def _pictures(source: Path, rows: np.ndarray | None, preprocess: ImagePreprocess, crop: float) -> Pictures:
    if source.suffix == ".npy":
        rows = np.arange(len(open_array(source))) if rows is None else rows
        if preprocess.size is None:
            raise ValueError(
                "the tokenizer takes pictures of any size: train it on a folder, not on an array"
            )
        return ArrayPictures(source, rows, preprocess.size)
    paths = find_pictures(source)
    return FolderPictures(paths if rows is None else [paths[row] for row in rows], preprocess, crop)


def _split(source: Path, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on; the same ones every time."""
    labels = _source_labels(source)
    count = len(labels)
    wanted = round(share * count)
    if not any(labels):
        return np.arange(count - wanted), np.arange(count - wanted, count)
    sizes = Counter(labels)
    held: set[str] = set()
    for label in sorted(sizes, key=lambda name: hashlib.blake2b(name.encode()).digest()):
        if wanted <= 0:
            break
        held.add(label)
        wanted -= sizes[label]
    is_held = np.array([label in held for label in labels])
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _source_labels(source: Path) -> list[str]:
    """Which photograph each picture comes from: its file; for array rows "" where nothing says it."""
    if source.suffix != ".npy":
        return [path.relative_to(source).as_posix() for path in find_pictures(source)]
    count = len(open_array(source))
    beside = source.with_suffix(".sources.npy")
    if not beside.is_file():
        return [""] * count
    labels = [str(label) for label in np.load(beside, allow_pickle=False).tolist()]
    if len(labels) != count:
        raise ValueError(f"{beside} names {len(labels)} sources: {source} has {count} rows")
    return labels


def _random_square(image: Image.Image, smallest: float, generator: Generator) -> Image.Image:
    """A square of `smallest` ... 1 times the shorter edge, anywhere in the picture."""
    shorter = min(image.size)
    share = smallest + (1 - smallest) * float(torch.rand((), generator=generator))
    side = max(1, round(share * shorter))
    left, top = (_below(edge - side + 1, generator) for edge in image.size)
    return image.crop((left, top, left + side, top + side))


def _below(limit: int, generator: Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))
