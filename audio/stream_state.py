"""What a stream remembers between its chunks, kept outside the modules so that streams share one model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


class StreamState:
    """The memory of one stream: what each part left for its next step. The parts stay as they are."""

    def __init__(self) -> None:
        self._memories: dict[nn.Module, Any] = {}

    def recall(self, part: nn.Module) -> Any | None:
        """What `part` left at its last step; None before its first."""
        return self._memories.get(part)

    def remember(self, part: nn.Module, memory: Any) -> None:
        """Keep `memory` for the next step of `part`; no views of a chunk, which they would pin."""
        self._memories[part] = memory


@runtime_checkable
class Streaming(Protocol):
    """A part that depends on the past."""

    def step(self, x: Tensor, state: StreamState, last: bool = False) -> Tensor:
        """The outputs that the new inputs (B, C, T), T may be 0, make ready: (B, C', T'), T' may be 0.

        last  no more will come: everything held back is given out. All steps together give `forward` of
              all inputs together.
        """
        ...


def step_through(parts: Iterable[nn.Module], x: Tensor, state: StreamState, last: bool = False) -> Tensor:
    """One step of parts in a row, see `Streaming.step`; a part without a `step` looks at one place alone."""
    for part in parts:
        x = part.step(x, state, last) if isinstance(part, Streaming) else part(x)
    return x
