"""The rules of chance: one place draws noise, so that every model draws it the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

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


def item_generators(seed: int, step: int, places: Iterable[int]) -> list[Generator]:
    """One generator an item of a training step; `places` are the items' in the batch of all ranks.

    What an item is given by chance then depends on nothing else: not on how many processes share the batch.
    """
    return [Generator().manual_seed(seed_of(seed, step, place)) for place in places]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators, of the CPU and of the device, start anew inside and go on as before outside:
    for what draws without a generator of ours, as the dropout of a layer does."""
    is_cpu = device.type == "cpu"
    with torch.random.fork_rng([] if is_cpu else [device], device_type="cuda" if is_cpu else device.type):
        torch.manual_seed(seed)
        yield


def seed_of(*words: int | str) -> int:
    """32 bits, all that torch's generator of the CPU takes of a seed, in which every word has a say."""
    told = " ".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=4).digest(), "big")


def one_generator(generator: Chance) -> Generator:
    """For a draw that is not of an item: the first of a list, torch's own where there is none."""
    if isinstance(generator, Generator):
        return generator
    return generator[0] if generator else torch.default_generator


def _draw(shape: Sequence[int], generator: Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=generator.device).cpu()
