"""Binary spherical quantization: the official loss written out in float64, groups, lengths, wide codes."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenzoo.zoo.bsq import BinarySphericalQuantizer

from .agreement import check_agreement, draw, same_bits


@pytest.mark.parametrize("dim", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_forward_is_decode_of_encode(dim: int, dtype: torch.dtype, autocast: bool) -> None:
    quantizer = BinarySphericalQuantizer(dim)
    for shape in ((7,), (2, 9), (0,), ()):
        quantized = check_agreement(quantizer, draw(*shape, dim).to(dtype), autocast=autocast)
        assert bool(quantized.loss.isfinite())


@pytest.mark.parametrize("dim", [36, 62])
def test_wide_codes_are_not_counted(dim: int) -> None:
    quantizer = BinarySphericalQuantizer(dim)
    latents = draw(50, dim)
    quantized = quantizer(latents)
    assert quantized.usage is None and bool(quantized.loss.isfinite())
    assert torch.equal(quantized.values, quantizer.encode(latents))
    assert same_bits(quantized.latents, quantizer.decode(quantized.values))
    assert torch.equal(quantized.latents > 0, latents > 0)


def test_codes_are_corners_of_the_cube_in_the_sphere() -> None:
    quantizer = BinarySphericalQuantizer(9)
    codes = quantizer.decode(torch.arange(512))
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(512))
    assert torch.equal(codes.abs(), torch.full((512, 9), 1 / 3)) and len(codes.unique(dim=0)) == 512
    assert quantizer.encode(torch.tensor([[1.0] + [-2] * 8])).item() == 256, (
        "the first feature is the highest"
    )


def official_loss(latents: Tensor, group: int, inverse_temperature: float) -> Tensor:
    """bsq-vit with post_q_l2_norm, beta 0.3, gamma0 0.7, gamma 0.9, zeta 1.1: a softmax for each group."""
    dim = latents.shape[-1]
    z = F.normalize(latents, dim=-1)
    commitment = ((z.sign() / dim**0.5 - z) ** 2).sum(dim=-1).mean()
    corners = torch.arange(2**group)[:, None] >> torch.arange(group - 1, -1, -1) & 1
    corners = (corners.to(z) * 2 - 1) / dim**0.5
    probabilities = (2 * inverse_temperature * z.unflatten(-1, (-1, group)) @ corners.T).softmax(dim=-1)
    sample = torch.special.entr(probabilities).sum(dim=(-1, -2)).mean()
    used = torch.special.entr(probabilities.flatten(0, -3).mean(dim=0)).sum()
    return 0.3 * commitment + 1.1 * (0.7 * sample - 0.9 * used) / inverse_temperature


@pytest.mark.parametrize("group", [1, 3, 6])
@pytest.mark.parametrize("inverse_temperature", [1.0, 100.0])
def test_loss_and_gradient_are_the_official_ones(group: int, inverse_temperature: float) -> None:
    quantizer = BinarySphericalQuantizer(
        6,
        commitment_weight=0.3,
        sample_entropy_weight=0.7,
        code_entropy_weight=0.9,
        entropy_weight=1.1,
        inverse_temperature=inverse_temperature,
        group_size=group,
    )
    latents = draw(4, 10, 6).double().requires_grad_()
    expected = official_loss(latents, group, inverse_temperature)
    found = quantizer(latents).loss
    # Codes are float32, as the id decodes to them.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    ours, theirs = (torch.autograd.grad(loss, latents)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_one_group_is_the_exact_joint_entropy() -> None:
    latents = draw(200, 12)
    options = {"commitment_weight": 0.0, "sample_entropy_weight": 0.0, "inverse_temperature": 100.0}
    joint, groups = (
        -BinarySphericalQuantizer(12, group_size=size, **options)(latents).loss  # pyright: ignore
        for size in (None, 4)
    )
    # 200 rows that are sure of their codes use at most 200 of 4096; their groups of 4 bits hide that.
    assert joint * 100 < torch.tensor(200.0).log() + 0.5 < groups * 100


def test_gradient_meets_the_normalisation() -> None:
    latents, weights = draw(5, 4).requires_grad_(), draw(5, 4, seed=1)
    (BinarySphericalQuantizer(4)(latents).latents * weights).sum().backward()
    assert latents.grad is not None
    # Along the latent itself, on the sphere, there is no slope.
    torch.testing.assert_close((latents.grad * latents).sum(dim=1), torch.zeros(5), rtol=0, atol=1e-5)


def test_training_uses_more_codes() -> None:
    """Points that start in a corner spread over the codes when the entropy alone is trained."""
    quantizer = BinarySphericalQuantizer(5, sample_entropy_weight=0.2, inverse_temperature=10.0)
    latents = (draw(64, 5) * 0.3 + 1).requires_grad_()
    before = len(quantizer.encode(latents).unique())
    optimizer = torch.optim.Adam([latents], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        quantizer(latents).loss.backward()
        optimizer.step()
    assert before <= 4 and len(quantizer.encode(latents).unique()) >= 24
