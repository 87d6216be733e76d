"""The data of image training: what a recipe says under `data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lightning.pytorch import LightningDataModule

from ..zoo.batches import Batches, FirstItems
from ..zoo.held_out import held_out
from .pictures import open_pictures, source_labels
from .preprocess import ImagePreprocess


class ImageFolderData(LightningDataModule):
    """Pictures as uint8 (B, 3, size, size), sized as the tokenizer's `preprocess` says.

    train              a folder, searched through, or a `.npy` file of uint8 (N, H, W, 3). Beside `x.npy`,
                       `x.sources.npy` (N,) may say which photograph each row was cut from
    validation         the same, for validation; default: a share of `train`
    validation_share   of the pictures, when `validation` is not given. All cuts of one photograph stay on
                       one side; an array without sources gives its last rows
    validation_images  at most so many are looked at
    batch_size         pictures a step in each process
    num_workers        processes that read ahead; 0 reads in the training process, enough for arrays
    flip               mirror half of the pictures
    crop               side of the smallest random square as a share of the shorter edge of a file;
                       larger array rows are cut at the tokenizer's size, anywhere
    seed               of order, flips and cuts
    captions           batches are `CaptionedImages`, for TA-TiTok and TexTok. Beside `x.png` lies `x.txt`, or
                       in the folder `captions.json`, texts by path; beside `x.npy` `x.captions.json`, a list.
                       What says left or right goes with flip: false
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
        captions: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= validation_share < 1:
            raise ValueError(f"validation_share={validation_share}: expected from 0 to below 1")
        if not 0 < crop <= 1:
            raise ValueError(f"crop={crop}: expected above 0, at most 1")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        if validation_images < 1:
            raise ValueError(
                f"validation_images={validation_images}: expected at least 1; validation_share=0 does without"
            )
        self.train_path = Path(train).expanduser()
        self.validation_path = None if validation is None else Path(validation).expanduser()
        self.validation_share = validation_share
        self.validation_images = validation_images
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.flip = flip
        self.crop = crop
        self.seed = seed
        self.captions = captions

    def setup(self, stage: str) -> None:
        """Finds the pictures; how they are sized is asked of the trainer's module."""
        preprocess = self._preprocess()
        rows = held = None
        if self.validation_path is None:
            is_held = held_out(source_labels(self.train_path), self.validation_share)
            rows, held = np.flatnonzero(~is_held), np.flatnonzero(is_held)
        self._training = open_pictures(
            self.train_path, rows, preprocess, crop=self.crop, flip=self.flip, captions=self.captions
        )
        self._held_out = open_pictures(
            self.validation_path or self.train_path, held, preprocess, captions=self.captions
        )
        if self.trainer is not None and not len(self._held_out):
            self.trainer.limit_val_batches = 0

    def train_dataloader(self) -> Batches:
        trainer = self.trainer
        return Batches(
            self._training,
            self.batch_size,
            seed=self.seed,
            num_workers=self.num_workers,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def val_dataloader(self) -> Batches:
        """Not asked for where nothing is held out."""
        return Batches(FirstItems(self._held_out, self.validation_images), self.batch_size)

    def _preprocess(self) -> ImagePreprocess:
        if self.trainer is None:
            raise RuntimeError(
                "no trainer, and so no tokenizer to size pictures for; pass the data to Trainer.fit"
            )
        return self.trainer.lightning_module.preprocess  # pyright: ignore[reportReturnType]
