"""Two processes train as one does on the concatenated batch: discriminators, balancer and entropies too."""

from pathlib import Path

import pytest
import torch

from .two_trainers import CASES, alone, together

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")


@pytest.mark.usefixtures("one_thread")
def test_two_processes_equal_one_on_the_concatenated_batch(tmp_path: Path) -> None:
    first, second = together(tmp_path)
    for case, expected in alone(tmp_path).items():
        assert case in CASES and expected.keys() == first[case].keys()
        for name, tensor in expected.items():
            assert torch.equal(first[case][name], second[case][name]), f"{case}: {name}"
            torch.testing.assert_close(
                first[case][name],
                tensor,
                atol=2e-5,
                rtol=1e-4,
                msg=lambda told, where=f"{case}: {name}": f"{where}: {told}",
            )
