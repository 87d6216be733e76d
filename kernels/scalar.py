"""Scalar quantize-and-pack: each feature goes to a level, a sign or a bin, and a row of them to one id."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .digits import check_sizes, pack_digits, place_values, unpack_digits
from .paths import chosen_path
from .precision import register_in_float32, without_autocast, working_dtype

# Broadcasting a row of a few features is not vectorised; broadcasting this many rows side by side is.
FOLD = 16


@dataclass(frozen=True, eq=False)
class ScalarCodes:
    """What became of a batch of latents.

    ids     (...)    int64, without gradient
    values  (..., D) float32, what the ids stand for, with a straight-through gradient to the latents
    """

    ids: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class LevelGrid:
    """Where the levels of finite scalar quantization lie; each is (D,), in the dtype of the latents.

    digit = round(squash(z + shift) * reach - offset) + L // 2, or with symmetric levels
    digit = floor(squash(z) * reach + L / 2), in 0 ... L - 1;
    value = (digit - centre) / centre.
    """

    shift: Tensor
    reach: Tensor
    offset: Tensor
    centre: Tensor


def quantize_levels(
    latents: Tensor,
    levels: Sequence[int],
    *,
    epsilon: float = 1e-3,
    symmetric: bool = False,
    clamp: bool = False,
) -> ScalarCodes:
    """Finite scalar quantization: each feature is squashed and rounded to one of its levels.

    latents    (..., D) float, computed in float32 at least under any autocast; NaN gets digit 0
    levels     L_j of each feature, at least 2, product below 2**63; in the id the first counts fastest
    epsilon    widens the range of the squashed latents (arXiv 2309.15505, appendix A.1); above -1
    symmetric  levels from -1 to 1 around zero, a tie goes up (arXiv 2411.19842, section 3.2), no epsilon.
               Otherwise even levels are shifted by half a step, and a tie goes to the even number of steps
    clamp      squash by clamping to [-1, 1] instead of by tanh
    returns    ids in [0, prod L); values in [-1, 1], whose gradient skips nothing but the rounding

    Raises ValueError when the levels do not fit the latents or an int64, or epsilon is out of range.
    """
    check_sizes(levels)
    _check_epsilon(epsilon)
    flat = _rows(latents, len(levels))
    with without_autocast(latents.device):
        values, ids, _ = level_codes_op(flat, list(levels), epsilon, symmetric, clamp)
    return ScalarCodes(ids.reshape(latents.shape[:-1]), values.reshape(latents.shape))


def quantize_signs(latents: Tensor, *, scale: float = 1.0, high_first: bool = True) -> ScalarCodes:
    """The sign of each feature, one bit: 1 for x > 0, else 0 (zero and NaN too).

    latents     (..., D) float, D in 1 ... 63
    scale       the value of bit 1; that of bit 0 is -scale
    high_first  the first feature is the highest bit of the id, otherwise the lowest
    returns     ids in [0, 2**D); values whose gradient passes unchanged

    Raises ValueError when there are too many features.
    """
    dim = latents.shape[-1] if latents.ndim else 1
    if not 1 <= dim <= 63:
        raise ValueError(f"{dim} signs; expected 1 ... 63, the bits of an int64: quantize groups of features")
    flat = _rows(latents, dim)
    with without_autocast(latents.device):
        values, ids = sign_codes_op(flat, scale, high_first)
    return ScalarCodes(ids.reshape(latents.shape[:-1]), values.reshape(latents.shape))


def quantize_bins(latents: Tensor, edges: Tensor) -> Tensor:
    """The bin of each number: how many edges are less. NaN goes to bin 0.

    latents  (...) float
    edges    (L - 1,) float, ascending
    returns  (...) int64 in [0, L), without gradient
    """
    if edges.ndim != 1:
        raise ValueError(f"edges of shape {tuple(edges.shape)}; expected (L - 1,)")
    dtype = working_dtype(latents, edges)
    with torch.no_grad(), without_autocast(latents.device):
        return bin_ids_op(latents.to(dtype), edges.to(dtype))


def level_values(ids: Tensor, levels: Sequence[int], *, symmetric: bool = False) -> Tensor:
    """Values of the ids of `quantize_levels`: (...) int64 in [0, prod L) -> (..., D) float32."""
    sizes = torch.tensor(levels, device=ids.device)
    digits = unpack_digits(ids, levels).to(torch.float32)
    return _to_level_values_(digits, (sizes - 1) / 2 if symmetric else sizes // 2)


def sign_values(ids: Tensor, dim: int, *, scale: float = 1.0, high_first: bool = True) -> Tensor:
    """Values of the ids of `quantize_signs`: (...) int64 in [0, 2**dim) -> (..., dim) float32."""
    shifts = torch.arange(dim, device=ids.device)
    bits = ids.unsqueeze(-1) >> (shifts.flip(0) if high_first else shifts) & 1
    return _to_sign_values_(bits.to(torch.float32), scale)


def bound_levels(
    latents: Tensor,
    levels: Sequence[int],
    *,
    epsilon: float = 1e-3,
    symmetric: bool = False,
    clamp: bool = False,
) -> Tensor:
    """Latents squashed as by `quantize_levels`, in steps around zero, not rounded: (..., D) -> (..., D)."""
    _check_epsilon(epsilon)
    grid = level_grid(levels, epsilon, symmetric, clamp, latents)
    return _squash(latents, grid, clamp) * grid.reach - grid.offset


def level_grid(
    levels: Sequence[int], epsilon: float, symmetric: bool, clamp: bool, latents: Tensor
) -> LevelGrid:
    """The grid in the dtype and on the device of the latents."""
    sizes = torch.tensor(levels, device=latents.device)
    last = (sizes - 1).to(latents.dtype)
    if symmetric:
        zero = torch.zeros_like(last)
        return LevelGrid(shift=zero, reach=last / 2, offset=zero, centre=last / 2)
    reach = last * (1 + epsilon) / 2
    offset = (sizes % 2 == 0).to(latents.dtype) / 2
    shift = offset / reach
    return LevelGrid(shift if clamp else shift.atanh(), reach, offset, (sizes // 2).to(latents.dtype))


def _squash(latents: Tensor, grid: LevelGrid, clamp: bool) -> Tensor:
    shifted = latents + grid.shift
    return shifted.clamp_(-1, 1) if clamp else shifted.tanh_()


def _to_level_values_(digits: Tensor, centre: Tensor) -> Tensor:
    """In place: fresh memory costs as much as the arithmetic."""
    centre = centre.to(digits.dtype)
    return digits.sub_(centre).div_(centre)


def _to_sign_values_(bits: Tensor, scale: float) -> Tensor:
    """In place, as above."""
    return bits.mul_(2).sub_(1).mul_(scale)


def _check_epsilon(epsilon: float) -> None:
    if not -1 < epsilon < math.inf:
        raise ValueError(f"epsilon={epsilon}; expected a finite number above -1, as 1 + epsilon is a range")


def _rows(latents: Tensor, dim: int) -> Tensor:
    if latents.ndim == 0 or latents.shape[-1] != dim or not latents.is_floating_point():
        raise ValueError(
            f"latents of shape {tuple(latents.shape)} and dtype {latents.dtype}; expected floats of shape "
            f"(..., {dim}): move the features to the last axis"
        )
    return latents.reshape(-1, dim).to(working_dtype(latents))


@torch.library.custom_op("tokenzoo::level_codes", mutates_args=())
def level_codes_op(
    latents: Tensor, levels: Sequence[int], epsilon: float, symmetric: bool, clamp: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator: (N, D) float32 or float64 -> values (N, D) float32, ids (N,) int64, and for the backward
    pass the squashed latents (N, D). A float comes first, or opcheck cannot add them up."""
    latents = latents.contiguous()
    path = chosen_path(latents)
    if path == "triton":
        from .scalar_triton import levels_triton

        ids, values, squashed = levels_triton(latents, levels, epsilon, symmetric, clamp)
    else:
        quantize = levels_reference if path == "reference" else levels_torch
        ids, values, squashed = quantize(latents, levels, epsilon, symmetric, clamp)
    return values, ids, squashed


