"""Both sides of the game by hand, and that neither moves the other's weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenzoo.image.patch_gan import PatchGan
from tokenzoo.zoo.adversary import Adversary, AdversarySettings, Discriminator, Judgement


class Scale(Discriminator):
    """Says w x of a signal x, and shows the same as its only feature."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, signal: Tensor) -> list[Judgement]:
        logits = self.weight * signal
        return [Judgement(logits, [logits])]


REAL, FAKE = torch.full((2, 1), 2.0), torch.full((2, 1), -0.5)


def new_adversary(*weights: float, **settings: Any) -> Adversary:
    return Adversary([Scale(weight) for weight in weights or (1.0,)], AdversarySettings(**settings))


def first_weight(adversary: Adversary) -> nn.Parameter:
    return next(adversary.parameters())


@pytest.mark.parametrize(
    ("loss", "discriminator", "tokenizer"),
    [
        # Hinge: (0 + 0.5) / 2, and minus the logit. Least squares: (1 + 0.25) / 2, and (1 + 0.5)^2.
        ("hinge", 0.25, 0.5),
        ("least_squares", 0.625, 2.25),
    ],
)
def test_the_losses_by_hand(loss: str, discriminator: float, tokenizer: float) -> None:
    adversary = new_adversary(loss=loss)
    found = adversary.losses(REAL, FAKE)
    assert found.keys() == {"adversarial"} and float(found["adversarial"]) == pytest.approx(tokenizer)
    figures = adversary.learn(REAL, FAKE)
    expected = {"discriminator": discriminator, "real": 2.0, "fake": -0.5}
    assert {name: float(figure) for name, figure in figures.items()} == pytest.approx(expected)


def test_scales_are_averaged() -> None:
    adversary = new_adversary(1.0, 3.0)
    assert float(adversary.losses(REAL, FAKE)["adversarial"]) == pytest.approx((0.5 + 1.5) / 2)
    assert float(adversary.learn(REAL, FAKE)["discriminator"]) == pytest.approx((0.25 + 0.0) / 2)


def test_lecam_by_hand() -> None:
    """Each side is held to where the other has been: (2 + 0.2)^2 and (0.3 + 0.5)^2."""
    adversary = new_adversary(lecam=0.1)
    adversary.real_mean.fill_(0.3)
    adversary.fake_mean.fill_(-0.2)
    assert float(adversary.learn(REAL, FAKE)["discriminator"]) == pytest.approx(0.25 + 0.1 * (4.84 + 0.64))
    assert float(adversary.real_mean) == pytest.approx(0.3 + 0.001 * 1.7)
    assert float(adversary.fake_mean) == pytest.approx(-0.2 - 0.001 * 0.3)


def test_feature_matching_by_hand() -> None:
    adversary = new_adversary(features=2.0, weight=0.5)
    assert adversary.weights == {"adversarial": 0.5, "features": 2.0}
    assert float(adversary.losses(REAL, FAKE)["features"]) == pytest.approx(2.5 / 2)
    bare = Adversary([PatchGan(4, 1)], AdversarySettings(features=1.0))
    bare.judge = lambda signal: [Judgement(signal)]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="feature matching needs discriminators that give their features"):
        bare.losses(REAL, FAKE)


def test_neither_side_moves_the_other() -> None:
    adversary = new_adversary(features=1.0)
    fake = FAKE.clone().requires_grad_()
    before = float(first_weight(adversary))
    adversary.learn(REAL, fake)
    assert fake.grad is None and float(first_weight(adversary)) != before
    assert not first_weight(adversary).requires_grad and first_weight(adversary).grad is None
    moved = float(first_weight(adversary))
    torch.stack(list(adversary.losses(REAL, fake).values())).sum().backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0
    assert first_weight(adversary).grad is None and float(first_weight(adversary)) == moved


def test_the_discriminator_learns_to_tell_them_apart() -> None:
    torch.manual_seed(0)
    adversary = Adversary([PatchGan(8, 2)], AdversarySettings(learning_rate=3e-3))
    real, fake = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32) ** 3
    figures = [adversary.learn(real, fake) for _ in range(25)]
    assert float(figures[-1]["real"]) > 0.5 > -0.5 > float(figures[-1]["fake"])
    assert float(figures[-1]["discriminator"]) < 0.5 * float(figures[0]["discriminator"])


def test_accumulated_batches_are_one_big_batch() -> None:
    torch.manual_seed(0)
    real, fake = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32)
    whole = Adversary([PatchGan(4, 2)], AdversarySettings())
    halves = Adversary([PatchGan(4, 2)], AdversarySettings())
    halves.load_state_dict(whole.state_dict())
    for each in (whole, halves):  # Adam would make steps of gradients that are rounding alone
        each.optimizer = torch.optim.SGD(each.parameters(), lr=1.0)  # pyright: ignore
    start = [each.clone() for each in whole.parameters()]
    whole.learn(real, fake)
    halves.learn(real[:2], fake[:2], batches=2, is_last=False)
    assert all(torch.equal(one, other) for one, other in zip(start, halves.parameters(), strict=True))
    halves.learn(real[2:], fake[2:], batches=2)
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert any(not torch.equal(one, other) for one, other in zip(start, whole.parameters(), strict=True))


@pytest.mark.parametrize(("clip_norm", "length"), [(0.01, 0.01), (None, 0.75)])
def test_the_gradient_is_clipped(clip_norm: float | None, length: float) -> None:
    adversary = new_adversary(clip_norm=clip_norm, loss="least_squares")
    adversary.optimizer = torch.optim.SGD(adversary.parameters(), lr=1.0)  # pyright: ignore
    adversary.learn(REAL, FAKE)
    # d/dw of ((1 - 2 w)^2 + (w / 2)^2) / 2 at 1 is 2 + 0.25.
    expected = 2.25 if clip_norm is None else length
    assert 1 - float(first_weight(adversary)) == pytest.approx(expected, rel=1e-3)


def test_its_state_goes_on() -> None:
    torch.manual_seed(0)
    first, second = new_adversary(), new_adversary(3.0)
    first.learn(REAL, FAKE)
    second.load_state_dict(first.state_dict())
    second.load_training_state(copy.deepcopy(first.training_state()))
    for each in (first, second):
        each.learn(REAL, FAKE)
    assert torch.equal(first_weight(first), first_weight(second))
    assert first.optimizer.state_dict()["state"][0]["step"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "wasserstein"}, "loss 'wasserstein': expected hinge or least_squares"),
        ({"weight": -1.0}, "weight of the adversary is -1"),
        ({"lecam": float("nan")}, "lecam of the adversary is nan"),
        ({"start_step": -1}, "start_step of the adversary is -1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarySettings(**settings)
