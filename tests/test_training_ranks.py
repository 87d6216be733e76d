"""Two processes under DDP are one on the concatenated batch: every family, discriminators and chance too."""

from __future__ import annotations

import pytest
import torch

from .training_ranks import CASES, results

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.usefixtures("one_thread", "toy_families"),
]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(case: str) -> None:
    """Steps agree to a thousandth of the largest one of each tensor, and to what rounds off at a weight."""
    first, second = results()[case]
    alone = CASES[case](0, 1)
    assert first.keys() == second.keys() == alone.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    moved = {name for name in alone if name.startswith("moved ") and alone[name].any()}
    apart = {name: float((first[name] - alone[name]).abs().max()) for name in moved}
    allowed = {name: 1e-6 + 1e-3 * float(alone[name].abs().max()) for name in moved}
    assert moved and {name: size for name, size in apart.items() if not size <= allowed[name]} == {}
