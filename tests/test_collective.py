"""Sums and gatherings: over two processes, and without any."""

import pytest
import torch
from torch import nn

from tokenzoo.zoo import collective

from .two_ranks import DIM, parts, results, rows


def test_messages_between_two_ranks() -> None:
    """Sums in one message, columns in memory order, rows in unequal numbers and on one rank only."""
    own = [torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3) + 10]
    for found in results()["messages"]:
        assert torch.equal(found["first"], own[0] + own[1])
        assert torch.equal(found["second"], (own[0] + own[1])[0, :2])
        assert torch.equal(found["broadcast"], own[0].T)
        assert torch.equal(found["gather"], torch.stack([own[0].T, own[1].T]))
        assert torch.equal(found["rows"], torch.cat([own[0][:1], own[1]]))
        assert torch.equal(found["rows of one"], own[1])
        assert found["ranks"].item() == 2


def test_the_mean_over_unequal_ranks_is_that_of_one_process_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Linear(DIM, 3)
    whole = model(rows(0)).softmax(1).mean(0)
    torch.special.entr(whole).sum().backward()
    for found in results()["mean"]:
        torch.testing.assert_close(found["mean"], whole.detach())
        torch.testing.assert_close(found["gradient"], model.weight.grad)
        torch.testing.assert_close(found["of one"], parts(0)[1].mean(0))


def test_one_process_needs_no_messages() -> None:
    tensor = torch.randn(2, 3, requires_grad=True)
    assert collective.num_ranks() == 1
    (total,) = collective.sum_over_ranks(tensor)
    assert torch.equal(total, tensor) and not total.requires_grad
    assert collective.mean_over_ranks(tensor, 5) is tensor
    assert collective.broadcast_from_first(tensor) is tensor
    assert torch.equal(collective.gather(tensor), tensor[None])
    assert torch.equal(collective.gather_rows(tensor), tensor)


def test_one_message_has_one_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collective, "num_ranks", lambda: 2)
    with pytest.raises(ValueError, match=r"torch\.float32, torch\.int64.*cast"):
        collective.sum_over_ranks(torch.zeros(2), torch.zeros(2, dtype=torch.int64))
