"""What the command line must know of a medium: which files hold it, and how a signal becomes a file again."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .facts import Facts
from .tokenizer import Tokenizer

_HOMES = {
    "image": "image.image_files:ImageFiles",
    "audio": "audio.audio_files:AudioFiles",
    "text": "text.text_files:TextFiles",
}
_EVALUATIONS = {
    "image": "zoo.evaluate_files:evaluate_files",
    "audio": "zoo.evaluate_files:evaluate_files",
    "text": "text.evaluate:evaluate_files",
}


@dataclass(frozen=True)
class Comparison:
    """One item at one length, for the table of `tokenzoo reconstruct`.

    item     file name
    keep     what was asked for, None for all
    tokens   count kept
    bytes    of the packed ids, without the container's header
    scores   by name, in the order to print, e.g. {"bits/pixel": 0.25, "PSNR dB": 22.8}
    """

    item: str
    keep: int | None
    tokens: int
    bytes: int
    scores: dict[str, float]


class Medium(ABC):
    """Files of one modality."""

    suffixes: ClassVar[tuple[str, ...]]
    output_suffix: ClassVar[str]

    @abstractmethod
    def read(self, path: Path) -> Any:
        """The item in a file, as `tokenizer.preprocess` takes it."""

    @abstractmethod
    def write(self, item: Any, path: Path, facts: Facts) -> None:
        """Write one decoded item, without padding, of a tokenizer with these facts."""

    def log(self, writer: Any, tag: str, item: Any, step: int, facts: Facts) -> None:
        """Show one item in a TensorBoard writer."""
        raise NotImplementedError(f"TensorBoard shows no {facts.modality}")

    @abstractmethod
    def samples(self) -> list[Path]:
        """Real examples that ship with the package; [] when there are none."""

    @abstractmethod
    def compare(
        self,
        tokenizer: Tokenizer,
        names: Sequence[str],
        items: Sequence[Any],
        keeps: Sequence[int | None],
        out: Path,
    ) -> list[Comparison]:
        """Reconstruct every item at every length; write what a person can judge into `out`."""

    def find(self, inputs: Iterable[Path]) -> list[tuple[Path, Path]]:
        """(file, name relative to its input): folders are searched through, files are taken as they are."""
        found: list[tuple[Path, Path]] = []
        for given in inputs:
            if not given.is_dir():
                found.append((given, Path(given.name)))
                continue
            inside = sorted(path for path in given.rglob("*") if self._belongs(path.relative_to(given), path))
            found += [(path, path.relative_to(given)) for path in inside]
        return found

    def occurs(self, inputs: Iterable[Path]) -> bool:
        """Whether any file, by its name, is of this medium."""
        return any(
            path.suffix.lower() in self.suffixes
            for path, _ in self.find(path for path in inputs if path.exists())
        )

    def _belongs(self, relative: Path, path: Path) -> bool:
        hidden = any(part.startswith(".") for part in relative.parts)
        return not hidden and path.suffix.lower() in self.suffixes and path.is_file()


def medium(modality: str) -> Medium:
    """The files of a modality; ValueError for one that has no command line yet."""
    if modality not in _HOMES:
        raise ValueError(f"the command line does not handle {modality} files yet; use Python")
    return _resolve(_HOMES[modality])()


def modality_of_files(inputs: Sequence[Path], otherwise: str = "image") -> str:
    """What a command is given, where it does not say by which tokenizer; `otherwise` where nothing is known.

    Texts count where nothing else is found: beside pictures they are captions. ValueError for pictures and
    sounds together.
    """
    held = [modality for modality in _HOMES if medium(modality).occurs(inputs)]
    if "image" in held and "audio" in held:
        raise ValueError("there are pictures and sounds among the inputs: say which with --tokenizer")
    return held[0] if held else otherwise


def evaluation(modality: str) -> Callable[[Namespace], int]:
    """What `tokenzoo eval` runs for a modality: from its options to the exit code."""
    return _resolve(_EVALUATIONS[modality])


def _resolve(home: str) -> Any:
    module, name = home.split(":")
    return getattr(importlib.import_module(f"..{module}", __package__), name)
