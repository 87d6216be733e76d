"""Post-training quantization: recorded ids of TokenBridge, its formulas, its error, one id per feature."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tokenzoo.zoo.post_training import PostTrainingQuantizer

from .agreement import check_agreement, draw, same_bits


@pytest.mark.parametrize(
    "options", [{}, {"scale": 0.2325}, {"scale": (0.5, 1.0, 2.0), "shift": (0.0, 1.0, -9.0)}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_forward_is_decode_of_encode(options: dict[str, float], dtype: torch.dtype, autocast: bool) -> None:
    quantizer = PostTrainingQuantizer(3, 16, **options)
    for shape in ((7,), (2, 9), (0,), ()):
        quantized = check_agreement(quantizer, draw(*shape, 3, scale=3).to(dtype), autocast=autocast)
        assert quantized.values.shape == (*shape, 3)


@pytest.mark.parametrize("bits", [6, 4])
def test_tokenbridge_as_recorded(bits: int) -> None:
    """From YuqingWang1029/TokenBridge by its own code, with the latents its encoder made."""
    fixture = load_file(Path(__file__).parent / "golden" / "quantizers" / "tokenbridge.safetensors")
    quantizer = PostTrainingQuantizer(8, 2**bits)
    assert torch.equal(quantizer.encode(fixture["latents"]), fixture[f"ids_{bits}bit"].long())
    quantized = quantizer(fixture["latents"])
    # The last digit depends on the exponential of the machine.
    torch.testing.assert_close(quantized.latents, fixture[f"values_{bits}bit"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [2, 3, 16, 64, 256])
def test_nearest_mean_wins_as_published(levels: int) -> None:
    """Against the distance to every mean, on a fine grid and on the edges themselves."""
    quantizer = PostTrainingQuantizer(1, levels)
    means = torch.tensor(quantizer.means)
    middles = (means[1:] + means[:-1]) / 2 / 3 * 5
    fine = torch.linspace(-6, 6, 20_001)
    latents = torch.cat([fine, middles, middles.nextafter(fine[:1]), middles.nextafter(fine[-1:])])
    normal = (latents + 5) / 10 * 6 - 3
    expected = (normal.clamp(-3, 3)[:, None] - means).abs().argmin(dim=1)
    assert torch.equal(quantizer.encode(latents[:, None])[:, 0], expected)


def test_a_tie_goes_to_the_lower_bin() -> None:
    """Four bins whose middle edge is 0, for the middle means are equal but for the sign."""
    quantizer = PostTrainingQuantizer(1, 4)
    assert quantizer.means[1] == -quantizer.means[2]
    odd = torch.tensor([0.0, 1e-6, torch.nan, -1e9, 1e9])
    assert quantizer.encode(odd[:, None])[:, 0].tolist() == [1, 2, 0, 0, 3]


def test_bins_are_equally_likely_and_stand_for_their_means() -> None:
    quantizer = PostTrainingQuantizer(1, 16, clip=3.0)
    latents = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    latents = latents[latents.abs() < 3][:, None]
    # Cells of the nearest mean are not quite the bins, so the counts are near, not equal.
    usage = quantizer(latents).usage
    assert usage is not None
    shares = usage[0].double() / len(latents)
    assert float(shares.min()) > 0.04 and float(shares.max()) < 0.085
    edges = torch.special.ndtri(torch.linspace(0, 1, 17, dtype=torch.float64)).clamp(-3, 3)
    bins = torch.bucketize(latents, edges[1:-1])
    means = torch.stack([latents[bins == each].mean() for each in range(16)])
    torch.testing.assert_close(torch.tensor(quantizer.means).double(), means, rtol=0, atol=0.02)


@settings(deadline=None, max_examples=20)
@given(levels=st.integers(2, 300), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_error_is_half_a_gap_inside_and_the_overshoot_outside(
    levels: int, scale: float, shift: float
) -> None:
    quantizer = PostTrainingQuantizer(1, levels, scale=scale, shift=shift)
    latents = draw(500, 1, seed=levels, scale=3 / scale) + shift
    values = quantizer.decode(torch.arange(levels)[:, None])
    error = (quantizer(latents).latents - latents).abs()
    inside = (latents >= values[0]) & (latents <= values[-1])
    assert float(error[inside].max()) <= float(values.diff(dim=0).max()) / 2 * 1.001 + 1e-5
    outside = torch.maximum(values[0] - latents, latents - values[-1])[~inside]
    torch.testing.assert_close(error[~inside], outside, rtol=0, atol=1e-5)


def test_one_id_and_one_count_per_feature() -> None:
    quantizer = PostTrainingQuantizer(3, 8)
    quantized = quantizer(draw(2, 5, 3))
    assert quantizer.codebook_sizes == (8, 8, 8) and quantized.usage is not None
    for feature in range(3):
        counts = torch.bincount(quantized.values[..., feature].flatten(), minlength=8)
        assert torch.equal(quantized.usage[feature], counts)
    assert quantized.loss.item() == 0


def test_fitted_to_latents_of_any_tokenizer() -> None:
    latents = draw(3000, 4) * torch.tensor([0.1, 1.0, 5.0, 0.0]) + torch.tensor([7.0, 0.0, -3.0, 2.0])
    quantizer = PostTrainingQuantizer.fitted(latents, 64)
    error = (quantizer(latents).latents - latents).square().mean(dim=0).sqrt()
    assert bool((error[:3] / torch.tensor([0.1, 1.0, 5.0]) < 0.1).all())
    torch.testing.assert_close(error[3], torch.tensor(0.0), rtol=0, atol=1e-5)
    fixed = PostTrainingQuantizer(4, 64)
    assert float((fixed(latents).latents - latents).square().mean()) > 10 * float(error.square().mean())


def test_gradient_passes() -> None:
    latents, weights = draw(4, 3).requires_grad_(), draw(4, 3, seed=1)
    (PostTrainingQuantizer(3)(latents).latents * weights).sum().backward()
    assert latents.grad is not None and torch.equal(latents.grad, weights)


def test_built_on_the_meta_device_it_is_whole() -> None:
    with torch.device("meta"):
        built = PostTrainingQuantizer(3, 8)
    assert built.means == PostTrainingQuantizer(3, 8).means and not built.state_dict()
    assert same_bits(built.decode(torch.zeros(3, dtype=torch.int64)), built(torch.full((3,), -9.0)).latents)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "at least 1 feature"),
        ({"dim": 2, "levels": 1}, "2 levels"),
        ({"dim": 2, "scale": (1.0,)}, r"scale=\(1.0,\): expected a number or 2"),
        ({"dim": 2, "scale": 0}, "no scale of 0"),
        ({"dim": 2, "shift": math.nan}, "finite"),
        ({"dim": 2, "clip": 0.0}, "clip=0.0"),
        ({"dim": 2, "levels": 1024}, "1024 levels within 3.0 deviations: some are empty"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PostTrainingQuantizer(**arguments)  # pyright: ignore
