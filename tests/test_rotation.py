"""The rotation trick: codes bit for bit forward, an explicit rotation backward, and its edges."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.kernels.rotation import rotate_op, rotate_to


def rotation(start: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """s R of two vectors (D,), as a matrix: equation 4 of arXiv 2410.06424."""
    direction, aim = start / start.norm(), goal / goal.norm()
    middle = (direction + aim) / (direction + aim).norm()
    turn = torch.eye(len(start)).to(start) - 2 * torch.outer(middle, middle) + 2 * torch.outer(aim, direction)
    return goal.norm() / start.norm() * turn


def gradient(
    latents: torch.Tensor, quantized: torch.Tensor, upstream: torch.Tensor, **options: float
) -> torch.Tensor:
    latents = latents.clone().requires_grad_()
    rotate_to(latents, quantized, **options).backward(upstream)
    assert latents.grad is not None
    return latents.grad


def pair(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(3)]


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(0, 6),
    dim=st.integers(2, 9),
    seed=st.integers(0, 999),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_the_gradient_is_that_of_the_rotation(rows: int, dim: int, seed: int, size: float) -> None:
    latents, quantized, upstream = pair(rows, dim, seed=seed)
    latents = latents * size
    expected = [rotation(z, q).T @ g for z, q, g in zip(latents, quantized, upstream, strict=True)]
    found = gradient(latents, quantized, upstream)
    assert found.shape == latents.shape
    for row, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(row, wanted)


def test_the_rotation_of_the_reference_takes_latents_to_codes() -> None:
    latents, quantized, _ = pair(5, 4)
    for z, q in zip(latents, quantized, strict=True):
        torch.testing.assert_close(rotation(z, q) @ z, q)
        # Lengths and angles of gradients are kept, up to the one scale.
        scale = q.norm() / z.norm()
        torch.testing.assert_close(rotation(z, q).T @ rotation(z, q), torch.eye(4).double() * scale**2)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6, 1e-3, 1.0, 1e20])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_forward_is_the_code_bit_for_bit_even_near_zero(size: float, dtype: torch.dtype) -> None:
    """vector-quantize-pytorch 1.32 computes s R z and divides by max(|z|, 1e-6): at |z| = 5e-7 it returns
    0.19 to 0.55 of the code, at 1e-7 a tenth, and in bfloat16 it errs by 0.09 at any length."""
    latents, quantized, _ = pair(50, 8, dtype=torch.float32)
    latents = (latents * size).to(dtype)
    quantized[0] = -0.0
    for codes in (quantized, quantized.to(dtype)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = rotate_to(latents.clone().requires_grad_(), codes)
        assert result.dtype == codes.dtype and torch.equal(result, codes)
        assert torch.equal(result.signbit(), codes.signbit())


@pytest.mark.parametrize(
    ("latent", "code"),
    [
        ([0.0, 0.0], [1.0, 2.0]),
        ([1.0, 2.0], [0.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1e-9, 0.0], [0.0, 1.0]),
        ([1.0, 2.0], [-1.0, -2.0]),
        ([1.0, 2.0], [-2.0, -4.0 + 1e-5]),
        ([torch.nan, 0.0], [1.0, 0.0]),
        ([torch.inf, 0.0], [1.0, 0.0]),
    ],
)
def test_without_a_rotation_the_gradient_passes_straight_through(
    latent: list[float], code: list[float]
) -> None:
    upstream = torch.tensor([[0.3, -0.7]])
    assert torch.equal(gradient(torch.tensor([latent]), torch.tensor([code]), upstream), upstream)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, 3.0, 3.12])
def test_float32_is_close_to_float64_at_every_angle(angle: float) -> None:
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    latents, _, upstream = pair(50, 2)
    exact = gradient(latents, latents @ turn.T, upstream)
    found = gradient(latents.float(), (latents @ turn.T).float(), upstream.float())
    # The error of a division by 1 + cos.
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5 + 1e-6 / (1 + math.cos(angle)))


def test_one_bad_row_leaves_the_others_alone() -> None:
    latents, quantized, upstream = pair(3, 4)
    expected = gradient(latents, quantized, upstream)
    latents[1] = 0
    found = gradient(latents, quantized, upstream)
    assert torch.equal(found[[0, 2]], expected[[0, 2]]) and torch.equal(found[1], upstream[1])


def test_the_scale_can_be_bounded() -> None:
    latents, quantized, upstream = pair(6, 4)
    short = latents * 1e-3
    free, bounded = gradient(short, quantized, upstream), gradient(short, quantized, upstream, max_ratio=2.0)
    ratio = quantized.norm(dim=1, keepdim=True) / short.norm(dim=1, keepdim=True)
    torch.testing.assert_close(bounded, free / ratio * ratio.clamp(max=2))
    assert free.norm() > 100 * bounded.norm()
    for wrong in (0.0, -1.0, torch.nan):
        with pytest.raises(ValueError, match="expected a positive number"):
            rotate_to(latents, quantized, max_ratio=wrong)


def test_codes_get_no_gradient_and_dtypes_are_kept() -> None:
    latents, quantized, upstream = pair(3, 4, dtype=torch.float32)
    latents, quantized = latents.bfloat16().requires_grad_(), quantized.requires_grad_()
    rotate_to(latents, quantized).backward(upstream)
    assert latents.grad is not None and latents.grad.dtype == torch.bfloat16
    assert quantized.grad is None
    wide = gradient(latents.detach().float(), quantized.detach(), upstream)
    assert torch.equal(latents.grad, wide.bfloat16())


# opcheck itself reads the gradient of a copy that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("shape", [(5, 4), (0, 4), (1, 1), (2, 3, 4)])
def test_the_operator_is_registered_rightly(shape: tuple[int, ...]) -> None:
    latents, quantized, _ = pair(*shape, dtype=torch.float32)
    torch.library.opcheck(rotate_op, (latents.requires_grad_(), quantized, 10.0))
    torch.library.opcheck(rotate_op, (latents.detach().mT.contiguous().mT, quantized, 10.0))


def test_compiled_equals_eager() -> None:
    latents, quantized, upstream = pair(7, 4)
    compiled = torch.compile(rotate_to, backend="aot_eager", fullgraph=True)
    start = latents.clone().requires_grad_()
    compiled(start, quantized).backward(upstream)
    assert start.grad is not None and torch.equal(start.grad, gradient(latents, quantized, upstream))


def test_meta_and_misfits() -> None:
    empty = torch.empty(2, 3, device="meta")
    assert rotate_to(empty, empty).shape == (2, 3)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        rotate_to(torch.zeros(2, 3), torch.zeros(3, 2))
