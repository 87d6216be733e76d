"""Batches in an order that a seed and the epoch decide, and that survives an interruption."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator
from torch.utils.data import DataLoader, Dataset

_log = logging.getLogger("tokenzoo")


class Source(ABC):
    """Random access to items of any origin."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: Sequence[int], generator: Generator | None) -> Any:
        """These items as one batch; with a generator cut and turned at random, without one as they are.

        A tensor (B, ...), or something with a length and a method `to`.
        """


class FirstItems(Source):
    """An even choice of at most `count` items."""

    def __init__(self, source: Source, count: int) -> None:
        self._source = source
        count = min(count, len(source))
        self._chosen = [i * len(source) // count for i in range(count)]

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, indices: Sequence[int], generator: Generator | None) -> Any:
        return self._source.read([self._chosen[index] for index in indices], generator)


@dataclass(frozen=True)
class Draw:
    """One batch: which items, and the seed of what is random in it (None: nothing is)."""

    indices: tuple[int, ...]
    seed: int | None


class Batches:
    """The batches of one process, epoch after epoch.

    batch_size        items a batch in each process
    seed              of the order and of what is random in the items. With None the order is fixed, nothing
                      is random, and the last batch may be short; else batches are whole, and what is left
                      over at the end of an epoch waits for another one
    num_workers       processes that read ahead; 0 reads in this one
    rank, world_size  this process among those that share the epoch

    `state_dict` says how far it got. Lightning saves it, so that a fit resumed in the middle of an epoch goes
    on with the next batch. It is no DataLoader, since Lightning would put its own sampler into one.
    ValueError when the items do not fill one batch.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int | None = None,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._source = source
        self._batch_size = batch_size
        self._seed = seed
        self._num_workers = num_workers
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._position = 0
        if len(self) == 0:
            raise ValueError(
                f"{len(source)} items do not fill a batch of {batch_size} on each of {world_size} processes; "
                "lower batch_size (--data.batch_size)"
            )

    def __len__(self) -> int:
        """Batches an epoch."""
        step = self._batch_size * self._world_size
        return len(self._source) // step if self._seed is not None else -(-len(self._source) // step)

    def __iter__(self) -> Iterator[Any]:
        """What is left of this epoch, or the next one when nothing is; all of it without a seed."""
        if self._position >= len(self) or self._seed is None:
            self._epoch += 1
            self._position = 0
        loader = DataLoader(
            _Drawn(self._source),
            sampler=self._draws()[self._position :],
            batch_size=None,
            num_workers=self._num_workers,
            # Its own, so that the model's random numbers do not depend on how often data was loaded.
            generator=Generator(),
        )
        for batch in loader:
            self._position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "position": self._position, "length": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there; with other data, from the start of the next epoch."""
        self._epoch, self._position = state["epoch"], state["position"]
        if state["length"] != len(self):
            told = "an epoch had %d batches when the checkpoint was saved and has %d now: a new epoch begins"
            _log.warning(told, state["length"], len(self))
            self._position = len(self)

    def _draws(self) -> list[Draw]:
        count, size = len(self._source), self._batch_size
        if self._seed is None:
            mine = range(self._rank, count, self._world_size)
            return [Draw(tuple(mine[i : i + size]), None) for i in range(0, len(mine), size)]
        order = torch.randperm(count, generator=Generator().manual_seed(self._stamp(0, rank=0)))
        mine = order[self._rank :: self._world_size].tolist()
        return [
            Draw(tuple(mine[i * size : (i + 1) * size]), self._stamp(i + 1, self._rank))
            for i in range(len(self))
        ]

    def _stamp(self, step: int, rank: int) -> int:
        """A seed for a step of this epoch; the order, step 0 of rank 0, is the same in every process."""
        words = f"{self._seed} {self._epoch} {step} {rank}".encode()
        return int.from_bytes(hashlib.blake2b(words, digest_size=7).digest(), "big")


class _Drawn(Dataset):
    """A source read by `Draw`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitem__(self, draw: Draw) -> Any:
        return self._source.read(
            draw.indices, None if draw.seed is None else Generator().manual_seed(draw.seed)
        )
