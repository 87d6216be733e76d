"""Index backpropagation (IBQ, Shi et al. 2024, arXiv 2412.02692): every code learns at every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.ibq import index_backpropagation
from ..kernels.precision import without_autocast, working_dtype
from ..kernels.statistics import code_counts
from ..kernels.vq import nearest_code
from .chance import Chance
from .codebook_quantizer import mean_square
from .collective import mean_over_ranks
from .quantizer import Quantized, Quantizer


class IndexBackpropagationQuantizer(Quantizer):
    """One id per latent, of the largest dot product; gradients pass through a softmax over all codes.

    num_codes              K, size of the codebook
    dim                    D, width of a code
    l2                     latents and codes are divided by their length first
    commitment_weight      weight of the term that pulls the chosen code to its latent; the one that pulls the
                           latent has weight 1. Elsewhere it is the other way round
    sample_entropy_weight  weight of the mean entropy of p = softmax(z.e / entropy_temperature), which makes
                           each latent sure of its code
    code_entropy_weight    weight of minus the entropy of the mean of p, which makes all codes used
    entropy_temperature    the lower, the sharper p
    entropy_floor          added to the mean of p inside the logarithm. The official 1e-5 is more than the
                           mean itself where codes are many: 4e-6 if all of 262144 are used alike

    No N x K matrix is ever held. With both entropy weights 0 the entropies are not computed. Defaults as in
    TencentARC/SEED-Voken: src/IBQ/modules/vqvae/quantize.py, and the weights of its configurations.
    """

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        l2: bool = False,
        commitment_weight: float = 0.25,
        sample_entropy_weight: float = 0.05,
        code_entropy_weight: float = 0.05,
        entropy_temperature: float = 0.01,
        entropy_floor: float = 1e-5,
    ) -> None:
        super().__init__()
        if num_codes < 1 or dim < 1:
            raise ValueError(f"codebook of {num_codes} codes of width {dim}; expected at least 1 of each")
        if not entropy_temperature > 0 or not entropy_floor > 0:
            raise ValueError(
                f"entropy_temperature={entropy_temperature}, entropy_floor={entropy_floor}; expected both > 0"
            )
        self.codebook_sizes = (num_codes,)
        self.dim_in = self.dim_out = dim
        self.l2 = l2
        self.commitment_weight = commitment_weight
        self.sample_entropy_weight = sample_entropy_weight
        self.code_entropy_weight = code_entropy_weight
        self.entropy_temperature = entropy_temperature
        self.entropy_floor = entropy_floor
        # torch's own start of an embedding, as the official model has it.
        self.codebook = nn.Parameter(torch.randn(num_codes, dim))

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """Loss: |q - z|^2 with the gradients of the softmax in q, + |sg(c) - z|^2 + commitment_weight *
        |c - sg(z)|^2 with the bare code c, means over all elements; then the two entropies.

        In training the mean of p is over the rows of all ranks.
        """
        self._check_latents(latents)
        with without_autocast(latents.device):
            latents, codebook = self._prepare(latents), self._codes()
            measured = self.sample_entropy_weight != 0 or self.code_entropy_weight != 0
            assigned = index_backpropagation(
                latents, codebook, entropy_temperature=self.entropy_temperature if measured else None
            )
            codes = F.embedding(assigned.ids, codebook)
            loss = (
                mean_square(assigned.quantized - latents, None)
                + mean_square(codes.detach() - latents, None)
                + self.commitment_weight * mean_square(codes - latents.detach(), None)
            )
            if assigned.entropies is not None and assigned.mean is not None:
                loss = loss + self._entropy_loss(assigned.entropies, assigned.mean)
            return Quantized(
                # Float64 latents widen the codes for the search: nothing is lost on the way back.
                latents=assigned.quantized.to(codebook.dtype),
                values=assigned.ids,
                loss=loss,
                usage=code_counts(assigned.ids, self.codebook_sizes[0]),
            )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        with without_autocast(latents.device):
            return nearest_code(self._prepare(latents), self._codes(), metric="dot")

    def decode(self, values: Tensor) -> Tensor:
        """Codes of the ids: (...) int64 in [0, K), or -1 for a zero vector -> (..., D) float32 or wider."""
        with without_autocast(values.device):
            codes = F.embedding(values.clamp(min=0), self._codes())
            return torch.where(values[..., None] < 0, 0, codes)

    def _entropy_loss(self, entropies: Tensor, mean: Tensor) -> Tensor:
        rows = entropies.numel()
        if self.training:
            mean = mean_over_ranks(mean, rows)
        of_mean = -(mean * (mean + self.entropy_floor).log()).sum()
        return (
            self.sample_entropy_weight * entropies.sum() / max(1, rows) - self.code_entropy_weight * of_mean
        )

    def _prepare(self, latents: Tensor) -> Tensor:
        latents = latents.to(working_dtype(latents, self.codebook))
        return F.normalize(latents, dim=-1) if self.l2 else latents

    def _codes(self) -> Tensor:
        codebook = self.codebook.to(working_dtype(self.codebook))
        return F.normalize(codebook, dim=-1) if self.l2 else codebook
