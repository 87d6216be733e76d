"""Less-is-Better (Yang et al. 2020): a lexicon that grows while reading, reorders itself and forgets.

No words are given: chunks may hold spaces. What its authors leave open (by how much a group of chunks moves,
how far a reading looks ahead) is decided here and in `less_is_better`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .chance import Draws
from .corpus import Corpus
from .less_is_better import choose
from .pretokenizers import PreTokenizer
from .progress import progress_bar
from .train_pathpiece import vocab_of_pieces
from .vocab import TextVocab

PRETOKENIZER = PreTokenizer("none")
_SAVE_SECONDS = 30.0


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    batch_bytes: int = 20_000,
    passes: int = 8,
    max_piece_bytes: int = 12,
    memory_in: float = 0.25,
    memory_out: float = 0.0001,
    update_rate: float = 0.2,
    gap: int = 2,
    life: int = 10,
    seed: int = 0,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """The 256 bytes, chunks and the specials, at most `vocab_size` pieces, to segment by "less-is-better".

    The lexicon has no size of its own: of its chunks those that were read most often in the last pass are
    kept, in the order of the lexicon.

    batch_bytes      text between two orderings of the lexicon
    passes           how often the corpus is read
    max_piece_bytes  longest chunk
    memory_in        chance that two neighbours are noticed; the second time in a batch they become one chunk
    memory_out       share of the lexicon, at its tail, that is told to be of use or die after each batch
    update_rate      by how much of its place a chunk moves that did well or badly in a batch
    gap              unknown runs of up to so many bytes become chunks
    life             batches that a chunk at the tail may go unused
    seed             of what is noticed: another seed gives another lexicon
    folder           for the lexicon now and then: a training that was stopped goes on from there

    Slow: it reads every occurrence, 100 kB a second or less.
    """
    least = 256 + len(specials)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size={vocab_size}: expected at least {least}, the 256 bytes and the specials"
        )
    lexicon = _Lexicon(update_rate, memory_out, life)
    reader = _Reader(lexicon, Draws(np.random.default_rng(seed)), max_piece_bytes, memory_in, gap)
    settings = [passes, batch_bytes, max_piece_bytes, memory_in, memory_out, update_rate, gap, life, seed]
    path = None if folder is None else Path(folder) / "lexicon.state"
    saved = _Saved(path, json.dumps([*settings, corpus.identity]))
    done = saved.load(reader)
    read, batches, clock = 0, 0, time.monotonic()
    with progress_bar(corpus.size * passes, "reading", "B", progress) as bar:
        for _ in range(passes):
            if batches >= done:
                reader.uses.clear()
            for batch in _batches(corpus, batch_bytes):
                size = sum(map(len, batch))
                batches, read = batches + 1, read + size
                bar.update(size)
                if batches <= done:
                    continue
                for line in batch:
                    reader.read(line)
                reader.settle()
                if time.monotonic() - clock > _SAVE_SECONDS:
                    saved.save(reader, batches)
                    clock = time.monotonic()
            if not read:
                raise ValueError("the corpus is empty: its files hold no text")
    saved.save(reader, batches)
    ranked = sorted(lexicon.chunks, key=lambda chunk: (-reader.uses[chunk], lexicon.ranks[chunk]))
    kept = set(ranked[: vocab_size - least])
    return vocab_of_pieces((chunk for chunk in lexicon.chunks if chunk in kept), specials)


class _Saved:
    """The file that a training goes on from: what is known after a number of batches.

    identity  what decides the lexicon
    """

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path = path
        self._identity = hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()

    def save(self, reader: _Reader, batches: int) -> None:
        """Written beside its place first: whatever stops this, there is a whole file."""
        if self._path is None:
            return
        told = {"identity": self._identity, "batches": batches, **reader.saved()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f".{self._path.name}.saving")
        beside.write_text(json.dumps(told), encoding="ascii")
        os.replace(beside, self._path)

    def load(self, reader: _Reader) -> int:
        """How many batches were read, 0 where nothing was saved; ValueError when it is another training."""
        if self._path is None or not self._path.exists():
            return 0
        try:
            told = json.loads(self._path.read_bytes())
            if told["identity"] == self._identity:
                reader.go_on(told)
                return int(told["batches"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self._path} holds no lexicon that can be gone on from ({error}): delete it"
            ) from error
        raise ValueError(
            f"{self._path} is of another training: its corpus or settings differ; delete it or name another"
        )


class _Lexicon:
    """Chunks in order, the most useful first."""

    def __init__(self, update_rate: float, memory_out: float, life: int) -> None:
        self.chunks: list[bytes] = []
        self.ranks: dict[bytes, int] = {}
        self._rate, self._out, self._life = update_rate, memory_out, life
        # Chunks at the tail and how many batches each has left.
        self._dying: dict[bytes, int] = {}

    def saved(self) -> dict[str, Any]:
        return {
            "chunks": [chunk.hex() for chunk in self.chunks],
            "dying": {chunk.hex(): left for chunk, left in self._dying.items()},
        }

    def go_on(self, told: Mapping[str, Any]) -> None:
        self.chunks = [bytes.fromhex(chunk) for chunk in told["chunks"]]
        self.ranks = {chunk: rank for rank, chunk in enumerate(self.chunks)}
        self._dying = {bytes.fromhex(chunk): int(left) for chunk, left in told["dying"].items()}

    def add(self, chunk: bytes) -> None:
        if chunk not in self.ranks:
            self.ranks[chunk] = len(self.chunks)
            self.chunks.append(chunk)

    def settle(self, merits: dict[bytes, int], used: set[bytes]) -> None:
        """After a batch: move what did well to the head and what did badly to the tail, and forget."""
        moved = {
            chunk: self.ranks[chunk] * (1 - self._rate if merit > 0 else 1 + self._rate)
            for chunk, merit in merits.items()
            if merit
        }
        self.chunks.sort(key=lambda chunk: moved.get(chunk, self.ranks[chunk]))
        tail = math.ceil(self._out * len(self.chunks))
        for chunk in self.chunks[len(self.chunks) - tail :]:
            self._dying.setdefault(chunk, self._life)
        for chunk in list(self._dying):
            self._dying[chunk] -= 1
            if chunk in used:
                del self._dying[chunk]
        dead = {chunk for chunk, left in self._dying.items() if left <= 0}
        for chunk in dead:
            del self._dying[chunk]
        self.chunks = [chunk for chunk in self.chunks if chunk not in dead]
        self.ranks = {chunk: rank for rank, chunk in enumerate(self.chunks)}


class _Reader:
    """Reads lines, notices what stands together, and keeps account of which chunks did well."""

    def __init__(self, lexicon: _Lexicon, draws: Draws, longest: int, memory_in: float, gap: int) -> None:
        self._lexicon, self._draws, self._longest = lexicon, draws, longest
        self._memory_in, self._gap = memory_in, gap
        self._seen: set[bytes] = set()
        self._merits: dict[bytes, int] = {}
        self._used: set[bytes] = set()
        self.uses: Counter[bytes] = Counter()

    def saved(self) -> dict[str, Any]:
        """What is known between two batches."""
        uses = {chunk.hex(): count for chunk, count in self.uses.items()}
        return {**self._lexicon.saved(), "uses": uses, "draws": self._draws.saved()}

    def go_on(self, told: Mapping[str, Any]) -> None:
        self._lexicon.go_on(told)
        self.uses = Counter({bytes.fromhex(chunk): int(count) for chunk, count in told["uses"].items()})
        self._draws.go_on(told["draws"])

    def read(self, line: bytes) -> None:
        ranks, start, last, gap = self._lexicon.ranks, 0, b"", 0
        while start < len(line):
            choice = choose(line, start, ranks, self._longest)
            chunk = choice.chunk
            start += len(chunk)
            if choice.rejected:
                self._judge(chunk, 1)
                self._judge(choice.rejected, -1)
            gap = 0 if len(chunk) > 1 else gap + 1
            if len(chunk) > 1:
                self._used.add(chunk)
                self.uses[chunk] += 1
            joined = last + chunk
            if last and len(joined) <= self._longest:
                self._notice(joined, known_gap=1 < gap <= self._gap)
            last = chunk

    def settle(self) -> None:
        self._lexicon.settle(self._merits, self._used)
        self._merits, self._used, self._seen = {}, set(), set()

    def _judge(self, chunk: bytes, merit: int) -> None:
        self._merits[chunk] = self._merits.get(chunk, 0) + merit

    def _notice(self, joined: bytes, *, known_gap: bool) -> None:
        """Two neighbours: both unknown, or noticed by chance for the second time, they become a chunk."""
        if known_gap:
            self._lexicon.add(joined)
        elif self._draws.uniform() < self._memory_in:
            if joined in self._seen:
                self._lexicon.add(joined)
            self._seen.add(joined)


def _batches(corpus: Corpus, size: int) -> Iterator[list[bytes]]:
    """Lines, with their ends, about so many bytes together."""
    batch: list[bytes] = []
    held = 0
    for _, text, _ in corpus.walk():
        for line in text.splitlines(keepends=True):
            batch.append(line.encode())
            held += len(batch[-1])
            if held >= size:
                yield batch
                batch, held = [], 0
    if batch:
        yield batch
