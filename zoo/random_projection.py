"""The random-projection quantizer of BEST-RQ (Chiu et al. 2022, arXiv 2202.01855)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..kernels.precision import without_autocast, working_dtype
from ..kernels.statistics import code_counts
from ..kernels.vq import nearest_code
from .chance import Chance
from .quantizer import Quantized, Quantizer


class RandomProjectionQuantizer(Quantizer):
    """The nearest, by direction, of random codes to a random projection of the latents.

    num_codes      K, size of a codebook
    dim            width of the latents
    code_dim       width of a code
    num_codebooks  Q, each with a projection of its own; ids are (...) for one, (..., Q) for more
    normalise      latents get mean 0 and variance 1 over their features first, lest all go to a few codes
    seed           of the draw; projections and codebooks are buffers, frozen and saved with the model

    The projection is Xavier normal, codes are normal and divided by their length. Decoding gives the codes
    side by side, (..., Q * code_dim). Ids are targets to predict: no gradient reaches the latents.
    """

    projection: Tensor  # (Q, dim, code_dim)
    codebook: Tensor  # (Q, K, code_dim), rows of length 1

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        code_dim: int = 16,
        num_codebooks: int = 1,
        normalise: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(num_codes, dim, code_dim, num_codebooks) < 1:
            raise ValueError(
                f"{num_codebooks} codebooks of {num_codes} codes of width {code_dim} for latents of width "
                f"{dim}; expected at least 1 of each"
            )
        self.num_codes = num_codes
        self.codebook_sizes = (num_codes,) * num_codebooks
        self.dim_in = dim
        self.dim_out = num_codebooks * code_dim
        self.normalise = normalise
        generator = Generator().manual_seed(seed)
        projection = torch.randn(num_codebooks, dim, code_dim, generator=generator)
        codebook = torch.randn(num_codebooks, num_codes, code_dim, generator=generator)
        self.register_buffer("projection", projection * math.sqrt(2 / (dim + code_dim)))
        self.register_buffer("codebook", F.normalize(codebook, dim=-1))

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """Loss: 0."""
        ids = self.encode(latents)
        usage = [code_counts(each, self.num_codes) for each in self._per_codebook(ids)]
        return Quantized(
            latents=self.decode(ids),
            values=ids,
            loss=latents.new_zeros((), dtype=working_dtype(latents)),
            usage=torch.stack(usage) if len(usage) > 1 else usage[0],
        )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        """(..., dim) float -> (...) int64, or (..., Q) for several codebooks."""
        self._check_latents(latents)
        with torch.no_grad(), without_autocast(latents.device):
            latents = latents.to(working_dtype(latents, self.projection))
            if self.normalise:
                latents = F.layer_norm(latents, (self.dim_in,))
            ids = [
                # All codes have length 1, so the largest product is the closest direction.
                nearest_code(latents @ projection.to(latents.dtype), codebook, metric="dot")
                for projection, codebook in zip(self.projection, self.codebook, strict=True)
            ]
            return torch.stack(ids, dim=-1) if len(ids) > 1 else ids[0]

    def decode(self, values: Tensor) -> Tensor:
        """Codes of the ids, side by side: (...) or (..., Q) int64 -> (..., Q * code_dim) float32 or wider."""
        with without_autocast(values.device):
            per_codebook = zip(self._per_codebook(values), self.codebook, strict=True)
            codes = [F.embedding(ids, codebook) for ids, codebook in per_codebook]
            return torch.cat(codes, dim=-1).to(working_dtype(self.codebook))

    def _per_codebook(self, values: Tensor) -> Sequence[Tensor]:
        return values.unbind(-1) if len(self.codebook_sizes) > 1 else [values]
