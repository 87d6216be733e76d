"""Sounds to train on: the files of a folder, or the recordings that lie in one array file."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..zoo.batches import Source
from ..zoo.optional import require
from .audio_files import AudioFiles
from .preprocess import AudioPreprocess, AudioReadError

FULL_SCALE = 32768
_log = logging.getLogger("tokenzoo")


@dataclass(frozen=True)
class Recording:
    """One sound of a collection.

    name     unique in it
    speaker  "" where nothing says it
    rate_hz  of its samples
    samples  at that rate
    """

    name: str
    speaker: str
    rate_hz: int
    samples: int


class Recordings(ABC):
    """Sounds by their number, of which any stretch can be read."""

    found: list[Recording]

    @abstractmethod
    def read(self, index: int, start: int, samples: int) -> Tensor:
        """(C, samples) float32 in [-1, 1] of a recording, at its own rate; fewer at its end.

        AudioReadError for one that cannot be read.
        """


class FolderRecordings(Recordings):
    """Every sound file below a folder, in the order of their names; one that does not open is reported.

    The speaker is the first folder on the way to the file. ValueError when there is no sound at all.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; expected a folder of sounds or a .npy file")
        soundfile = require("soundfile", "audio")
        self.found, self._paths = [], []
        for path, name in AudioFiles().find([folder]):
            try:
                told = soundfile.info(str(path))
            except soundfile.LibsndfileError as error:
                _log.warning("skipped: %s is no readable sound (%s)", path, error)
                continue
            if told.frames > 0:
                speaker = name.parts[0] if len(name.parts) > 1 else ""
                self.found.append(Recording(name.as_posix(), speaker, told.samplerate, told.frames))
                self._paths.append(path)
        if not self.found:
            raise ValueError(f"{folder} holds no readable sounds ({', '.join(AudioFiles.suffixes)})")

    def read(self, index: int, start: int, samples: int) -> Tensor:
        soundfile, path = require("soundfile", "audio"), self._paths[index]
        try:
            read, _ = soundfile.read(str(path), samples, start, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioReadError(f"{path} breaks off ({error})") from error
        if not np.isfinite(read).all():
            raise AudioReadError(f"{path} holds NaN or infinity")
        return torch.from_numpy(np.ascontiguousarray(read.T))


class ArrayRecordings(Recordings):
    """Recordings one after the other in an int16 array (S,), mono, read from disk as they are needed.

    path     `x.npy`; `x.json` beside it lists {"name", "start", "samples"}, and "speaker" where it is known,
             as `python -m tokenzoo.audio.speech_pool` writes them. Without it the array is one recording
    rate_hz  of the samples; None: "sample_rate_hz" of `provenance.json` beside it

    ValueError for other content, or a rate that nothing says.
    """

    def __init__(self, path: Path, rate_hz: int | None) -> None:
        try:
            self._array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path} is not a readable .npy file ({error})") from error
        if self._array.dtype != np.int16 or self._array.ndim != 1 or not len(self._array):
            raise ValueError(f"{path} holds {self._array.dtype} {self._array.shape}: expected int16 (S,)")
        if rate_hz is None:
            beside = path.with_name("provenance.json")
            rate_hz = _json(beside).get("sample_rate_hz") if beside.is_file() else None
        if rate_hz is None:
            raise ValueError(f"{path} does not say its rate: give array_rate_hz, e.g. 16000")
        places = [{"name": path.stem, "start": 0, "samples": len(self._array)}]
        if (index := path.with_suffix(".json")).is_file():
            places = _json(index)
        try:
            self._starts = [int(place["start"]) for place in places]
            self.found = [
                Recording(str(place["name"]), str(place.get("speaker", "")), rate_hz, int(place["samples"]))
                for place in places
            ]
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{index}: expected a list of {{name, start, samples}}, got {str(places)[:80]} ({error})"
            ) from error
        ends = [start + each.samples for start, each in zip(self._starts, self.found, strict=True)]
        if not ends or min(self._starts) < 0 or max(ends) > len(self._array):
            raise ValueError(f"{index} does not fit {path}, which holds {len(self._array)} samples")

    def read(self, index: int, start: int, samples: int) -> Tensor:
        end = min(start + samples, self.found[index].samples)
        first = self._starts[index]
        cut = np.asarray(self._array[first + start : first + end], np.float32) / FULL_SCALE
        return torch.from_numpy(cut)[None]


def open_recordings(path: Path, rate_hz: int | None = None) -> Recordings:
    """Those of a folder or of a `.npy` file."""
    return ArrayRecordings(path, rate_hz) if path.suffix == ".npy" else FolderRecordings(path)


class Crops(Source):
    """int16 (B, C, S): a random stretch of a recording each, resampled and mixed; silence after a short one.

    recordings  where they come from
    chosen      which of them
    preprocess  gives rate and channels; each stretch is resampled by itself
    samples     S of a crop

    A recording counts as many items as crops fit into it, at least one, so that every second of sound is
    heard equally often. Without a generator the crops of a recording lie evenly spread. A recording that
    cannot be read is reported once, and another replaces it.
    """

    def __init__(
        self, recordings: Recordings, chosen: Sequence[int], preprocess: AudioPreprocess, samples: int
    ) -> None:
        self._recordings = recordings
        self._preprocess = preprocess
        self._samples = samples
        fits = [max(1, recordings.found[each].samples // self._raw(each)) for each in chosen]
        self._recording = np.repeat(np.asarray(chosen, np.int64), fits)
        self._place = np.concatenate([np.arange(n) / max(n - 1, 1) for n in fits] or [np.zeros(0)])
        # Shared with the workers, so that each bad file is reported by one of them only.
        self._is_bad = torch.zeros(len(recordings.found), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self._recording)

    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor:
        return torch.stack([self._read_one(index, generator) for index in indices])

    def _read_one(self, item: int, generator: Generator | None) -> Tensor:
        while True:
            recording = int(self._recording[item])
            # Drawn for a bad file too: a resumed fit, which does not know yet that it is bad, draws alike.
            share = self._place[item] if generator is None else float(torch.rand((), generator=generator))
            if not self._is_bad[recording]:
                try:
                    return self._crop(recording, share)
                except AudioReadError as error:
                    self._is_bad[recording] = True
                    _log.warning("skipped: %s", error)
            if bool(self._is_bad[self._recording].all()):
                raise AudioReadError(f"none of {len(self)} crops can be read")
            step = 1 if generator is None else int(torch.randint(len(self), (), generator=generator))
            item = (item + step) % len(self)

    def _crop(self, recording: int, share: float) -> Tensor:
        told = self._recordings.found[recording]
        wanted = self._raw(recording)
        start = round(share * max(0, told.samples - wanted))
        raw = self._recordings.read(recording, start, wanted)
        if not raw.shape[1]:
            raise AudioReadError(f"{told.name} ends before its sample {start}")
        sound = self._preprocess((raw, told.rate_hz))[:, : self._samples]
        whole = (sound * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)
        return F.pad(whole, (0, self._samples - whole.shape[1]))

    def _raw(self, recording: int) -> int:
        """Samples of a crop at the rate of a recording."""
        rate_hz = self._recordings.found[recording].rate_hz
        return -(-self._samples * rate_hz // self._preprocess.sample_rate_hz)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not readable JSON ({error})") from error
