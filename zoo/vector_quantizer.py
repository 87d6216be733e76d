"""Vector quantization with a learned codebook (van den Oord et al. 2017; l2 form: ViT-VQGAN, 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.precision import without_autocast, working_dtype
from ..kernels.vq import nearest_code
from .chance import Chance
from .quantizer import Quantized, Quantizer, count_codes, straight_through


class VectorQuantizer(Quantizer):
    """One id per latent: the nearest of `num_codes` learned vectors.

    num_codes          K, size of the codebook
    dim                D, width of a code
    l2                 compare directions only: latents and codes are divided by their length for the search
                       and for the loss
    normalise_lookup   the looked-up code is divided by its length too; the codebook stays as it was learned
    commitment_weight  weight of the term that pulls latents towards their codes

    Source: bytedance/1d-tokenizer, modeling/quantizer/quantizer.py. The backward pass reaches the latents
    through their normalisation, and the codebook through the loss alone.
    """

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        l2: bool = False,
        normalise_lookup: bool = False,
        commitment_weight: float = 0.25,
    ) -> None:
        super().__init__()
        if num_codes < 1 or dim < 1:
            raise ValueError(f"codebook of {num_codes} codes of width {dim}; expected at least 1 of each")
        self.codebook_sizes = (num_codes,)
        self.dim_in = self.dim_out = dim
        self.l2 = l2
        self.normalise_lookup = normalise_lookup
        self.commitment_weight = commitment_weight
        self.codebook = nn.Parameter(torch.empty(num_codes, dim).uniform_(-1 / num_codes, 1 / num_codes))

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """Loss: commitment_weight * |sg(q) - z|^2 + |q - sg(z)|^2, both means over all elements."""
        self._check_latents(latents)
        with without_autocast(latents.device):
            latents = self._prepare(latents)
            ids = self._search(latents)
            codes = self.decode(ids)
            commitment = F.mse_loss(latents, codes.detach().to(latents.dtype))
            fit = F.mse_loss(codes, latents.detach().to(codes.dtype))
            return Quantized(
                latents=straight_through(latents, codes),
                values=ids,
                loss=self.commitment_weight * commitment + fit,
                usage=count_codes(ids, self.codebook_sizes[0]),
            )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        with without_autocast(latents.device):
            return self._search(self._prepare(latents))

    def decode(self, values: Tensor) -> Tensor:
        """Codes of the ids: (...) int64 in [0, K) -> (..., D) float32 (float64 for a float64 codebook)."""
        with without_autocast(values.device):
            codes = F.embedding(values, self.codebook).to(working_dtype(self.codebook))
            return F.normalize(codes, dim=-1) if self.normalise_lookup else codes

    def _prepare(self, latents: Tensor) -> Tensor:
        latents = latents.to(working_dtype(latents))
        return F.normalize(latents, dim=-1) if self.l2 else latents

    def _search(self, prepared: Tensor) -> Tensor:
        codebook = self.codebook.detach().to(working_dtype(self.codebook))
        return nearest_code(prepared, F.normalize(codebook, dim=-1) if self.l2 else codebook)
