"""What tests of audio training share: families small enough to train in a second, data and a trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import pytorch as lightning
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from tokenzoo.audio.audio_tokenizer import AudioTokenizer
from tokenzoo.audio.data import AudioFolderData
from tokenzoo.audio.training import AudioTraining
from tokenzoo.zoo.catalogue import FAMILIES

from .toys import TOYS, build_toy

LOSSES: dict[str, Any] = {"mel_windows": [16, 32], "mel_bands": [4, 8], "stft_windows": [16, 32]}
ADVERSARY: dict[str, Any] = {
    "discriminators": ["periods", "stft", "bands"],
    "periods": [2, 3],
    "stft_windows": [32],
    "band_windows": [32],
    "width": 2,
    "features": 0.5,
    "learning_rate": 1e-3,
}
SAMPLES = 160


def family_of(toy: str) -> str | None:
    """The catalogue's type of a toy; None for those of no family."""
    kinds = [getattr(kind, "config_type", None) for kind in TOYS[toy].__mro__]
    names = [kind.tokenizer_type for kind in kinds if kind is not None and kind.tokenizer_type in FAMILIES]
    return names[0] if names else None


AUDIO = [name for name, kind in TOYS.items() if issubclass(kind, AudioTokenizer) and family_of(name)]
DECODING = [name for name in AUDIO if build_toy(name).facts.has_decoder]


def new_module(toy: str, *, config: dict[str, Any] | None = None, **settings: Any) -> AudioTraining:
    """A training module with the weights of a toy, as if new; with others where `config` changes fields."""
    tokenizer = build_toy(toy)
    losses = LOSSES | settings.pop("losses", {})
    told = {"optimizer": {"learning_rate": 1e-2, "warmup_steps": 2, "decay_steps": 400}, "ema_decay": None}
    torch.manual_seed(0)
    fields = tokenizer.config.to_dict() | (config or {})
    module = AudioTraining(family_of(toy), fields, losses=losses, **(told | settings))
    if config is None:
        module.tokenizer.load_state_dict(tokenizer.state_dict())
    return module


def tones(count: int, samples: int = SAMPLES, *, channels: int = 1, rate_hz: int = 16_000) -> np.ndarray:
    """int16 (count, channels, samples): a different chord each, with a little noise."""
    random = np.random.default_rng(0)
    time = np.arange(samples) / rate_hz
    pitches = random.uniform(300, 3000, (count, channels, 3, 1))
    sound = np.sin(2 * np.pi * pitches * time).mean(axis=2) + random.normal(
        0, 0.02, (count, channels, samples)
    )
    return (sound * 12000).astype(np.int16)


def write_array(folder: Path, count: int = 7, samples: int = SAMPLES) -> Path:
    """An array file of recordings, an index and a rate beside it."""
    import json

    sounds = tones(count, samples)[:, 0]
    np.save(folder / "sounds.npy", sounds.ravel())
    places = [
        {"name": f"{i}", "speaker": "ab"[i % 2], "start": i * samples, "samples": samples}
        for i in range(count)
    ]
    (folder / "sounds.json").write_text(json.dumps(places))
    (folder / "provenance.json").write_text(json.dumps({"sample_rate_hz": 16_000}))
    return folder / "sounds.npy"


def new_data(path: Path, **settings: Any) -> AudioFolderData:
    told = {"validation_share": 0.0, "batch_size": 2, "crop_seconds": 96 / 16_000}
    return AudioFolderData(str(path), **(told | settings))


class Repeated:
    """One batch, some times over; Lightning would take a list for several loaders."""

    def __init__(self, batch: Tensor, count: int) -> None:
        self._batch, self._count = batch, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self._batch] * self._count)


class OneBatch(lightning.LightningDataModule):
    """The same sounds at every step."""

    def __init__(self, sounds: Tensor, steps: int) -> None:
        super().__init__()
        self._sounds, self._steps = sounds, steps

    def train_dataloader(self) -> Repeated:
        return Repeated(self._sounds, self._steps)

    def val_dataloader(self) -> Repeated:
        return Repeated(self._sounds, 1)


def new_trainer(steps: int, **settings: Any) -> Any:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "max_steps": steps}
    quiet |= {"limit_val_batches": 0}
    return lightning.Trainer(**(quiet | settings))


class Saver(Checkpoint):
    """A checkpoint in the middle of a fit, after all other callbacks of the step."""

    def __init__(self, file: Path, step: int) -> None:
        self._file, self._step = file, step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            trainer.save_checkpoint(self._file, weights_only=False)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]
