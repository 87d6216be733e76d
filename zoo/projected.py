"""Quantization in another width: a linear map in, any quantizer, a linear map out (ViT-VQGAN, DAC)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.precision import without_autocast, working_dtype
from .chance import Chance
from .quantizer import Quantized, Quantizer
from .residual_quantizer import ResidualQuantized


class ProjectedQuantizer(Quantizer):
    """`inner` between two linear maps: codes live in few dimensions, the model in many.

    inner    any quantizer; its loss is taken in its own space
    dim      width of the latents
    dim_out  width of the result, default `dim`
    bias     of both maps

    State: `project_in.*`, `inner.*`, `project_out.*`. ViT-VQGAN: an l2 `VectorQuantizer` with
    normalise_lookup; DAC and SNAC: l2 alone. Their 1 x 1 convolutions are these maps, weight norm folded.
    """

    def __init__(self, inner: Quantizer, dim: int, *, dim_out: int | None = None, bias: bool = True) -> None:
        super().__init__()
        self.codebook_sizes = inner.codebook_sizes
        self.dim_in = dim
        self.dim_out = dim if dim_out is None else dim_out
        if min(self.dim_in, self.dim_out) < 1:
            raise ValueError(f"widths {self.dim_in} and {self.dim_out}: expected at least 1")
        self.project_in = nn.Linear(dim, inner.dim_in, bias=bias)
        self.inner = inner
        self.project_out = nn.Linear(inner.dim_out, self.dim_out, bias=bias)

    def forward(
        self,
        latents: Tensor,
        *,
        generator: Chance = None,
        lengths: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Quantized:
        """See `Quantizer`.

        lengths, valid  (B,) int64 and (...) bool, for an inner quantizer that takes them
        """
        self._check_latents(latents)
        told = {name: each for name, each in (("lengths", lengths), ("valid", valid)) if each is not None}
        with without_autocast(latents.device):
            quantized = self.inner(_project(self.project_in, latents), generator=generator, **told)
            wide = replace(quantized, latents=self._widen(quantized.latents, quantized.values))
            if isinstance(wide, ResidualQuantized):
                return replace(wide, first=self._widen(wide.first, wide.values))
            return wide

    def encode(self, latents: Tensor, *, keep: int | None = None, generator: Chance = None) -> Tensor:
        """keep: how many codebooks to compute, for an inner quantizer that takes it; None: all."""
        self._check_latents(latents)
        told = {} if keep is None else {"keep": keep}
        with without_autocast(latents.device):
            return self.inner.encode(_project(self.project_in, latents), generator=generator, **told)

    def decode(self, values: Tensor) -> Tensor:
        with without_autocast(values.device):
            return self._widen(self.inner.decode(values), values)

    def _widen(self, narrow: Tensor, values: Tensor) -> Tensor:
        """Latents of the full width; where all ids are -1 they are zero, without the bias."""
        wide = _project(self.project_out, narrow)
        if values.is_floating_point():
            return wide
        dropped = values < 0 if values.ndim == wide.ndim - 1 else (values < 0).all(dim=-1)
        return torch.where(dropped[..., None], 0, wide)


def _project(linear: nn.Linear, latents: Tensor) -> Tensor:
    dtype = working_dtype(latents, linear.weight)
    bias = None if linear.bias is None else linear.bias.to(dtype)
    return F.linear(latents.to(dtype), linear.weight.to(dtype), bias)
