"""What a converter makes of an official layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conversion:
    """An official checkpoint in our names.

    config   plain values of the family's configuration; None where the layout has none (the catalogue has it)
    tensors  every tensor under our name; one that nobody knows keeps its own, for the strict load to refuse
    dropped  official names that are left out on purpose
    """

    config: dict[str, Any] | None
    tensors: dict[str, Tensor]
    dropped: tuple[str, ...] = ()
