"""Two processes under DDP are one on the concatenated batch, discriminators and codebooks included."""

from __future__ import annotations

import pytest
import torch

from . import training_ranks

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")


@pytest.mark.parametrize("case", training_ranks.CASES, ids=lambda case: case.__name__)
def test_two_processes_are_one(case: training_ranks.Case) -> None:
    first, second = training_ranks.results()[case.__name__]
    alone = case(0, 1)
    assert first.keys() == second.keys() == alone.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    for name, tensor in alone.items():
        torch.testing.assert_close(
            first[name], tensor, atol=1e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_discriminators_took_part() -> None:
    plain, judged = (training_ranks.results()[name][0] for name in ("plain", "adversarial"))
    apart = [
        name for name in plain if name.startswith("tokenizer.") and not torch.equal(plain[name], judged[name])
    ]
    assert any("decoder" in name for name in apart)
    assert any(name.startswith("adversary.") for name in judged) and float(judged["adversary.real_mean"]) != 0
