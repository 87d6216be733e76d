"""Uniform draws for samplers of text, out of numpy's generators or torch's; torch is not imported for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Generator

# Drawn at a time: a call a number would take most of the time.
_BLOCK = 1024


class Draws:
    """Numbers in [0, 1), one by one. The same generator in the same state gives the same numbers.

    generator  of numpy or of torch; it moves on by whole blocks of draws

    TypeError for anything else.
    """

    def __init__(self, generator: np.random.Generator | Generator) -> None:
        # Whoever holds a generator of torch has imported torch.
        torch: Any = sys.modules.get("torch")
        self._torch = torch if torch is not None and isinstance(generator, torch.Generator) else None
        if self._torch is None and not isinstance(generator, np.random.Generator):
            raise TypeError(
                f"generator is a {type(generator).__name__}: expected numpy's or torch's Generator"
            )
        self._generator: Any = generator
        self._block: list[float] = []

    def uniform(self) -> float:
        """A number in [0, 1)."""
        if not self._block:
            self._block = self._draw()
        return self._block.pop()

    def below(self, count: int) -> int:
        """A whole number in [0, count)."""
        return int(self.uniform() * count)

    def saved(self) -> dict[str, Any]:
        """Where a generator of numpy stands, as plain values, for `go_on`."""
        return {"generator": self._generator.bit_generator.state, "block": list(self._block)}

    def go_on(self, saved: dict[str, Any]) -> None:
        """Draw what would have come next when `saved` was called."""
        self._generator.bit_generator.state = saved["generator"]
        self._block = list(saved["block"])

    def _draw(self) -> list[float]:
        if self._torch is None:
            return self._generator.random(_BLOCK).tolist()
        made = self._torch.rand(
            _BLOCK, generator=self._generator, dtype=self._torch.float64, device=self._generator.device
        )
        return made.tolist()
