"""The items of a data set, and what is gathered of their reconstructions: the common part of evaluations."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .facts import Facts
from .judge import Judge
from .measured import Figure, Level, Measured, figure_of


@dataclass
class _Tally:
    """What is gathered at one length."""

    tokens: list[int] = field(default_factory=list)
    bits: float = 0.0
    scores: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some items: as a tokenizer takes them, and what their reconstructions are compared with."""

    signals: list[Any]
    references: list[Any]


class Survey:
    """Walks over a data set once, and gathers scores at several lengths.

    by       scores the items
    data     a folder or file, see `Judge.open`
    lengths  kept counts, None for all
    limit    only so many items, evenly spread
    """

    def __init__(
        self, by: Judge, data: str | os.PathLike[str], lengths: Sequence[int | None], limit: int | None
    ) -> None:
        self._by = by
        self._path = Path(data).expanduser()
        self._examples = by.open(self._path)
        self._chosen = _spread(len(self._examples), limit)
        self._tallies: dict[int | None, _Tally] = {keep: _Tally() for keep in lengths}
        self._originals: list[dict[str, float]] = []
        self._digest = hashlib.sha256()
        self._size = 0.0

    def batches(self, preprocess: Callable[[Any], Any], size: int) -> Iterator[Batch]:
        """All items, so many at once; ValueError for one that cannot be read."""
        if size < 1:
            raise ValueError(f"batch_size={size}: expected at least 1")
        batch = Batch([], [])
        for index in _progress(self._chosen):
            example = self._examples.read(index)
            self._digest.update(hashlib.sha256(example.content).digest())
            batch.signals.append(preprocess(example.item))
            batch.references.append(self._by.reference(example.item, batch.signals[-1]))
            self._size += self._by.size(batch.signals[-1])
            self._originals.append(self._by.original_scores(batch.references[-1]))
            if len(batch.signals) == size:
                yield batch
                batch = Batch([], [])
        if batch.signals:
            yield batch

    def add(
        self, keep: int | None, batch: Batch, decoded: Sequence[Any], tokens: list[int], bits: float
    ) -> None:
        """The reconstructions of a batch at one length, tokens of each and bits of all of them."""
        tally = self._tallies[keep]
        tally.tokens += tokens
        tally.bits += bits
        tally.scores += [self._by.scores(*pair) for pair in zip(decoded, batch.references, strict=True)]

    def measured(self, facts: Facts, name: str | None = None) -> Measured:
        """What was gathered.

        facts  of the tokenizer
        name   of the data set, default that of the folder or file
        """
        return Measured(
            tokenizer=facts.name,
            revision=facts.revision,
            fingerprint=facts.fingerprint,
            modality=facts.modality,
            data=self._path.stem if name is None else name,
            data_digest=self._digest.hexdigest(),
            items=len(self._chosen),
            nested=facts.nested,
            bits_per=self._by.bits_per,
            notes=self._by.notes,
            levels=tuple(
                Level(keep, sum(t.tokens) / len(t.tokens), t.bits / self._size, self._figures(t.scores))
                for keep, t in self._tallies.items()
            ),
            originals=self._figures(self._originals),
            software=f"tokenzoo {version('tokenzoo')}",
        )

    def _figures(self, scores: Sequence[dict[str, float]]) -> tuple[Figure, ...]:
        found = [figure_of(m, [each[m.name] for each in scores if m.name in each]) for m in self._by.measures]
        return tuple(figure for figure in found if figure is not None)


def _spread(count: int, limit: int | None) -> list[int]:
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise ValueError(f"limit={limit}: expected at least 1")
    return [index * count // limit for index in range(limit)]


def _progress(indices: Sequence[int]) -> Iterator[int]:
    from tqdm import tqdm

    return iter(tqdm(indices, desc="evaluate", file=sys.stderr, disable=None, leave=False))
