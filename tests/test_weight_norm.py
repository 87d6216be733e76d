"""Weight norm folds into the weight that torch's own would have used, in both spellings."""

import pytest
import torch
from torch import nn

from tokenzoo.checkpoints.weight_norm import fold_weight_norm, folded_name


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 5, 4), nn.ConvTranspose1d(3, 5, 4), nn.Linear(3, 5)])
def test_folded_is_what_torch_computes(layer: nn.Module) -> None:
    normed = nn.utils.parametrizations.weight_norm(layer, dim=0)
    with torch.no_grad():
        normed.parametrizations.weight.original0.mul_(1.7)
    stored = {f"a.{name}": tensor for name, tensor in normed.state_dict().items()}
    folded = fold_weight_norm(stored)
    assert set(folded) == {"a.weight", "a.bias"}
    assert torch.equal(folded["a.weight"], normed.weight)
    old = {"a.weight_g": stored["a.parametrizations.weight.original0"]}
    old["a.weight_v"] = stored["a.parametrizations.weight.original1"]
    assert torch.equal(fold_weight_norm(old)["a.weight"], normed.weight)


def test_a_part_without_its_partner_stays() -> None:
    length, direction = torch.ones(5, 1, 1), torch.ones(5, 3, 4)
    for stored in (
        {"a.weight_g": length},
        {"a.weight_v": direction},
        {"a.weight_g": length, "b.weight_v": direction},
        {"a.weight_g": torch.ones(4, 1, 1), "a.weight_v": direction},
        {"a.weight_g": length[None], "a.weight_v": direction},
    ):
        assert fold_weight_norm(stored) == stored


def test_names() -> None:
    assert folded_name("a.0.weight_g") == folded_name("a.0.weight_v") == "a.0.weight"
    assert folded_name("a.parametrizations.weight.original1") == "a.weight"
    assert folded_name("a.bias") == "a.bias"
