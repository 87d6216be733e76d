"""The peers of the benchmark: what a user would write or install instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .bench_measure import Work

VQP = "vector_quantize_pytorch"
_MOST_DISTANCES = {"cpu": 1 << 28, "cuda": 1 << 31}


def has_vqp() -> bool:
    """vector-quantize-pytorch, the standard library, is installed."""
    return find_spec(VQP) is not None


def vqp(name: str, **options: Any) -> Any:
    """A module of vector-quantize-pytorch."""
    return getattr(import_module(VQP), name)(**options)


def plain_and_compiled(name: str, function: Callable[..., object], *inputs: Tensor) -> dict[str, Work]:
    """A formula in plain torch, and the same under torch.compile where a compiler is at hand."""
    contenders: dict[str, Work] = {name: lambda: function(*inputs)}
    if can_compile():
        torch.compiler.reset()  # of one function it compiles eight shapes, and the next ones no more
        compiled = torch.compile(function, dynamic=False)
        contenders["compiled"] = lambda: compiled(*inputs)
    return contenders


@cache
def can_compile() -> bool:
    """torch.compile works here: it needs a C++ compiler for the CPU."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2))
    except (RuntimeError, OSError, ImportError):
        return False
    return True


def cdist_argmin(latents: Tensor, codebook: Tensor) -> Tensor:
    """Nearest code as most repositories write it."""
    return torch.cdist(latents, codebook).argmin(dim=1)


def flash_assign(latents: Tensor, codebook: Tensor) -> dict[str, Work]:
    """The assignment of flash-kmeans, for CUDA alone, if installed: in the precision it chooses, TF32. The
    squares of the latents, which it asks for, are not timed."""
    if not latents.is_cuda or find_spec("flash_kmeans") is None:
        return {}
    assign = import_module("flash_kmeans.assign_euclid_triton").euclid_assign_triton
    rows, squares = latents[None], latents[None].square().sum(dim=-1)
    return {"flash-kmeans": lambda: assign(rows, codebook[None], squares)}


def one_hot_statistics(latents: Tensor, ids: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Counts and sums of each code as vector-quantize-pytorch and most repositories write it."""
    chosen = F.one_hot(ids, num_codes).to(latents.dtype)
    return chosen.sum(dim=0), chosen.T @ latents


def cdist_residual(latents: Tensor, codebooks: Tensor) -> Tensor:
    """Residual quantization, a full matrix of distances for each stage."""
    residual, ids = latents, []
    for codebook in codebooks:
        ids.append(cdist_argmin(residual, codebook))
        residual = residual - codebook[ids[-1]]
    return torch.stack(ids, dim=1)


def softmax_entropy(logits: Tensor) -> Tensor:
    """Entropy of the mean code of LFQ by a softmax over all 2**d codes, each a row of signs."""
    dim = logits.shape[1]
    codes = (
        torch.arange(1 << dim, device=logits.device)[:, None] >> torch.arange(dim, device=logits.device)
    ) & 1
    mean = (logits @ (codes.to(logits.dtype) - 0.5).T).softmax(dim=1).mean(dim=0)
    return -(mean * mean.clamp(min=1e-20).log()).sum()


def plain_fsq(latents: Tensor, sizes: Tensor, basis: Tensor) -> Tensor:
    """Finite scalar quantization in the lines of its paper, for levels (D,) and their places in an int64."""
    reach, offset = (sizes - 1) * 1.001 / 2, (sizes % 2 == 0) / 2
    steps = ((latents + (offset / reach).atanh()).tanh() * reach - offset).round()
    return ((steps + sizes // 2).long() * basis).sum(dim=1)


def rotation_by_matrices(latents: Tensor, codes: Tensor) -> Tensor:
    """The rotation trick as published: two reflections as matrix products, differentiated by autograd."""
    direction = F.normalize(latents, dim=1).detach()
    goal = F.normalize(codes, dim=1).detach()
    middle = F.normalize(direction + goal, dim=1)
    row = latents[:, None]
    turned = (
        row - 2 * row @ middle[:, :, None] @ middle[:, None] + 2 * row @ direction[:, :, None] @ goal[:, None]
    )
    return turned[:, 0] * (codes.norm(dim=1, keepdim=True) / latents.norm(dim=1, keepdim=True)).detach()


def vqp_module(modes: Sequence[str], latents: Tensor, name: str, **options: Any) -> dict[str, Work]:
    """A quantizer of vector-quantize-pytorch without gradient, in these modes; nothing if not installed."""
    return {
        f"VQP {mode}": lambda module=module: _without_gradient(module, latents[None])
        for mode, module in _vqp_modules(modes, latents, name, **options).items()
    }


def vqp_backward(latents: Tensor, name: str, **options: Any) -> dict[str, Work]:
    """The loss of a quantizer of vector-quantize-pytorch, forward and backward; nothing if not installed."""
    modules = _vqp_modules(["train"], latents, name, **options)
    return (
        {"VQP train": lambda: gradient_of(lambda x: modules["train"](x[None])[2], latents)} if modules else {}
    )


def _vqp_modules(modes: Sequence[str], latents: Tensor, name: str, **options: Any) -> dict[str, Any]:
    # Beyond so many distances a peer that holds all of them, several times, is left out.
    if (
        not has_vqp()
        or len(latents) * options.get("codebook_size", 1) >= _MOST_DISTANCES[latents.device.type]
    ):
        return {}
    return {mode: vqp(name, **options).train(mode == "train").to(latents.device) for mode in modes}


def gradient_of(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a scalar, or of the sum of a tensor, to all inputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(loss(*leaves).sum(), leaves)


@torch.no_grad()
def _without_gradient(module: Callable[[Tensor], object], latents: Tensor) -> object:
    return module(latents)
