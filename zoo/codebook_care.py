"""How a codebook is kept alive: a start from k-means, and a new place for codes that nobody uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .collective import broadcast_from_first, gather, gather_rows, num_ranks
from .fitting import kmeans


@dataclass(frozen=True)
class KMeansStart:
    """The codes start as cluster centres of the first training batches, of all ranks together.

    batches        how many; the codebook is fitted after each, to all rows so far
    rounds         of Lloyd's algorithm; EnCodec takes 50
    rows_per_code  at most so many rows a code are kept, over all batches and ranks, a random choice
    """

    batches: int = 1
    rounds: int = 10
    rows_per_code: int = 40

    def __post_init__(self) -> None:
        if min(self.batches, self.rounds, self.rows_per_code) < 1:
            raise ValueError(f"{self}: expected at least 1 of each")


@dataclass(frozen=True)
class Revival:
    """A code that is hardly used moves to a random latent of the batch.

    share  of the mean running count over all codes, below which a code is dead. The mean is what a code
           would have if all were used alike, N / K, so one share serves small batches and large codebooks;
           a fixed count (2 in EnCodec and its descendants) replaces most of a codebook where N < 2 K.
    every  training steps between two looks

    A revived code counts as used as often as the mean, so it has time to find latents: at least
    log(share) / log(decay) steps. Source of the rule: kyutai-labs/moshi, moshi/quantization/core_vq.py.
    """

    share: float = 0.1
    every: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.every < 1:
            raise ValueError(f"{self}: expected a share between 0 and 1, and every at least 1")


class StartingRows:
    """The rows that a k-means start has seen. They are not saved: an interrupted start begins again, and so
    does one in whose middle a state dict is loaded, unless that one had finished."""

    def __init__(self, start: KMeansStart, num_codes: int) -> None:
        self.start = start
        self.num_codes = num_codes
        self.batches: list[Tensor] = []

    @property
    def is_complete(self) -> bool:
        return len(self.batches) >= self.start.batches

    def fit(self, rows: Tensor, *, spherical: bool, generator: Generator) -> Tensor | None:
        """Takes rows (M, D) of a batch, gives codes (K, D) for all ranks; None when no rank had a row."""
        most = max(1, self.start.rows_per_code * self.num_codes // (self.start.batches * num_ranks()))
        if len(rows) > most:
            rows = rows[torch.randperm(len(rows), generator=generator)[:most]]
        rows = gather_rows(rows[rows.isfinite().all(dim=1)])
        if not len(rows):
            return None
        self.batches.append(rows)
        codes = kmeans(
            torch.cat(self.batches),
            self.num_codes,
            generator=generator,
            rounds=self.start.rounds,
            rows_per_code=self.start.rows_per_code,
            spherical=spherical,
            spread=True,
        )
        return broadcast_from_first(codes)


@dataclass(frozen=True, eq=False)
class Moves:
    """Codes that change their place.

    codes   (K, D)  where the marked ones go; what stands elsewhere means nothing
    marked  (K,)    bool
    """

    codes: Tensor
    marked: Tensor


def revive(
    counts: Tensor, rows: Tensor, valid: Tensor | None, share: float, *, generator: Generator
) -> Moves:
    """New places for dead codes, the same on all ranks, without waiting for the device.

    The deadest codes come first where there are fewer rows than dead codes; the rest keep their place.

    counts  (K,)    running counts, the same on all ranks
    rows    (M, D)  latents of this rank, M may be 0
    valid   (M,)    bool, rows that may be used; None for all
    """
    fresh = _random_rows(rows, valid, len(counts), generator)
    codes = torch.empty_like(fresh).index_copy_(0, counts.argsort(stable=True), fresh)
    return Moves(codes, (counts < share * counts.mean()) & codes.isfinite().all(dim=1))


def _random_rows(rows: Tensor, valid: Tensor | None, count: int, generator: Generator) -> Tensor:
    """`count` rows of all ranks together, in equal parts where it can be; NaN where there are too few."""
    part = -(-count // num_ranks())
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    if valid is not None:
        order = order[valid[order].to(torch.int8).argsort(descending=True, stable=True)]
        rows = torch.where(valid[:, None], rows, torch.nan)
    drawn = rows.new_full((part, rows.shape[1]), torch.nan)
    drawn[: len(order)] = rows[order[:part]]
    drawn = gather(drawn).transpose(0, 1).flatten(0, 1)
    usable = drawn.isfinite().all(dim=1)
    return drawn[usable.to(torch.int8).argsort(descending=True, stable=True)][:count]
