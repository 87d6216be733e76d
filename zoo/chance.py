"""The rules of chance: one place draws noise, so that every model draws it the same way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

Chance = Generator | Sequence[Generator] | None


def draw_noise(shape: Sequence[int], generator: Chance) -> Tensor:
    """Standard normal noise (B, ...), float32 on the CPU.

    Without a generator every item gets the noise of seed 0, by itself, so a batch equals its singles.
    One generator draws the whole batch at once, as official code does; a list draws item by item.
    """
    batch, *rest = shape
    if isinstance(generator, Generator):
        return _draw((batch, *rest), generator)
    if generator is None:
        return _draw(rest, Generator().manual_seed(0)).expand(batch, *rest).contiguous()
    check_generators(generator, batch)
    return torch.stack([_draw(rest, each) for each in generator]) if batch else torch.zeros(tuple(shape))


def check_generators(generator: Chance, batch: int) -> None:
    """ValueError unless a list of generators has one per item."""
    if isinstance(generator, Sequence) and len(generator) != batch:
        raise ValueError(f"{len(generator)} generators for {batch} items: give one, or one per item")


def select_generators(generator: Chance, items: Sequence[int]) -> Chance:
    """The generators of these items of a batch; a single one serves all."""
    if generator is None or isinstance(generator, Generator):
        return generator
    return [generator[item] for item in items]


def _draw(shape: Sequence[int], generator: Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=generator.device).cpu()