@level_codes_op.register_fake
def _(
    latents: Tensor, levels: Sequence[int], epsilon: float, symmetric: bool, clamp: bool
) -> tuple[Tensor, Tensor, Tensor]:
    values = latents.new_empty(latents.shape, dtype=torch.float32)
    return values, latents.new_empty(len(latents), dtype=torch.int64), latents.new_empty(latents.shape)


def levels_reference(
    latents: Tensor, levels: Sequence[int], epsilon: float, symmetric: bool, clamp: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What the fast paths compute, digit by digit in int64: ids, values, squashed latents."""
    grid = level_grid(levels, epsilon, symmetric, clamp, latents)
    squashed = _squash(latents, grid, clamp)
    steps = squashed * grid.reach - grid.offset
    sizes = torch.tensor(levels, device=latents.device)
    digits = (steps + sizes / 2).floor() if symmetric else steps.round() + sizes // 2
    digits = digits.nan_to_num(0).clamp(min=0).minimum(sizes - 1).to(torch.int64)
    ids = (digits * torch.tensor(place_values(levels), device=latents.device)).sum(dim=1)
    return ids, level_values(ids, levels, symmetric=symmetric), squashed


def levels_torch(
    latents: Tensor, levels: Sequence[int], epsilon: float, symmetric: bool, clamp: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in place, without (N, D) integers, on rows folded to wide ones."""
    fold = FOLD if len(latents) % FOLD == 0 else 1
    wide = list(levels) * fold
    sizes = torch.tensor(wide, device=latents.device)
    grid = level_grid(wide, epsilon, symmetric, clamp, latents)
    squashed = _squash(latents.reshape(-1, len(wide)), grid, clamp)
    digits = (squashed * grid.reach).sub_(grid.offset)
    digits = digits.add_(sizes / 2).floor_() if symmetric else digits.round_().add_(sizes // 2)
    # Outer digits may overshoot: symmetric ones where L / 2 is inexact, others by nearly half a step.
    if symmetric or 2 * max(levels) * epsilon > 1:
        digits = digits.clamp_(min=0).clamp_(max=sizes - 1)
    digits = digits.nan_to_num_(0).to(torch.float32)
    ids = pack_digits(digits.reshape(latents.shape), levels)
    values = _to_level_values_(digits, grid.centre)
    return ids, values.reshape(latents.shape), squashed.reshape(latents.shape)


def _level_codes_setup(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor, Sequence[int], float, bool, bool],
    output: tuple[Tensor, Tensor, Tensor],
) -> None:
    ctx.rule = inputs[1:]  # pyright: ignore[reportAttributeAccessIssue]
    ctx.save_for_backward(output[2])
    ctx.set_materialize_grads(False)


def _level_codes_backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor | None, _ids: None, _squashed: None
) -> tuple[Tensor | None, None, None, None, None]:
    if gradient is None:
        return None, None, None, None, None
    (squashed,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    levels, epsilon, symmetric, clamp = ctx.rule  # pyright: ignore[reportAttributeAccessIssue]
    grid = level_grid(levels, epsilon, symmetric, clamp, squashed)
    slope = (squashed.abs() < 1).to(squashed.dtype) if clamp else 1 - squashed.square()
    return gradient.to(squashed.dtype) / grid.centre * grid.reach * slope, None, None, None, None


level_codes_op.register_autograd(_level_codes_backward, setup_context=_level_codes_setup)
register_in_float32("tokenzoo::level_codes")


@torch.library.custom_op("tokenzoo::sign_codes", mutates_args=())
def sign_codes_op(latents: Tensor, scale: float, high_first: bool) -> tuple[Tensor, Tensor]:
    """The operator: (N, D) float -> values (N, D) float32, ids (N,) int64."""
    latents = latents.contiguous()
    path = chosen_path(latents)
    if path == "triton":
        from .scalar_triton import signs_triton

        ids, values = signs_triton(latents, scale, high_first)
    else:
        quantize = signs_reference if path == "reference" else signs_torch
        ids, values = quantize(latents, scale, high_first)
    return values, ids


@sign_codes_op.register_fake
def _(latents: Tensor, scale: float, high_first: bool) -> tuple[Tensor, Tensor]:
    values = latents.new_empty(latents.shape, dtype=torch.float32)
    return values, latents.new_empty(len(latents), dtype=torch.int64)


def signs_reference(latents: Tensor, scale: float, high_first: bool) -> tuple[Tensor, Tensor]:
    """What the fast paths compute, bit by bit in int64: ids, values."""
    dim = latents.shape[1]
    places = torch.tensor(place_values([2] * dim, high_first=high_first), device=latents.device)
    ids = ((latents > 0) * places).sum(dim=1)
    return ids, sign_values(ids, dim, scale=scale, high_first=high_first)


def signs_torch(latents: Tensor, scale: float, high_first: bool) -> tuple[Tensor, Tensor]:
    """The same without (N, D) integers."""
    bits = (latents > 0).to(torch.float32)
    ids = pack_digits(bits, [2] * latents.shape[1], high_first=high_first)
    return ids, _to_sign_values_(bits, scale)


def _sign_codes_setup(
    ctx: torch.autograd.function.FunctionCtx,
    inputs: tuple[Tensor, float, bool],
    output: tuple[Tensor, Tensor],
) -> None:
    ctx.dtype = inputs[0].dtype  # pyright: ignore[reportAttributeAccessIssue]
    ctx.set_materialize_grads(False)


def _sign_codes_backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor | None, _ids: None
) -> tuple[Tensor | None, None, None]:
    return gradient if gradient is None else gradient.to(ctx.dtype), None, None  # pyright: ignore


