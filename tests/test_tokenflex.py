"""TokenFLEX: the projector of arXiv 2504.03154, and what drawing the length at each step gives."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, nn
from torch.nn import functional as F

from tokenzoo.image.tokenflex import SwiGlu, TokenFlex, TokenFlexConfig, adaptive_pool
from tokenzoo.zoo.length_policy import LengthPolicy

from .picture_reader import PictureReader, draw_cells
from .toys_visual import SmallTokenFlexConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def make() -> TokenFlex:
    torch.manual_seed(0)
    return TokenFlex(SmallTokenFlexConfig(sides=(1, 2, 4)))


def test_the_gate_on_small_numbers() -> None:
    """W_3 (SiLU(W_1 x) * W_2 x) of a normalised x = (-1, 1)."""
    gate = SwiGlu(2, 1, 1)
    with torch.no_grad():
        for layer, weight in ((gate.gate, [[0.0, 2.0]]), (gate.up, [[1.0, 4.0]]), (gate.down, [[10.0]])):
            layer.weight.copy_(torch.tensor(weight))
            nn.init.zeros_(layer.bias)
    expected = 10 * (2 / (1 + torch.exp(torch.tensor(-2.0)))) * (-1 + 4)
    torch.testing.assert_close(gate(torch.tensor([[3.0, 5.0]])), expected[None, None], atol=1e-3, rtol=0)


def test_pooling_where_the_side_divides_is_the_mean_of_windows() -> None:
    features = torch.randn(2, 12, 12, 3, generator=Generator().manual_seed(0))
    for side in (1, 2, 3, 4, 6, 12):
        expected = F.adaptive_avg_pool2d(features.permute(0, 3, 1, 2), side).flatten(2).mT
        torch.testing.assert_close(adaptive_pool(features, side), expected)


def test_pooling_elsewhere_stretches_the_map_first() -> None:
    """A row 0, 3, 6 over two windows: stretched to 0, 2, 4, 6, so 1 and 5."""
    row = torch.tensor([0.0, 3.0, 6.0]).expand(3, 3)[None, :, :, None]
    torch.testing.assert_close(adaptive_pool(row, 2).flatten(), torch.tensor([1.0, 5.0, 1.0, 5.0]))
    constant = torch.ones(1, 27, 27, 1)
    assert [adaptive_pool(constant, side).shape[1] for side in (8, 12, 16)] == [64, 144, 256]
    torch.testing.assert_close(adaptive_pool(constant, 8), torch.ones(1, 64, 1))


def test_the_default_has_the_counts_of_the_paper() -> None:
    facts = TokenFlexConfig().facts()
    assert facts.keeps == (64, 144, 256) and facts.makes_fewer and not facts.has_decoder


def test_lengths_mix_in_a_batch() -> None:
    model, (images, _) = make(), draw_cells(Generator().manual_seed(0), batch=4)
    result = model(images, lengths=torch.tensor([4, 16, 1, 4]))
    assert result.signal.shape == (4, 16, 8)
    for item, count in enumerate((4, 16, 1, 4)):
        alone = model.encode(images[item : item + 1], keep=count).values[0]
        torch.testing.assert_close(result.signal[item, :count].detach(), alone)
        assert result.signal[item, count:].count_nonzero() == 0
    with pytest.raises(ValueError, match="9 tokens: tokenflex pools to 1, 4, 16"):
        model(images, lengths=torch.tensor([4, 9, 1, 4]))


def errors_after(policy: LengthPolicy) -> list[float]:
    """Of reading 1, 4 and 16 tokens, after training on the lengths of the policy."""
    model, chance = make(), Generator().manual_seed(1)
    reader = PictureReader(8)
    optimizer = torch.optim.Adam([*model.parameters(), *reader.parameters()], lr=3e-3)
    for _ in range(150):
        images, tosses = draw_cells(chance)
        reads = model(images, lengths=policy.sample(len(images), generator=chance)).signal
        optimizer.zero_grad()
        F.mse_loss(reader(reads), tosses).backward()
        optimizer.step()
    images, tosses = draw_cells(Generator().manual_seed(2), batch=512)
    with torch.no_grad():
        return [
            float(F.mse_loss(reader(model.encode(images, keep=count).values), tosses)) for count in (1, 4, 16)
        ]


def test_quality_grows_with_length_and_only_drawn_lengths_are_read_well() -> None:
    drawn = errors_after(LengthPolicy(16, "fixed", counts=(1, 4, 16), per="batch"))
    fixed = errors_after(LengthPolicy(16, "fixed", counts=(16,), per="batch"))
    assert drawn[0] > drawn[1] + 0.03 and drawn[1] > drawn[2] + 0.1
    assert drawn[2] < 0.02 and fixed[2] < 0.02
    # Worse than no look at all, which is the variance of 1/4.
    assert drawn[0] < 0.25 < fixed[0] and drawn[1] < fixed[1]
