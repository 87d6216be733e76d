"""A weight is the share of the gradient at the signal, whatever the scale of its loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenzoo.zoo.balancer import Balancer


def gradient(balancer: Balancer, signal: Tensor, scale: float = 1.0, **only: bool) -> Tensor:
    """Of the balanced sum of a mean over the first half of each item, scaled, and one over the other half."""
    signal = signal.clone().requires_grad_()
    losses = {"left": scale * signal[:, :2].mean(), "right": signal[:, 2:].square().mean()}
    losses = {name: loss for name, loss in losses.items() if only.get(name, True)}
    balancer(losses, signal).backward()
    assert signal.grad is not None
    return signal.grad


SIGNAL = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])


def test_shares_of_the_length_by_hand() -> None:
    found = gradient(Balancer({"left": 3.0, "right": 1.0}), SIGNAL)
    # The mean over items of each gradient's length is its share of 1; here the left ones are all alike.
    assert found[:, :2].norm(dim=1).tolist() == pytest.approx([0.75, 0.75])
    assert float(found[:, 2:].norm(dim=1).mean()) == pytest.approx(0.25)
    assert found[0, 2:].tolist() == pytest.approx((found[1, 2:] * torch.tensor([3 / 7, 4 / 8])).tolist())


def test_the_scale_of_a_loss_does_not_matter() -> None:
    one, other = (gradient(Balancer({"left": 1.0, "right": 1.0}), SIGNAL, scale) for scale in (1.0, 1e4))
    torch.testing.assert_close(one, other)
    longer = gradient(Balancer({"left": 1.0, "right": 1.0}, total_norm=2.0), SIGNAL)
    torch.testing.assert_close(longer, 2 * one)


def test_the_length_is_a_running_mean() -> None:
    balancer = Balancer({"left": 1.0}, decay=0.5)
    first = gradient(balancer, SIGNAL, right=False)
    second = gradient(balancer, SIGNAL, scale=3.0, right=False)
    # Lengths 1 and 3 with weights 1/4 and 1/2: their mean is (1/4 + 3/2) / (3/4) = 7/3.
    torch.testing.assert_close(second, first * 3 / (7 / 3))


def test_a_loss_that_is_not_there_yet_leaves_the_others_their_share() -> None:
    balancer = Balancer({"left": 1.0, "right": 1.0})
    found = gradient(balancer, SIGNAL, right=False)
    assert found[:, :2].norm(dim=1).tolist() == pytest.approx([0.5, 0.5]) and not found[:, 2:].any()
    assert balancer.seen.tolist() == pytest.approx([0.001, 0.0])


def test_a_loss_of_gradient_zero_is_harmless() -> None:
    signal = torch.zeros(2, 4)
    assert gradient(Balancer({"right": 1.0}), signal, left=False).abs().max() == 0


def test_what_cannot_be_weighed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"losses \['other'\] have no weight; known: left"):
        Balancer({"left": 1.0})({"other": SIGNAL.mean()}, SIGNAL)
    for wrong in ({}, {"left": 0.0}, {"left": -1.0, "right": 2.0}):
        with pytest.raises(ValueError, match="expected numbers from 0, one of them above"):
            Balancer(wrong)
    with pytest.raises(ValueError, match=r"decay=1\.0"):
        Balancer({"left": 1.0}, decay=1.0)
