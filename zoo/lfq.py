"""Lookup-free quantization (MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737): a code is the signs of a latent."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.digits import check_sizes
from ..kernels.entropy import MAX_JOINT_CODES, binary_code_entropy, bit_entropy
from ..kernels.precision import without_autocast, working_dtype
from ..kernels.scalar import ScalarCodes, quantize_signs, sign_values
from .chance import Chance
from .collective import mean_over_ranks
from .quantizer import Quantized, Quantizer, count_if_few


class LookupFreeQuantizer(Quantizer):
    """One bit per feature: 1 where x > 0, else 0; the bits of a token form one id of [0, 2**dim).

    dim                    D, number of bits, at most 62
    scale                  codes are scale and -scale
    spherical              latents and codes are divided by their length first (BSQ, arXiv 2406.07548)
    high_first             the first feature is the highest bit (lucidrains), or the lowest (Open-MAGVIT2)
    commitment_weight      weight of the term that pulls latents towards their codes
    sample_entropy_weight  weight of the mean entropy of p(code|x), which makes each latent sure of its code
    code_entropy_weight    weight of minus the entropy of the mean of p, which makes all codes used
    inverse_temperature    p(code|x) is the softmax of inverse_temperature * 2 x.code
    group_size             the entropy of the mean is that of all 2**dim codes by default, exactly. Beyond 26
                           bits, or to follow BSQ, it is summed over groups of this many bits, an upper bound

    Weights and temperature (1 / 100) default to those of Open-MAGVIT2. lucidrains' entropy_loss_weight w and
    diversity_gamma g are the entropy weights w and w * g. There are no parameters.
    """

    def __init__(
        self,
        dim: int,
        *,
        scale: float = 1.0,
        spherical: bool = False,
        high_first: bool = True,
        commitment_weight: float = 0.25,
        sample_entropy_weight: float = 0.1,
        code_entropy_weight: float = 0.1,
        inverse_temperature: float = 100.0,
        group_size: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes([2] * dim)
        self.codebook_sizes = (2**dim,)
        self.dim_in = self.dim_out = dim
        self.scale = scale
        self.spherical = spherical
        self.code_scale = scale / dim**0.5 if spherical else scale
        self.high_first = high_first
        self.commitment_weight = commitment_weight
        self.sample_entropy_weight = sample_entropy_weight
        self.code_entropy_weight = code_entropy_weight
        self.inverse_temperature = inverse_temperature
        self.group_size = dim if group_size is None else group_size
        if self.group_size < 1:
            raise ValueError(f"group_size={group_size}: expected 1 ... {dim} bits, or None for all")
        if code_entropy_weight and 2 ** min(dim, self.group_size) > MAX_JOINT_CODES:
            raise ValueError(
                f"the entropy of 2**{dim} codes is too much: set group_size, which sums that of groups of "
                "bits, or code_entropy_weight=0"
            )

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """Loss: commitment_weight |sg(q) - z|^2 + sample_entropy_weight E H(p) - code_entropy_weight H(E p).

        The square is a mean over all elements, E is one over rows: in H(E p) those of all ranks, in training.
        """
        self._check_latents(latents)
        with without_autocast(latents.device):
            prepared = self._prepare(latents)
            codes = self._quantize(prepared)
            loss = self.commitment_weight * _mean((prepared - codes.values.detach()).square())
            return Quantized(
                latents=codes.values,
                values=codes.ids,
                loss=loss + self._entropy_loss(prepared),
                usage=count_if_few(codes.ids, self.codebook_sizes[0]),
            )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        with torch.no_grad(), without_autocast(latents.device):
            return self._quantize(self._prepare(latents)).ids

    def decode(self, values: Tensor) -> Tensor:
        """Codes of the ids: (...) int64 in [0, 2**D) -> (..., D) float32."""
        return sign_values(values, self.dim_in, scale=self.code_scale, high_first=self.high_first)

    def _prepare(self, latents: Tensor) -> Tensor:
        latents = latents.to(working_dtype(latents))
        return F.normalize(latents, dim=-1) * self.scale if self.spherical else latents

    def _quantize(self, prepared: Tensor) -> ScalarCodes:
        return quantize_signs(prepared, scale=self.code_scale, high_first=self.high_first)

    def _entropy_loss(self, prepared: Tensor) -> Tensor:
        # 2 x.code differs by 4 x_j code_scale between the two values of bit j.
        logits = (4 * self.inverse_temperature * self.code_scale * prepared).reshape(-1, self.dim_in)
        loss = logits.new_zeros(())
        if self.sample_entropy_weight:
            loss = loss + self.sample_entropy_weight * _mean(bit_entropy(logits))
        if self.code_entropy_weight:
            reduce = partial(mean_over_ranks, rows=len(logits)) if self.training else None
            groups = logits.split(self.group_size, dim=1)
            used = sum(binary_code_entropy(group, reduce=reduce) for group in groups)
            loss = loss - self.code_entropy_weight * used
        return loss


def _mean(elements: Tensor) -> Tensor:
    """The mean, 0 of nothing: a rank without rows must not spoil the loss of all."""
    return elements.sum() / max(1, elements.numel())
