"""Residual finite scalar quantization against the two published rules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.zoo.residual_fsq import ResidualFiniteScalarQuantizer, Rule

from .agreement import check_agreement, draw, same_bits

LEVELS = [8, 5, 4, 3]


@pytest.mark.parametrize("rule", ["clamped", "bounded"])
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(), (7,), (2, 3, 4), (0,), (3, 0)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    autocast=st.booleans(),
    dropping=st.booleans(),
)
def test_forward_is_decode_of_encode(
    rule: Rule,
    seed: int,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    scale: float,
    autocast: bool,
    dropping: bool,
) -> None:
    quantizer = ResidualFiniteScalarQuantizer(LEVELS, 3, rule=rule)
    keywords = {}
    if dropping and shape:
        draws = torch.Generator().manual_seed(seed)
        keywords = {"lengths": torch.randint(0, 4, shape[:1], generator=draws)}
    check_agreement(
        quantizer, draw(*shape, 4, seed=seed, scale=scale).to(dtype), autocast=autocast, **keywords
    )


def join(digits: torch.Tensor) -> torch.Tensor:
    return (digits.long() * torch.tensor([1, 8, 40, 160])).sum(dim=-1)


def test_clamped_is_version_1_32() -> None:
    """Softly clamped once; symmetric levels, floor(x + 1/2), clamped; steps of L^-q."""
    latents, sizes = draw(400, 4) * 1.5, torch.tensor(LEVELS)
    limit = 1 + 1 / (sizes - 1)
    residual, total, ids = torch.tanh(latents / limit) * limit, torch.zeros(400, 4), []
    for stage in range(3):
        scale = sizes.float() ** -stage
        digits = ((sizes - 1) * ((residual / scale).clamp(-1, 1) + 1) / 2 + 0.5).floor()
        ids.append(join(digits))
        codes = (2 / (sizes - 1) * digits - 1) * scale
        residual, total = residual - codes, total + codes
    quantizer = ResidualFiniteScalarQuantizer(LEVELS, 3)
    assert quantizer.codebook_sizes == (480, 480, 480) and quantizer.keeps == (1, 2, 3)
    quantized = quantizer(latents)
    assert torch.equal(quantized.values, torch.stack(ids, dim=-1))
    torch.testing.assert_close(quantized.latents, total)
    assert quantized.loss.item() == 0 and quantized.usage.shape == (3, 480)


def test_bounded_is_version_1_17() -> None:
    """Bounded once in steps, then again by every stage; steps of (L - 1)^-q. X-Codec 2 has one stage."""
    latents, sizes = draw(400, 4) * 1.5, torch.tensor(LEVELS)
    half, offset = (sizes - 1) * (1 + 1e-3) / 2, torch.where(sizes % 2 == 0, 0.5, 0.0)

    def bound(z: torch.Tensor) -> torch.Tensor:
        return (z + (offset / half).atanh()).tanh() * half - offset

    residual, total, ids = bound(latents), torch.zeros(400, 4), []
    for stage in range(3):
        scale = (sizes - 1.0) ** -stage
        steps = bound(residual / scale).round()
        ids.append(join(steps + sizes // 2))
        codes = steps / (sizes // 2) * scale
        residual, total = residual - codes, total + codes
    quantized = ResidualFiniteScalarQuantizer(LEVELS, 3, rule="bounded")(latents)
    assert torch.equal(quantized.values, torch.stack(ids, dim=-1))
    torch.testing.assert_close(quantized.latents, total)


def test_every_stage_comes_closer() -> None:
    """Five levels are half apart, so the first errs by a quarter, each further one by a fifth of that."""
    quantizer, latents = ResidualFiniteScalarQuantizer([5, 5, 5], 4), draw(200, 3, scale=2.0)
    values, squashed = quantizer.encode(latents), 1.25 * torch.tanh(latents / 1.25)
    for keep in range(1, 5):
        error = (quantizer.decode(values[:, :keep]) - squashed).abs().max().item()
        assert error == pytest.approx(0.25 * 5.0 ** (1 - keep), rel=0.05)


def test_prefixes_decode() -> None:
    quantizer, latents = ResidualFiniteScalarQuantizer(LEVELS, 3), draw(4, 9, 4)
    together = quantizer(latents, lengths=torch.tensor([0, 1, 2, 3]))
    values = quantizer.encode(latents)
    for keep in (1, 2, 3):
        assert same_bits(together.latents[keep], quantizer.decode(values[keep, :, :keep]))
        assert torch.equal(quantizer.encode(latents[keep], keep=keep), values[keep, :, :keep])


@pytest.mark.parametrize("rule", ["clamped", "bounded"])
def test_gradient_passes_once_and_meets_the_squashing(rule: Rule) -> None:
    quantizer, latents = ResidualFiniteScalarQuantizer(LEVELS, 3, rule=rule), draw(6, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(quantizer(latents).latents.sum(), latents)
    sizes = torch.tensor(LEVELS)
    half, offset = (sizes - 1) * (1 + 1e-3) / 2, torch.where(sizes % 2 == 0, 0.5, 0.0)
    squashed = (
        torch.tanh(latents / (1 + 1 / (sizes - 1)))
        if rule == "clamped"
        else torch.tanh(latents + torch.atanh(offset / half))
    )
    expected = (1 - squashed.square()) * (1 if rule == "clamped" else half)
    torch.testing.assert_close(gradient, expected.detach())


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match="rule 'hard'; expected 'clamped' or 'bounded'"):
        ResidualFiniteScalarQuantizer(LEVELS, 3, rule="hard")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="each 2 or more"):
        ResidualFiniteScalarQuantizer([1, 5], 3)
    with pytest.raises(ValueError, match="0 stages"):
        ResidualFiniteScalarQuantizer(LEVELS, 0)
    with pytest.raises(ValueError, match=r"\(\.\.\., 4\)"):
        ResidualFiniteScalarQuantizer(LEVELS, 3).encode(draw(2, 3))
