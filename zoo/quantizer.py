"""The contract every quantizer keeps, and what its training pass returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.statistics import code_counts
from .chance import Chance

# Codebooks beyond this are not counted: the counts would outweigh the model.
MAX_COUNTED_CODES = 1 << 20


@dataclass(frozen=True, eq=False)
class Quantized:
    """What a quantizer made of a batch of latents.

    latents  (..., dim_out) float32 at least; for discrete values equal to decode(values) bit for bit
    values   (...) or (..., Q) int64 ids, or (..., dim_out) float when continuous
    loss     () the quantizer's own training loss, weighted as the official models weigh it
    usage    (K,) int64 how often each code was hit; (Q, K) for several codebooks; None when continuous
    """

    latents: Tensor
    values: Tensor
    loss: Tensor
    usage: Tensor | None


class Quantizer(nn.Module, ABC):
    """Maps float latents to values and back, on (..., D) tensors; float32 or wider under any autocast.

    codebook_sizes  one size per codebook, () when values are floats
    dim_in          width of the latents that forward and encode take
    dim_out         width of the latents that forward and decode give
    """

    codebook_sizes: tuple[int, ...]
    dim_in: int
    dim_out: int

    @abstractmethod
    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """The training pass: quantized latents with straight-through gradients, values, loss, usage.

        latents    (..., dim_in) float
        generator  as in encode
        """

    @abstractmethod
    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        """Values of the latents, without gradient for ids.

        latents    (..., dim_in) float
        generator  a CPU generator, or one per item of the first axis; quantizers without chance ignore it
        returns    (...) or (..., Q) int64, or (..., dim_out) float
        """

    @abstractmethod
    def decode(self, values: Tensor) -> Tensor:
        """Latents of the values: (...) or (..., Q) int64, or (..., dim_out) float -> (..., dim_out) float."""

    def _check_latents(self, latents: Tensor) -> None:
        if latents.ndim == 0 or latents.shape[-1] != self.dim_in or not latents.is_floating_point():
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} and dtype {latents.dtype}; {type(self).__name__} "
                f"expects floats of shape (..., {self.dim_in}): move the features to the last axis"
            )


def straight_through(latents: Tensor, quantized: Tensor) -> Tensor:
    """`quantized` bit for bit in the forward pass, the gradient of `latents` in the backward pass.

    z + (q - z).detach() rounds; decode(values) would then differ from the training pass in the last bit.

    latents    (..., D) float
    quantized  (..., D) float, its own gradient is cut
    returns    (..., D) of the dtype of `quantized`
    """
    return _StraightThrough.apply(latents, quantized)  # pyright: ignore[reportReturnType]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(latents: Tensor, quantized: Tensor) -> Tensor:
        return quantized.view_as(quantized)

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor
    ) -> None:
        ctx.dtype = inputs[0].dtype  # pyright: ignore[reportAttributeAccessIssue]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        return gradient.to(ctx.dtype), None  # pyright: ignore[reportAttributeAccessIssue]


def count_if_few(ids: Tensor, num_codes: int) -> Tensor | None:
    """(num_codes,) int64 hits of the ids (...), None for codebooks too large to be counted."""
    return code_counts(ids, num_codes) if num_codes <= MAX_COUNTED_CODES else None
