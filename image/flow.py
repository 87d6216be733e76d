"""Sampling from a rectified flow (Liu et al. 2022, arXiv 2209.03003), with two kinds of guidance.

The path from data x to noise e is straight, x_t = (1 - t) x + t e, and a network predicts its velocity e - x.
Guidance compares what the network says under a condition with what it says without: classifier-free (Ho and
Salimans 2022, arXiv 2207.12598), or adaptive projected (Sadat et al. 2024, arXiv 2410.02416), which keeps
colours from burning out at high scales.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.config import check_range

MAX_STEPS = 1000
# Adaptive projected guidance as FlexTok sets it: every update takes back half of the one before, and none is
# longer than the threshold.
MOMENTUM = -0.5
MAX_UPDATE_NORM = 2.5

Velocity = Callable[[Tensor, Tensor], Tensor]


def sample_flow(
    velocity: Velocity, noise: Tensor, *, steps: int, guidance: float = 1.0, norm_guidance: bool = False
) -> Tensor:
    """Data at t = 0 out of noise at t = 1, by Euler steps of equal length.

    velocity       of points (B, C, H, W) at times (B,), as (B, C, H, W). With guidance it is asked for twice
                   as many: every point under its condition, then every point again without
    noise          (B, C, H, W) float; the result has its dtype
    steps          1 ... 1000
    guidance       how far to go beyond the unconditional velocity; 1 asks for the condition alone
    norm_guidance  adaptive projected guidance instead of the classifier-free one

    Raises ValueError for steps or guidance out of range.
    """
    check_range("steps", steps, 1, MAX_STEPS)
    check_range("guidance", guidance, -1e6, 1e6)
    points, average = noise, torch.zeros_like(noise)
    for step in range(steps, 0, -1):
        if guidance == 1:
            step_velocity = velocity(points, _times(step / steps, points))
        else:
            twice = torch.cat([points, points])
            conditional, unconditional = velocity(twice, _times(step / steps, twice)).to(noise.dtype).chunk(2)
            difference = conditional - unconditional
            if norm_guidance:
                average = difference + MOMENTUM * average
                step_velocity = conditional + (guidance - 1) * _projected(average, conditional)
            else:
                step_velocity = unconditional + guidance * difference
        points = points - step_velocity.to(noise.dtype) / steps
    return points


def _times(time: float, points: Tensor) -> Tensor:
    return torch.full((len(points),), time, device=points.device)


def _projected(update: Tensor, prediction: Tensor) -> Tensor:
    """`update` (B, C, H, W), not longer than the threshold, without its part along `prediction`.

    In float64 as in the official code; MPS has none.
    """
    axes = (1, 2, 3)
    norm = torch.linalg.vector_norm(update, dim=axes, keepdim=True)
    update = update * (MAX_UPDATE_NORM / norm.clamp(min=MAX_UPDATE_NORM))
    wide = torch.float32 if update.device.type == "mps" else torch.float64
    rows, along = update.to(wide).flatten(1), F.normalize(prediction.to(wide).flatten(1), dim=1)
    across = rows - (rows * along).sum(dim=1, keepdim=True) * along
    return across.view_as(update).to(update.dtype)
