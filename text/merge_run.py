"""One training by merges: pieces and merges as they grow, a bar, and a log from which it goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .pair_merges import Pair, PairMerges
from .progress import progress_bar
from .vocab import TextVocab

_log = logging.getLogger("tokenzoo")

# What a trainer decides in one step: left, right and the count of the pair, and what else it needs to know.
Step = tuple[int, ...]

BYTES = 256
_FLUSH_EVERY = 256


class MergeRun:
    """A vocabulary that grows to `vocab_size` pieces, step by step; a context manager.

    vocab_size  pieces in the end, the 256 bytes and the specials among them
    specials    names of special tokens, which take the last ids
    log         file of the steps taken. Where it is there already, its steps are taken again first: merging
                is quick, finding out what to merge is not. None keeps no log.
    identity    what decides the steps: corpus, trainer, settings. A log of another is an error.

    Raises ValueError for a vocabulary smaller than the bytes and the specials, and for a foreign log.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        identity: Sequence[object],
        specials: Sequence[str] = (),
        log: str | os.PathLike[str] | None = None,
        progress: bool = True,
        title: str = "merging",
    ) -> None:
        least = BYTES + len(specials)
        if vocab_size < least:
            raise ValueError(
                f"vocab_size={vocab_size}: expected at least {least}, the 256 bytes"
                f"{f' and {len(specials)} specials' if specials else ''}"
            )
        self.pieces = [bytes([byte]) for byte in range(BYTES)]
        self.merges: list[tuple[int, int, int]] = []
        # Pieces to reach; the specials come on top.
        self.size = vocab_size - len(specials)
        self._specials = tuple(specials)
        self._index = {piece: number for number, piece in enumerate(self.pieces)}
        told = json.dumps(["merges", 1, *map(str, identity)]).encode()
        self._log = None if log is None else Path(log)
        self._past, self._file = open_log(self._log, hashlib.sha256(told).hexdigest())
        self._taken = 0
        self._bar = progress_bar(self.size - BYTES, title, "merge", progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._file is not None:
            self._file.close()

    def step(self, decide: Callable[[], Step | None]) -> Step | None:
        """The next step: out of the log as far as it goes, then what `decide` says; None ends the run."""
        if self._taken < len(self._past):
            self._taken += 1
            return self._past[self._taken - 1]
        decided = decide()
        if decided is not None and self._file is not None:
            self._file.write(" ".join(map(str, decided)) + "\n")
            if len(self.merges) % _FLUSH_EVERY == 0:
                self._file.flush()
        return decided

    def grow(self, state: PairMerges, size: int) -> None:
        """Byte-pair encoding: join the most frequent pair until there are `size` pieces or no pairs."""
        while len(self.pieces) < size:
            step = self.step(lambda: as_step(state.best()))
            if step is None:
                break
            left, right, _ = step
            state.merge(left, right, self.join(left, right))

    def join(self, left: int, right: int) -> int:
        """Note a merge; returns its product: a new id, or that of a piece which has these bytes already."""
        piece = self.pieces[left] + self.pieces[right]
        product = self._index.setdefault(piece, len(self.pieces))
        if product == len(self.pieces):
            self.pieces.append(piece)
            self._bar.update()
        self.merges.append((left, right, product))
        return product

    def advance(self, pieces: int) -> None:
        """Move the bar: by -1 for a piece that does not count after all."""
        self._bar.update(pieces)

    def __contains__(self, piece: bytes) -> bool:
        return piece in self._index

    def vocab(self, unused: Iterable[int] = ()) -> TextVocab:
        """What has grown, then the specials, then the `unused` pieces, so that all other ids are dense."""
        hidden = set(unused)
        if len(self.pieces) - len(hidden) < self.size:
            _log.warning(
                "the corpus gives %d pieces, not %d: no pair is frequent enough", len(self.pieces), self.size
            )
        used = [number for number in range(len(self.pieces)) if number not in hidden]
        specials = len(self._specials)
        order = [*used, *sorted(hidden)]
        places = {old: new + specials * (old in hidden) for new, old in enumerate(order)}
        names = [name.encode() for name in self._specials]
        ordered = [self.pieces[old] for old in order]
        return TextVocab(
            pieces=(*ordered[: len(used)], *names, *ordered[len(used) :]),
            merges=tuple((places[left], places[right], places[made]) for left, right, made in self.merges),
            specials={name: len(used) + number for number, name in enumerate(self._specials)},
            unused=frozenset(places[old] for old in hidden),
        )


def as_step(pair: Pair | None) -> Step | None:
    """A pair as a step of a log."""
    return None if pair is None else (pair.left, pair.right, pair.count)


def open_log(path: Path | None, identity: str) -> tuple[list[Step], IO[str] | None]:
    """The steps in a log, and the log to write on; ValueError when it belongs to another run.

    identity  one line that tells the run from others
    """
    if path is None:
        return [], None
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    # A run that was stopped may have left half a line, after the last newline.
    whole = lines[:-1]
    if whole and whole[0] != identity:
        raise ValueError(
            f"{path} is the log of another training: its corpus or settings differ; delete it or name another"
        )
    try:
        steps = [tuple(map(int, line.split())) for line in whole[1:]]
    except ValueError as error:
        raise ValueError(f"{path} is no log of a training ({error}): delete it") from error
    text = "\n".join([identity, *whole[1:]]) + "\n"
    beside = path.with_name(f".{path.name}.saving")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
    return steps, path.open("a", encoding="utf-8")
