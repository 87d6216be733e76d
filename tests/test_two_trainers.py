"""Two processes train as one does on the concatenated batch: discriminators, balancer and entropies too."""

from pathlib import Path

import torch

from .two_trainers import CASES, run_all


def test_two_processes_equal_one_on_the_concatenated_batch(tmp_path: Path) -> None:
    alone, first, second = run_all(tmp_path)
    assert alone.keys() == CASES.keys()
    for case, expected in alone.items():
        for name, tensor in expected.items():
            message = f"{case}: {name}"
            assert torch.equal(first[case][name], second[case][name]), message
            torch.testing.assert_close(
                first[case][name], tensor, atol=2e-5, rtol=1e-4, msg=lambda told, m=message: f"{m}: {told}"
            )
