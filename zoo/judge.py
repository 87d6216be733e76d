"""What an evaluation must know of a medium: its examples, and how a decoded one is scored."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .facts import Facts
from .measured import Measure

_JUDGES = {"image": "image.judge:ImageJudge", "audio": "audio.judge:SpeechJudge"}


@dataclass(frozen=True, eq=False)
class Example:
    """One item of a data set.

    item     what `tokenizer.preprocess` takes
    content  its bytes, for the digest of the data set
    """

    item: Any
    content: bytes


class Examples(ABC):
    """A data set on disk."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Example:
        """ValueError for one that cannot be read, naming it."""


class Judge(ABC):
    """Scores items of one modality.

    facts     of the tokenizer
    measures  that can be taken here; what wants a library that is missing is left out, with a warning
    """

    bits_per: ClassVar[str]
    notes: ClassVar[str]

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.measures = self._available()

    @abstractmethod
    def _available(self) -> tuple[Measure, ...]: ...

    @staticmethod
    @abstractmethod
    def open(data: Path) -> Examples:
        """The examples of a folder or file; ValueError when there are none."""

    @abstractmethod
    def reference(self, item: Any, signal: Any) -> Any:
        """What a decoded item is compared with.

        item    of the example, as it is on disk
        signal  the same preprocessed, as the tokenizer hears or sees it
        """

    @abstractmethod
    def scores(self, decoded: Any, reference: Any) -> dict[str, float]:
        """By the name of the measure; NaN where an item cannot be judged."""

    def original_scores(self, reference: Any) -> dict[str, float]:
        """What the original itself scores, of measures that need no reference."""
        return {}

    @abstractmethod
    def size(self, signal: Any) -> float:
        """Of a preprocessed item, in what `bits_per` counts: 1 image, seconds."""


def judge(facts: Facts) -> Judge:
    """That of a tokenizer; ValueError for text, which `tokenzoo eval` measures in another way."""
    if facts.modality not in _JUDGES:
        raise ValueError(
            f"{facts.name} is for {facts.modality}: there is no lossy reconstruction to measure; "
            "tokenzoo.text.evaluate compares text tokenizers"
        )
    module, name = _JUDGES[facts.modality].split(":")
    return getattr(importlib.import_module(f"..{module}", __package__), name)(facts)
