"""Snake against its formula, the alias-free activation against the definition that spreads samples out."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tokenzoo.audio import snake
from tokenzoo.audio.snake import AliasFreeActivation, Snake, SnakeBeta

pytestmark = pytest.mark.usefixtures("one_thread")

RECORDED = Path(__file__).parent / "golden" / "bigcodec-a" / "model.safetensors"


@torch.no_grad()
def drawn(module: nn.Module, low: float = -1.0) -> nn.Module:
    chance = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.copy_(torch.rand(parameter.shape, generator=chance) * (1 - low) + low)
    return module


def signal(samples: int = 50) -> Tensor:
    return torch.randn(2, 4, samples, generator=torch.Generator().manual_seed(1))


def test_snake_is_its_formula_and_leaves_the_signal_alone() -> None:
    layer, x = drawn(Snake(4), low=0.2), signal()
    alpha, before = layer.alpha.detach(), x.clone()
    expected = x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).pow(2)
    assert torch.equal(layer(x), expected)
    with torch.no_grad():
        assert torch.equal(layer(x), expected) and torch.equal(x, before)


@pytest.mark.parametrize("log_scale", [False, True])
def test_snake_beta(log_scale: bool) -> None:
    layer, x = drawn(SnakeBeta(4, log_scale=log_scale), low=0.2), signal()
    a, b = layer.alpha[:, None], layer.beta[:, None]
    a, b = (a.exp(), b.exp()) if log_scale else (a, b)
    torch.testing.assert_close(layer(x), x + torch.sin(a * x).pow(2) / (b + 1e-9))


def spread_out(act: nn.Module, x: Tensor) -> Tensor:
    """Zeros between samples, a filter, the activation, the filter, every second sample."""
    taps = snake._low_pass().to(x).expand(x.shape[1], 1, -1)
    raised = 2 * F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), taps, stride=2, groups=x.shape[1])
    active = act(raised[..., 15:-15])
    return F.conv1d(F.pad(active, (5, 6), mode="replicate"), taps, stride=2, groups=x.shape[1])


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 50])
def test_alias_free_activation_is_the_spread_out_one(samples: int) -> None:
    act, x = drawn(SnakeBeta(4)).double(), signal(samples).double()
    expected = spread_out(act, x)
    assert x.shape == expected.shape
    torch.testing.assert_close(AliasFreeActivation(act)(x), expected, atol=1e-12, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(AliasFreeActivation(act)(x), expected, atol=1e-12, rtol=0)


def test_alias_free_activation_has_gradients_and_looks_five_samples_far() -> None:
    layer, x = AliasFreeActivation(drawn(SnakeBeta(4))).double(), signal(12).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, x[:1, :, :6].detach().requires_grad_())
    (seen,) = torch.autograd.grad(layer(x)[0, 0, 6], x)
    assert seen[0, 0].nonzero().flatten().tolist() == list(range(1, 12))
    assert seen[0, 1:].count_nonzero() == seen[1].count_nonzero() == 0


def test_the_filter_is_the_official_one() -> None:
    taps = snake._low_pass()
    assert math.isclose(float(taps.sum()), 1, rel_tol=1e-6)
    recorded = {name: tensor for name, tensor in load_file(RECORDED).items() if name.endswith("filter")}
    assert recorded and all(torch.equal(each.flatten(), taps) for each in recorded.values())
