"""Entropies of factorised codebooks, exact: no row is ever spread over all codes.

In LFQ, BSQ and FSQ the digits of a code are independent given a latent: p(code|x) = prod_j p_j(digit_j|x).
Hence the entropy of a row is the sum of the entropies of its digits. And the mean over rows of p, whose
entropy tells how evenly the codebook is used, is one matrix product of two half codes: with A (N, K1) and
B (N, K2) the probabilities of the first and of the last digits, mean = A^T B / N. That is the full softmax
over K1 K2 codes, not an approximation, in O(N (K1 + K2) + K1 K2) memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .paths import chosen_path
from .precision import full_products, register_in_float32, without_autocast, working_dtype

# Two vectors of this size, the mean and its gradient, are held: 2 x 256 MiB in float32.
MAX_JOINT_CODES = 1 << 26

Reduce = Callable[[Tensor], Tensor]


def code_entropy(probabilities: Sequence[Tensor], *, reduce: Reduce | None = None) -> Tensor:
    """Entropy, in nats, of the mean over rows of the joint distribution of independent digits.

    probabilities  for each digit j (..., L_j) float, summing to 1 over the last axis; L_j may differ
    reduce         takes the mean (prod L_j,) over the rows here to that over the rows of all ranks, with
                   gradient; the mean of the entropies would be another number
    returns        () float32 at least, 0 ... log(prod L_j); 0 without rows

    Probabilities near 0 count as the root of the least normal number, 1e-19 in float32: their logarithm and
    slope are finite. Raises ValueError as `joint_mean`.
    """
    _check_digits(probabilities)
    dtype = working_dtype(*probabilities)
    least = torch.finfo(dtype).tiny ** 0.5
    mean = joint_mean([digit.to(dtype).clamp(min=least).log() for digit in probabilities])
    return entropy(reduce(mean) if reduce else mean)


def binary_code_entropy(logits: Tensor, *, reduce: Reduce | None = None) -> Tensor:
    """`code_entropy` of bits: the d bits of a row are 1 with probability sigmoid(logits).

    logits   (..., d) float
    returns  () float32 at least, 0 ... d log 2
    """
    with without_autocast(logits.device):
        logits = logits.to(working_dtype(logits))
        pairs = F.logsigmoid(torch.stack([-logits, logits], dim=-1))
        sizes = [2] * logits.shape[-1]
        _check_codes(sizes)
        mean = joint_mean_op(pairs.reshape(-1, sum(sizes)), sizes)
        return entropy(reduce(mean) if reduce else mean)


def bit_entropy(logits: Tensor) -> Tensor:
    """Entropy, in nats, of each row: the sum over its independent bits, exact for the joint distribution.

    logits   (..., d) float; bit j is 1 with probability sigmoid(logits_j)
    returns  (...) float32 at least, 0 ... d log 2
    """
    with without_autocast(logits.device):
        size = logits.to(working_dtype(logits)).abs()
        # softplus(l) - l sigmoid(l), written with terms of one sign: nothing cancels.
        return ((-size).exp().log1p() + size * (-size).sigmoid()).sum(dim=-1)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy, in nats, over all elements: -sum p log p -> (). 0 log 0 is 0, and its slope is finite."""
    with without_autocast(probabilities.device):
        probabilities = probabilities.to(working_dtype(probabilities))
        least = torch.finfo(probabilities.dtype).tiny
        return -(probabilities * probabilities.clamp(min=least).log()).sum()


def joint_mean(log_probabilities: Sequence[Tensor]) -> Tensor:
    """The mean over rows of prod_j p_j, for every combination of digits.

    log_probabilities  log p_j of each digit (..., L_j), finite
    returns            (prod L_j,) float32 at least; the first digit varies slowest; zeros without rows

    Raises ValueError when there are too many codes to sum over, or shapes do not fit together.
    """
    _check_digits(log_probabilities)
    sizes = [digit.shape[-1] for digit in log_probabilities]
    dtype = working_dtype(*log_probabilities)
    flat = [digit.reshape(-1, size).to(dtype) for digit, size in zip(log_probabilities, sizes, strict=True)]
    with without_autocast(flat[0].device):
        return joint_mean_op(torch.cat(flat, dim=1), sizes)


def _check_digits(digits: Sequence[Tensor]) -> None:
    if not digits or any(digit.ndim == 0 or not digit.is_floating_point() for digit in digits):
        raise ValueError("expected at least one digit, each of floats (..., L_j)")
    shapes = [tuple(digit.shape) for digit in digits]
    if any(shape[:-1] != shapes[0][:-1] for shape in shapes):
        raise ValueError(f"digits of shapes {shapes}; expected the same rows in each: (..., L_j)")
    _check_codes([shape[-1] for shape in shapes])


