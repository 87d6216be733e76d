"""The binary autoencoder of ELM (Liu et al. 2024, arXiv 2410.16257): bits that are drawn in training."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.digits import check_sizes
from ..kernels.precision import without_autocast, working_dtype
from ..kernels.scalar import ScalarCodes, quantize_signs, sign_values
from .chance import Chance, draw_noise
from .quantizer import Quantized, Quantizer, count_if_few


class BernoulliQuantizer(Quantizer):
    """One bit per feature, 1 with probability sigmoid(z); the bits of a token form one id of [0, 2**dim).

    dim          D, number of bits, at most 62
    high_first   the first feature is the highest bit of the id, otherwise the lowest
    code_weight  weight of the loss

    Without a generator `encode` gives the likelier bits, with one it draws them. Bits decode to 0 and 1; the
    official model then sums one learned vector per bit, which is a linear layer of its decoder.

    Source: Pepper-lll/LMforImageGeneration, bae/binaryae.py, without use_tanh.
    """

    def __init__(self, dim: int, *, high_first: bool = True, code_weight: float = 1.0) -> None:
        super().__init__()
        check_sizes([2] * dim)
        self.codebook_sizes = (2**dim,)
        self.dim_in = self.dim_out = dim
        self.high_first = high_first
        self.code_weight = code_weight

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """Drawn bits in train mode, without a generator from torch's own; the likelier ones in eval mode.

        The gradient skips the draw, not the sigmoid. Loss: code_weight times the mean of s (1 - s), where s
        is the sigmoid of the probability: the official code takes it twice.
        """
        self._check_latents(latents)
        with without_autocast(latents.device):
            if generator is None and self.training:
                generator = torch.default_generator
            share = latents.to(working_dtype(latents)).sigmoid()
            codes = self._draw(share, generator)
            unsure = share.sigmoid() * (1 - share.sigmoid())
            return Quantized(
                latents=codes.values + 0.5,
                values=codes.ids,
                loss=self.code_weight * unsure.sum() / max(1, unsure.numel()),
                usage=count_if_few(codes.ids, self.codebook_sizes[0]),
            )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        with torch.no_grad(), without_autocast(latents.device):
            return self._draw(latents.to(working_dtype(latents)).sigmoid(), generator).ids

    def decode(self, values: Tensor) -> Tensor:
        """Bits of the ids: (...) int64 in [0, 2**D) -> (..., D) float32, 0 or 1."""
        return sign_values(values, self.dim_in, scale=0.5, high_first=self.high_first) + 0.5

    def _draw(self, share: Tensor, generator: Chance) -> ScalarCodes:
        """Codes of -0.5 and 0.5, from the probabilities of a 1."""
        if generator is None:
            threshold: Tensor | float = 0.5
        else:
            threshold = torch.special.ndtr(draw_noise(share.shape, generator)).to(share)
        return quantize_signs(share - threshold, scale=0.5, high_first=self.high_first)
