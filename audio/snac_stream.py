"""SNAC in pieces: the noise of its decoder goes on from piece to piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from ..zoo.chance import Chance, draw_noise
from .stream import OverlapStream

if TYPE_CHECKING:
    from .snac import Snac


class SnacStream(OverlapStream):
    """See `OverlapStream`.

    generator  for the noise, one for each sound; that of seed 0 by default
    """

    tokenizer: Snac

    def __init__(self, tokenizer: Snac, *, keep: int | None, block_seconds: float, generator: Chance) -> None:
        self._given_generator = generator
        super().__init__(tokenizer, keep=keep, block_seconds=block_seconds)

    def _restart(self) -> None:
        super()._restart()
        self._generators: list[Generator] | None = None
        self._noise: Tensor | None = None  # of the ids held, and of some before

    def _decode_ready(self, ids: Tensor) -> Tensor | None:
        width, count = self.tokenizer.config.noise_width, ids.shape[1]
        drawn = torch.stack([draw_token_noise(width, count, [each]) for each in self._chance(len(ids))])
        self._noise = drawn if self._noise is None else torch.cat([self._noise, drawn], dim=1)
        return super()._decode_ready(ids)

    def _latents(self, ids: Tensor) -> Tensor:
        """Rows for `sound_of` of the first ids that are held."""
        assert self._ids is not None and self._noise is not None
        self._noise = self._noise[:, self._noise.shape[1] - self._ids.shape[1] :]
        return self.tokenizer.rows_of(super()._latents(ids), self._noise[:, : ids.shape[1]])

    def _chance(self, batch: int) -> list[Generator]:
        """The generator of each sound, made or found once."""
        if self._generators is None:
            given = self._given_generator
            if given is None:
                given = [Generator().manual_seed(0) for _ in range(batch)]
            self._generators = [given] if isinstance(given, Generator) else list(given)
        if len(self._generators) != batch:
            raise ValueError(f"{len(self._generators)} generators for {batch} sounds: give one for each")
        return self._generators


def draw_token_noise(width: int, count: int, generator: Chance) -> Tensor:
    """Noise (count, width) for the tokens of one item; drawn in two goes it is the same as in one."""
    # torch fills normal numbers by 16: what does not fill up a row of those would depend on `count`.
    return draw_noise((1, count, -(-width // 16) * 16), generator)[0, :, :width]
