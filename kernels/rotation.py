"""The rotation trick (Fifty et al. 2024, arXiv 2410.06424): codes forward, rotated gradients backward."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .precision import without_autocast, working_dtype

# A latent this much shorter than its code, or longer, has no direction worth the name.
EXTREME_RATIO = 1e6
# Of 1 + cos: below, the two point in opposite directions, and any plane of rotation would do.
ANTIPARALLEL = 1e-4


def rotate_to(latents: Tensor, quantized: Tensor, *, max_ratio: float | None = None) -> Tensor:
    """`quantized` bit for bit; the gradient turns as if its latent had been rotated and scaled onto it.

    Backward: s R^T g, with s = |q| / |z| and R the rotation in the plane of z and q that takes the direction
    of z to that of q, both constant. Where there is no such rotation (a zero, a ratio of lengths beyond 1e6,
    opposite directions) the gradient passes straight through. Computing s R z forward, as is usual, rounds,
    and gives something else near zero, where s is bounded: a tenth of q at |z| = 1e-7.

    latents    (..., D) float
    quantized  (..., D) float, its own gradient is cut
    max_ratio  upper bound of s, which grows without limit for short latents; None for none
    returns    (..., D) of the dtype of `quantized`
    """
    if latents.shape != quantized.shape or latents.ndim == 0:
        raise ValueError(
            f"latents of shape {tuple(latents.shape)}, quantized of shape {tuple(quantized.shape)}; "
            "expected both (..., D)"
        )
    if max_ratio is not None and not max_ratio > 0:
        raise ValueError(f"max_ratio={max_ratio}: expected a positive number, or None")
    dtype = working_dtype(latents, quantized)
    with without_autocast(latents.device):
        wide = rotate_op(latents.to(dtype), quantized.detach().to(dtype), max_ratio or math.inf)
        return wide.to(quantized.dtype)


@torch.library.custom_op("tokenzoo::rotate_to", mutates_args=())
def rotate_op(latents: Tensor, quantized: Tensor, max_ratio: float) -> Tensor:
    """The operator: (..., D) twice, of one dtype -> a copy of the second."""
    return quantized.clone()


@rotate_op.register_fake
def _(latents: Tensor, quantized: Tensor, max_ratio: float) -> Tensor:
    return torch.empty_like(quantized)


def rotated_gradient(gradient: Tensor, latents: Tensor, quantized: Tensor, max_ratio: float) -> Tensor:
    """s R^T g in closed form, (..., D) each -> (..., D); no D x D matrix is made.

    With z and q of length 1 and cos = z.q, R = 1 - (z + q)(z + q)^T / (1 + cos) + 2 q z^T, so
    R^T g = g + (2 q.g - a) z - a q, where a = (z.g + q.g) / (1 + cos).
    """
    length, target = latents.norm(dim=-1, keepdim=True), quantized.norm(dim=-1, keepdim=True)
    ratio = target / length
    above = 1 + _dot(latents, quantized) / (length * target)
    # Written so that NaN, from 0 / 0, counts as no rotation.
    turns = (ratio > 1 / EXTREME_RATIO) & (ratio < EXTREME_RATIO) & (above > ANTIPARALLEL)
    onto = _dot(quantized, gradient) / target
    shared = (_dot(latents, gradient) / length + onto) / above
    turned = gradient + latents * ((2 * onto - shared) / length) - quantized * (shared / target)
    return torch.where(turns, turned * ratio.clamp(max=max_ratio), gradient)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=-1, keepdim=True)


def _keep_inputs(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.max_ratio = inputs[2]  # pyright: ignore[reportAttributeAccessIssue]


def _backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
    latents, quantized = (saved.detach() for saved in ctx.saved_tensors)  # pyright: ignore
    return rotated_gradient(gradient, latents, quantized, ctx.max_ratio), None, None  # pyright: ignore


rotate_op.register_autograd(_backward, setup_context=_keep_inputs)
