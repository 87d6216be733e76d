"""Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505), as lucidrains' package computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels.digits import check_sizes
from ..kernels.precision import working_dtype
from ..kernels.scalar import ScalarCodes, level_values, quantize_levels
from .chance import Chance
from .quantizer import Quantized, Quantizer, count_if_few


class FiniteScalarQuantizer(Quantizer):
    """Each feature is squashed by tanh and rounded to one of a few levels; the levels of a token form one id.

    levels     L_j per feature, at least 2; the id counts the first feature fastest
    epsilon    widens the range of tanh; with 3 levels -1e-3 is tanh(z) * 0.999, S3 tokenizer v2 (CosyVoice 2)
    symmetric  levels from -1 to 1 around zero, for even L too (arXiv 2411.19842; stages of residual FSQ)
    clamp      latents are clamped to [-1, 1] instead of squashed by tanh (stages of residual FSQ)

    Unless symmetric, even levels are shifted by half a step, so 8 levels decode to -1, -0.75, ..., 0.75.
    There are no parameters. Ids are put together exactly; a float sum is wrong beyond 2**24 codes, in bf16
    before.
    """

    def __init__(
        self, levels: Sequence[int], *, epsilon: float = 1e-3, symmetric: bool = False, clamp: bool = False
    ) -> None:
        super().__init__()
        check_sizes(levels)
        self.levels = tuple(levels)
        self.epsilon = epsilon
        self.symmetric = symmetric
        self.clamp = clamp
        self.codebook_sizes = (math.prod(levels),)
        self.dim_in = self.dim_out = len(levels)

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """The gradient skips the rounding, not tanh. Loss: 0, the method needs none."""
        codes = self._quantize(latents)
        return Quantized(
            latents=codes.values,
            values=codes.ids,
            loss=latents.new_zeros((), dtype=working_dtype(latents)),
            usage=count_if_few(codes.ids, self.codebook_sizes[0]),
        )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        with torch.no_grad():
            return self._quantize(latents).ids

    def decode(self, values: Tensor) -> Tensor:
        """Level centres of the ids: (...) int64 in [0, K) -> (..., D) float32 in [-1, 1]."""
        return level_values(values, self.levels, symmetric=self.symmetric)

    def _quantize(self, latents: Tensor) -> ScalarCodes:
        self._check_latents(latents)
        return quantize_levels(
            latents, self.levels, epsilon=self.epsilon, symmetric=self.symmetric, clamp=self.clamp
        )
