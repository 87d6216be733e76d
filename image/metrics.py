"""How close a reconstruction is: PSNR and SSIM of images in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B, 3, H, W) in [0, 1] to (B,); infinite for equal images."""
    _check_pair(images, references)
    error = (images.double() - references.double()).square().flatten(1).mean(1)
    return -10 * torch.log10(error)


def ssim(images: Tensor, references: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), (B, 3, H, W) in [0, 1] to (B,); the mean over channels.

    Gaussian window of 11 pixels with sigma 1.5, population statistics, borders left out, as the paper does.
    """
    _check_pair(images, references)
    if min(images.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"images of {tuple(images.shape[-2:])} pixels: SSIM needs at least {SSIM_WINDOW} a side"
        )
    x, y = images.double(), references.double()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).flatten(1).mean(1)


def _blur(planes: Tensor) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW, dtype=planes.dtype, device=planes.device) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights = (weights / weights.sum()).expand(planes.shape[1], 1, -1)
    rows = F.conv2d(planes, weights[:, :, None, :], groups=planes.shape[1])
    return F.conv2d(rows, weights[:, :, :, None], groups=planes.shape[1])


def _check_pair(images: Tensor, references: Tensor) -> None:
    if images.ndim != 4 or images.shape != references.shape:
        raise ValueError(
            f"images {tuple(images.shape)} and {tuple(references.shape)}: expected one shape (B, C, H, W)"
        )