sign_codes_op.register_autograd(_sign_codes_backward, setup_context=_sign_codes_setup)
register_in_float32("tokenzoo::sign_codes")


@torch.library.custom_op("tokenzoo::bin_ids", mutates_args=())
def bin_ids_op(latents: Tensor, edges: Tensor) -> Tensor:
    """The operator: (...) and (L - 1,) of one dtype -> (...) int64."""
    latents = latents.contiguous()
    path = chosen_path(latents)
    if path == "triton":
        from .scalar_triton import bins_triton

        return bins_triton(latents, edges)
    return (bins_reference if path == "reference" else bins_torch)(latents, edges)


@bin_ids_op.register_fake
def _(latents: Tensor, edges: Tensor) -> Tensor:
    return latents.new_empty(latents.shape, dtype=torch.int64)


register_in_float32("tokenzoo::bin_ids")


def bins_reference(latents: Tensor, edges: Tensor) -> Tensor:
    """What the fast paths compute: a comparison with every edge."""
    return (latents.unsqueeze(-1) > edges).sum(dim=-1)


def bins_torch(latents: Tensor, edges: Tensor) -> Tensor:
    """The same by bisection, which would put NaN into the last bin."""
    return torch.bucketize(latents, edges).masked_fill_(latents.isnan(), 0)
