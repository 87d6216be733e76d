"""The binary quantizer of ELM: likelier bits, drawn bits, and its loss."""

import pytest
import torch

from tokenzoo.zoo.bernoulli import BernoulliQuantizer

from .agreement import check_agreement, draw, same_bits


@pytest.mark.parametrize("dim", [1, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_forward_is_decode_of_encode(dim: int, dtype: torch.dtype, autocast: bool) -> None:
    quantizer = BernoulliQuantizer(dim).eval()
    for shape in ((7,), (2, 9), (0,), ()):
        quantized = check_agreement(quantizer, draw(*shape, dim).to(dtype), autocast=autocast)
        assert bool(quantized.loss.isfinite())
        assert bool(((quantized.latents == 0) | (quantized.latents == 1)).all())


def test_wide_codes_are_not_counted() -> None:
    quantizer = BernoulliQuantizer(32).eval()
    quantized = quantizer(draw(50, 32))
    assert quantized.usage is None and int(quantized.values.max()) > 2**31
    assert same_bits(quantized.latents, quantizer.decode(quantized.values))


def test_the_likelier_bit_without_a_generator() -> None:
    latents = torch.tensor([[3.0, -1.0, 0.0, 1e-9, 0.2, torch.nan]])
    # The official code compares the probability, and that of 1e-9 rounds to a half.
    expected = (latents.sigmoid() > 0.5).int()[0].tolist()
    assert expected == [1, 0, 0, 0, 1, 0]
    assert BernoulliQuantizer(6).encode(latents).item() == 0b100010
    assert BernoulliQuantizer(6, high_first=False).encode(latents).item() == 0b010001


def test_drawn_bits_follow_their_probabilities() -> None:
    quantizer = BernoulliQuantizer(3)
    latents = torch.tensor([-2.0, 0.0, 1.5]).expand(4000, 3)
    bits = quantizer.decode(quantizer.encode(latents, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(bits.mean(dim=0), latents[0].sigmoid(), rtol=0, atol=0.025)
    extremes = torch.tensor([[60.0, -200.0, 60.0]]).expand(500, 3)
    assert set(quantizer.encode(extremes, generator=torch.Generator().manual_seed(1)).tolist()) == {0b101}


def test_a_generator_per_item_is_the_item_alone() -> None:
    quantizer = BernoulliQuantizer(16)
    latents = draw(3, 4, 16)
    together = quantizer.encode(
        latents, generator=[torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    )
    for item, seed in enumerate((5, 6, 7)):
        alone = quantizer.encode(latents[item : item + 1], generator=torch.Generator().manual_seed(seed))
        assert torch.equal(together[item : item + 1], alone)


def test_training_draws_and_its_gradient_meets_the_sigmoid() -> None:
    quantizer = BernoulliQuantizer(8, code_weight=2.0).train()
    latents, weights = draw(50, 8).requires_grad_(), draw(50, 8, seed=1)
    torch.manual_seed(0)
    first, second = quantizer(latents), quantizer(latents)
    assert not torch.equal(first.values, second.values)
    seeded = [quantizer(latents, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(seeded[0].values, seeded[1].values)
    assert torch.equal(seeded[0].latents, quantizer.decode(seeded[0].values))
    share = latents.sigmoid()
    (gradient,) = torch.autograd.grad((first.latents * weights).sum(), latents)
    torch.testing.assert_close(gradient, weights * share * (1 - share))
    twice = share.sigmoid()
    torch.testing.assert_close(first.loss, 2 * (twice * (1 - twice)).mean())
