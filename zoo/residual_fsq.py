"""Residual finite scalar quantization: each stage has finer levels (lucidrains' vector-quantize-pytorch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..kernels.precision import without_autocast, working_dtype
from ..kernels.scalar import bound_levels
from .chance import Chance
from .fsq import FiniteScalarQuantizer
from .quantizer import Quantized, Quantizer
from .residual_quantizer import ResidualQuantizer

Rule = Literal["clamped", "bounded"]


class ResidualFiniteScalarQuantizer(Quantizer):
    """Latents are squashed once; stage q then rounds what is left to levels that are finer by a power q.

    levels      L_j per feature, at least 2, the same for all stages
    num_stages  Q
    rule        "clamped": latents softly clamped to c tanh(z / c) with c = 1 + 1 / (L - 1), stages that clamp
                to symmetric levels, steps of L^-q, as version 1.32 does. "bounded": latents bounded as by a
                `FiniteScalarQuantizer`, in steps, then bounded again by the stages, which are such, and steps
                of (L - 1)^-q, as version 1.17 does (X-Codec 2, with one stage)
    keeps       attribute: the counts of codebooks that `decode` takes, 1 ... Q

    There are no parameters; the gradient passes all rounding straight through, once, and meets the squashing.
    """

    def __init__(self, levels: Sequence[int], num_stages: int, *, rule: Rule = "clamped") -> None:
        super().__init__()
        if rule not in get_args(Rule):
            raise ValueError(f"rule {rule!r}; expected {' or '.join(map(repr, get_args(Rule)))}")
        clamped = rule == "clamped"
        self.levels = tuple(levels)
        self.rule: Rule = rule
        bases = [level if clamped else level - 1 for level in levels]
        self.residual = ResidualQuantizer(
            [
                _Scaled(
                    FiniteScalarQuantizer(levels, symmetric=clamped, clamp=clamped),
                    [float(base) ** -stage for base in bases],
                )
                for stage in range(num_stages)
            ]
        )
        self.codebook_sizes, self.keeps = self.residual.codebook_sizes, self.residual.keeps
        self.dim_in = self.dim_out = len(self.levels)

    def forward(
        self, latents: Tensor, *, lengths: Tensor | None = None, generator: Chance = None
    ) -> Quantized:
        """As `ResidualQuantizer.forward`. Loss: 0, the method needs none."""
        return self.residual(self._squash(latents), lengths=lengths)

    def encode(self, latents: Tensor, *, keep: int | None = None, generator: Chance = None) -> Tensor:
        """keep: how many codebooks to compute; None: all. Returns (...) or (..., keep)."""
        return self.residual.encode(self._squash(latents), keep=keep)

    def decode(self, values: Tensor) -> Tensor:
        """Sum of levels: (...) or (..., q) int64 of the first q codebooks -> (..., D); -1 adds nothing."""
        return self.residual.decode(values)

    def _squash(self, latents: Tensor) -> Tensor:
        self._check_latents(latents)
        with without_autocast(latents.device):
            latents = latents.to(working_dtype(latents))
            if self.rule == "bounded":
                return bound_levels(latents, self.levels)
            limit = 1 + 1 / (torch.tensor(self.levels, device=latents.device) - 1)
            return limit * torch.tanh(latents / limit)


class _Scaled(Quantizer):
    """A quantizer on latents divided by `scale`, one number per feature."""

    def __init__(self, inner: Quantizer, scale: Sequence[float]) -> None:
        super().__init__()
        self.inner = inner
        self.scale = tuple(scale)
        self.codebook_sizes, self.dim_in, self.dim_out = inner.codebook_sizes, inner.dim_in, inner.dim_out

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        quantized = self.inner(latents / self._scale_for(latents), generator=generator)
        return replace(quantized, latents=quantized.latents * self._scale_for(quantized.latents))

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        return self.inner.encode(latents / self._scale_for(latents), generator=generator)

    def decode(self, values: Tensor) -> Tensor:
        codes = self.inner.decode(values)
        return codes * self._scale_for(codes)

    def _scale_for(self, latents: Tensor) -> Tensor:
        return torch.tensor(self.scale, dtype=latents.dtype, device=latents.device)
