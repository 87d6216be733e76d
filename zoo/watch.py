"""What a part of a tokenizer gave on the way: for objectives that look inside."""

from __future__ import annotations

from typing import Any

from torch import nn


class Watch:
    """Keeps the last output of a module in training mode, until it is taken.

    The module itself is not changed, and what it gives in evaluation is not kept.
    """

    def __init__(self, module: nn.Module) -> None:
        self._seen: list[Any] = []
        self._handle = module.register_forward_hook(self._see)

    def take(self) -> Any:
        """The last output since the last call. RuntimeError when there was none."""
        if not self._seen:
            raise RuntimeError("the part that this objective watches has not run in this step")
        return self._seen.pop()

    def close(self) -> None:
        """Watches no longer."""
        self._handle.remove()
        self._seen.clear()

    def _see(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if module.training:
            self._seen[:] = [output]
