"""The data of audio training: what a recipe says under `data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from ..zoo.batches import Batches, FirstItems
from ..zoo.held_out import held_out
from .sounds import Crops, Recordings, open_recordings


class AudioFolderData(LightningDataModule):
    """Random stretches of sound as int16 (B, C, S), at the rate and with the channels of the tokenizer.

    train             a folder, searched through for sound files, or a `.npy` file of int16 samples (S,) with
                      an index `.json` beside it, as `python -m tokenzoo.audio.speech_pool` writes them
    validation        the same, for validation; default: a share of `train`
    validation_share  of the seconds, when `validation` is not given
    hold_out          "file": whole files; "speaker": all files of a speaker, which is the first folder below
                      `train`, or "speaker" of the index
    validation_crops  at most so many are looked at, always the same
    batch_size        crops a step in each process
    crop_seconds      length of a crop, rounded up to whole tokens; silence follows a shorter sound
    num_workers       processes that read ahead; 0 reads in the training process, enough for arrays
    array_rate_hz     of a `.npy` file; default: what `provenance.json` beside it says
    seed              of order and places
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        *,
        validation_share: float = 0.02,
        hold_out: Literal["file", "speaker"] = "file",
        validation_crops: int = 64,
        batch_size: int = 16,
        crop_seconds: float = 1.0,
        num_workers: int = 0,
        array_rate_hz: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= validation_share < 1:
            raise ValueError(f"validation_share={validation_share}: expected from 0 to below 1")
        if hold_out not in ("file", "speaker"):
            raise ValueError(f"hold_out={hold_out!r}: expected 'file' or 'speaker'")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        if validation_crops < 1:
            raise ValueError(
                f"validation_crops={validation_crops}: expected at least 1; validation_share=0 does without"
            )
        if not 0 < crop_seconds <= 3600:
            raise ValueError(f"crop_seconds={crop_seconds}: expected above 0, at most 3600")
        self.train_path = Path(train).expanduser()
        self.validation_path = None if validation is None else Path(validation).expanduser()
        self.validation_share = validation_share
        self.hold_out = hold_out
        self.validation_crops = validation_crops
        self.batch_size = batch_size
        self.crop_seconds = crop_seconds
        self.num_workers = num_workers
        self.array_rate_hz = array_rate_hz
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Finds the sounds; rate, channels and hops are asked of the trainer's module."""
        module = self._module()
        samples = self._crop_samples(module)
        recordings = open_recordings(self.train_path, self.array_rate_hz)
        others = recordings
        if self.validation_path is None:
            is_held = self._is_held(recordings)
            rows, held = np.flatnonzero(~is_held), np.flatnonzero(is_held)
        else:
            others = open_recordings(self.validation_path, self.array_rate_hz)
            rows, held = np.arange(len(recordings.found)), np.arange(len(others.found))
        self._training = Crops(recordings, rows.tolist(), module.preprocess, samples)
        self._held_out = Crops(others, held.tolist(), module.preprocess, samples)
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
        return Batches(FirstItems(self._held_out, self.validation_crops), self.batch_size)

    def _is_held(self, recordings: Recordings) -> np.ndarray:
        found = recordings.found
        labels = [each.name if self.hold_out == "file" else each.speaker for each in found]
        if self.hold_out == "speaker" and not all(labels):
            raise ValueError(
                f"{self.train_path} does not say who speaks: put each speaker's files into a folder of their "
                "own, or hold out files"
            )
        is_held = held_out(labels, self.validation_share, [each.samples for each in found])
        if is_held.all():
            raise ValueError(
                f"validation_share={self.validation_share} holds out all of {self.train_path}: "
                "nothing is left to train on; give `validation`, or 0"
            )
        return is_held

    def _crop_samples(self, module: Any) -> int:
        """What whole tokens cover."""
        wanted = round(self.crop_seconds * module.preprocess.sample_rate_hz)
        tokens = module.num_tokens((max(1, wanted),))
        return int(module.default_extents(torch.tensor([tokens]))[0, 0])

    def _module(self) -> Any:
        if self.trainer is None:
            raise RuntimeError(
                "no trainer, and so no tokenizer to cut sounds for; pass the data to Trainer.fit"
            )
        return self.trainer.lightning_module