def _check_codes(sizes: Sequence[int]) -> None:
    codes = math.prod(sizes)
    if not 0 < codes <= MAX_JOINT_CODES:
        raise ValueError(
            f"{codes} joint codes; expected 1 ... {MAX_JOINT_CODES}: sum the entropies of groups of digits, "
            "an upper bound"
        )


@torch.library.custom_op("tokenzoo::joint_mean", mutates_args=())
def joint_mean_op(log_probabilities: Tensor, sizes: Sequence[int]) -> Tensor:
    """The operator: the digits of sizes L_j side by side (N, sum L_j) -> (prod L_j,).

    Matrix products and exponentials are all there is: those of a GPU are fast, so Triton has no part in it.
    """
    reference = chosen_path(log_probabilities) == "reference"
    return (joint_mean_reference if reference else joint_mean_torch)(log_probabilities, sizes)


@joint_mean_op.register_fake
def _(log_probabilities: Tensor, sizes: Sequence[int]) -> Tensor:
    return log_probabilities.new_empty(math.prod(sizes))


def joint_mean_reference(log_probabilities: Tensor, sizes: Sequence[int]) -> Tensor:
    """What the fast path computes, from the whole N x prod L_j matrix."""
    joint = log_probabilities.new_zeros(len(log_probabilities), 1)
    for digit in log_probabilities.split(list(sizes), dim=1):
        joint = (joint[:, :, None] + digit[:, None, :]).flatten(1)
    return joint.exp().sum(dim=0) / max(1, len(joint))


def joint_mean_torch(log_probabilities: Tensor, sizes: Sequence[int]) -> Tensor:
    """Two halves and one matrix product."""
    with full_products():
        first, last = _half_joints(log_probabilities, _selections(sizes, log_probabilities))
        return (first.T @ last).div_(max(1, len(log_probabilities))).flatten()


@torch.library.custom_op("tokenzoo::joint_mean_backward", mutates_args=())
def joint_mean_backward_op(gradient: Tensor, log_probabilities: Tensor, sizes: Sequence[int]) -> Tensor:
    """(prod L_j,), (N, sum L_j) -> (N, sum L_j). The halves are computed anew: keeping them costs memory."""
    with full_products():
        selections = _selections(sizes, log_probabilities)
        first, last = _half_joints(log_probabilities, selections)
        gradient = gradient.reshape(first.shape[1], last.shape[1]) / max(1, len(log_probabilities))
        gradients = (last @ gradient.T).mul_(first), (first @ gradient).mul_(last)
        return torch.cat([part @ chosen.T for part, chosen in zip(gradients, selections, strict=True)], dim=1)


@joint_mean_backward_op.register_fake
def _(gradient: Tensor, log_probabilities: Tensor, sizes: Sequence[int]) -> Tensor:
    return torch.empty_like(log_probabilities, memory_format=torch.contiguous_format)


def _half_joints(log_probabilities: Tensor, selections: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Joint probabilities of the first and of the last digits: (N, K1) and (N, K2)."""
    logs = log_probabilities.split([len(chosen) for chosen in selections], dim=1)
    return [(log @ chosen).exp_() for log, chosen in zip(logs, selections, strict=True)]


def _selections(sizes: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices that add up the logs of the first and of the last digits of a code.

    The digits, of which the last part may be empty, are cut where the numbers of codes have the least sum.
    """
    cut = min(range(1, len(sizes) + 1), key=lambda cut: math.prod(sizes[:cut]) + math.prod(sizes[cut:]))
    first, last = tuple(sizes[:cut]), tuple(sizes[cut:])
    return _selection(first, like.dtype, like.device), _selection(last, like.dtype, like.device)


@lru_cache(maxsize=16)
def _selection(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 where a code has that value at that digit, else 0: (sum L_j, prod L_j)."""
    rows = [
        (math.prod(sizes[position + 1 :]), size, value)
        for position, size in enumerate(sizes)
        for value in range(size)
    ]
    place, size, value = torch.tensor(rows, device=device).reshape(-1, 3, 1).unbind(1)
    codes = torch.arange(math.prod(sizes), device=device)
    return (codes // place % size == value).to(dtype)


def _joint_mean_setup(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Sequence[int]], output: Tensor
) -> None:
    log_probabilities, ctx.sizes = inputs  # pyright: ignore[reportAttributeAccessIssue]
    ctx.save_for_backward(log_probabilities)


def _joint_mean_backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
    (log_probabilities,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    return joint_mean_backward_op(gradient, log_probabilities, ctx.sizes), None  # pyright: ignore


joint_mean_op.register_autograd(_joint_mean_backward, setup_context=_joint_mean_setup)
register_in_float32("tokenzoo::joint_mean")
register_in_float32("tokenzoo::joint_mean_backward")
