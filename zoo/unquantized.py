"""The quantizer of continuous tokenizers whose encoder gives the values themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.precision import working_dtype
from .chance import Chance
from .quantizer import Quantized, Quantizer


class Unquantized(Quantizer):
    """Values are the latents, in float32 or wider; there is no loss.

    dim  D, width of a value
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"values of width {dim}; expected at least 1")
        self.codebook_sizes = ()
        self.dim_in = self.dim_out = dim

    def forward(self, latents: Tensor, *, generator: Chance = None, valid: Tensor | None = None) -> Quantized:
        """See `Quantizer`; latents where valid (...) bool is False become zero."""
        values = self.encode(latents)
        if valid is not None:
            values = torch.where(valid[..., None], values, 0)
        return Quantized(latents=values, values=values, loss=values.new_zeros(()), usage=None)

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        return latents.to(working_dtype(latents))

    def decode(self, values: Tensor) -> Tensor:
        return values
