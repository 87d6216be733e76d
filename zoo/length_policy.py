"""Nested dropout: how many tokens a training step keeps, and how the rest is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from .chance import Chance, check_generators

Distribution = Literal["uniform", "power_of_two", "uniform_power_of_two", "fixed"]
Presentation = Literal["drop", "mask_token", "attention_mask"]


@dataclass(frozen=True)
class LengthPolicy:
    """A distribution of kept lengths times a presentation of what is left out.

    longest       the full length N
    distribution  "uniform": 1 ... N. "power_of_two": 1, 2, 4, ... N, equally likely.
                  "uniform_power_of_two": uniform, rounded up to a power of two (FlexTok, arXiv 2502.13967).
                  "fixed": one of `counts`, equally likely.
    per           "batch": one draw a batch (One-D-Piece, arXiv 2501.10064); "sample": one draw an item
    presentation  "drop" takes the tail away, "mask_token" puts a learned vector there,
                  "attention_mask" hides it
    full          share of draws that keep everything, on top of the distribution

    Serves `nested="codebooks"` as quantizer dropout, with N codebooks.
    """

    longest: int
    distribution: Distribution = "uniform"
    counts: tuple[int, ...] = ()
    per: Literal["batch", "sample"] = "sample"
    presentation: Presentation = "drop"
    full: float = 0.0

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise ValueError(f"longest={self.longest}: expected at least 1")
        if self.distribution not in get_args(Distribution):
            raise ValueError(
                f"distribution {self.distribution!r}: expected {', '.join(get_args(Distribution))}"
            )
        if self.per not in ("batch", "sample"):
            raise ValueError(f"per={self.per!r}: expected 'batch' or 'sample'")
        if self.presentation not in get_args(Presentation):
            raise ValueError(
                f"presentation {self.presentation!r}: expected {', '.join(get_args(Presentation))}"
            )
        if (self.distribution == "fixed") != bool(self.counts):
            raise ValueError("counts go with distribution='fixed', and only with it")
        if any(not 1 <= count <= self.longest for count in self.counts):
            raise ValueError(f"counts {self.counts}: expected 1 ... {self.longest}")
        if not 0 <= self.full <= 1:
            raise ValueError(f"full={self.full}: expected 0 ... 1")

    def sample(self, batch: int, *, generator: Chance = None) -> Tensor:
        """(B,) int64 kept lengths, on the CPU; without a generator, torch's own is used as in any dropout.

        generator  a list draws item by item; ValueError unless it has one per item, or where all share a draw
        """
        if generator is None or isinstance(generator, Generator):
            draws = batch if self.per == "sample" else 1
            return self._draw(draws, generator).expand(batch).clone()
        if self.per == "batch":
            raise ValueError("a list of generators for lengths with per='batch': all items share one draw")
        check_generators(generator, batch)
        return torch.cat([self._draw(1, each) for each in generator]) if batch else torch.zeros(0).long()

    def _draw(self, draws: int, generator: Generator | None) -> Tensor:
        lengths = self._drawn(draws, generator)
        if self.full:
            lengths[torch.rand(draws, generator=generator) < self.full] = self.longest
        return lengths

    def _drawn(self, draws: int, generator: Generator | None) -> Tensor:
        if self.distribution == "uniform":
            return torch.randint(1, self.longest + 1, (draws,), generator=generator)
        if self.distribution == "uniform_power_of_two":
            lengths = torch.randint(1, self.longest + 1, (draws,), generator=generator)
            return _next_power_of_two(lengths).clamp(max=self.longest)
        choices = torch.tensor(self.counts or _powers_of_two(self.longest))
        return choices[torch.randint(len(choices), (draws,), generator=generator)]


def _powers_of_two(longest: int) -> Sequence[int]:
    """1, 2, 4, ... and `longest` itself."""
    return [1 << k for k in range((longest - 1).bit_length())] + [longest]


def _next_power_of_two(lengths: Tensor) -> Tensor:
    powers = [1 << (length - 1).bit_length() for length in lengths.tolist()]
    return torch.tensor(powers, dtype=torch.int64)
