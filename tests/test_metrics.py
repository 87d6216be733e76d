"""PSNR and SSIM against closed forms and scikit-image."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from tokenzoo.image.metrics import psnr, ssim


def test_psnr_of_a_constant_error():
    images = torch.full((2, 3, 16, 16), 0.5)
    assert torch.allclose(psnr(images, images + torch.tensor([0.1, 0.01])[:, None, None, None]),
                          torch.tensor([20.0, 40.0], dtype=torch.float64), atol=1e-4)  # fmt: skip
    assert math.isinf(float(psnr(images, images)[0]))


def test_ssim_agrees_with_scikit_image():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 40, 52, generator=generator)
    noisy = (images + 0.1 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    expected = [
        structural_similarity(
            noisy[i].double().numpy(), images[i].double().numpy(), channel_axis=0, data_range=1.0,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for i in range(2)
    ]  # fmt: skip
    assert ssim(noisy, images).tolist() == pytest.approx(expected, abs=1e-9)
    assert ssim(images, images).tolist() == pytest.approx([1.0, 1.0])


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\) and \(1, 3, 9, 8\)"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8))
