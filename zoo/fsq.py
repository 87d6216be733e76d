"""Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505), as lucidrains' package computes it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..kernels.precision import without_autocast, working_dtype
from .chance import Chance
from .quantizer import Quantized, Quantizer, count_codes, straight_through

EPSILON = 1e-3
# Codebooks beyond this are not counted: the counts would outweigh the model.
MAX_COUNTED_CODES = 1 << 20


class FiniteScalarQuantizer(Quantizer):
    """Each feature is squashed by tanh and rounded to one of a few levels; the levels of a token form one id.

    levels  L_j per feature, at least 2; the id counts the first feature fastest

    Even levels are shifted by half a step, so 8 levels decode to -1, -0.75, ..., 0.75. There are no
    parameters. Ids are put together in integers: a float sum is wrong beyond 2**24 codes, in bf16 before.
    """

    def __init__(self, levels: tuple[int, ...] | list[int]) -> None:
        super().__init__()
        levels = tuple(levels)
        if not levels or min(levels) < 2 or math.prod(levels) > 2**62:
            raise ValueError(f"levels {levels}: expected at least one, each 2 or more, product up to 2**62")
        self.levels = levels
        self.codebook_sizes = (math.prod(levels),)
        self.dim_in = self.dim_out = len(levels)

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """The gradient passes the rounding and meets tanh. Loss: 0, the method needs none."""
        self._check_latents(latents)
        with without_autocast(latents.device):
            bounded, half_width = self._bound(latents)
            ids = self._join(bounded, half_width)
            counted = self.codebook_sizes[0] <= MAX_COUNTED_CODES
            return Quantized(
                latents=straight_through(bounded / half_width, self.decode(ids)),
                values=ids,
                loss=bounded.new_zeros(()),
                usage=count_codes(ids, self.codebook_sizes[0]) if counted else None,
            )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        with torch.no_grad(), without_autocast(latents.device):
            return self._join(*self._bound(latents))

    def decode(self, values: Tensor) -> Tensor:
        """Level centres of the ids: (...) int64 in [0, K) -> (..., D) float32 in [-1, 1]."""
        sizes = torch.tensor(self.levels, device=values.device)
        basis = torch.tensor(self._basis(), device=values.device)
        half_width = sizes // 2
        steps = values.unsqueeze(-1) // basis % sizes - half_width
        return steps.to(torch.float32) / half_width.to(torch.float32)

    def _bound(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents squashed to their range in steps, and half the number of steps, which scales to [-1, 1]."""
        latents = latents.to(working_dtype(latents))
        sizes = torch.tensor(self.levels, device=latents.device)
        half_range = (sizes - 1).to(latents.dtype) * (1 + EPSILON) / 2
        offset = (sizes % 2 == 0).to(latents.dtype) / 2
        bounded = torch.tanh(latents + torch.atanh(offset / half_range)) * half_range - offset
        return bounded, (sizes // 2).to(latents.dtype)

    def _join(self, bounded: Tensor, half_width: Tensor) -> Tensor:
        digits = (bounded.detach().round() + half_width).to(torch.int64)
        # EPSILON lets more than 1000 levels overshoot by one, and NaN could become anything.
        digits = digits.clamp(min=0).minimum(torch.tensor(self.levels, device=digits.device) - 1)
        return (digits * torch.tensor(self._basis(), device=digits.device)).sum(dim=-1)

    def _basis(self) -> list[int]:
        return [math.prod(self.levels[:position]) for position in range(len(self.levels))]
