"""Post-training quantization of continuous latents (TokenBridge, Wang et al. 2025, arXiv 2503.16430)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..kernels.precision import without_autocast, working_dtype
from ..kernels.scalar import quantize_bins
from ..kernels.statistics import code_counts
from .chance import Chance
from .quantizer import Quantized, Quantizer, straight_through


class PostTrainingQuantizer(Quantizer):
    """Each feature of a trained, roughly normal latent goes to one of a few bins, and is an id of its own.

    dim         D, number of features, so of ids per token
    levels      bins per feature, at least 2; 64 in TokenBridge (6 bits)
    clip        scaled latents are cut to [-clip, clip], which is taken for [-deviations, deviations]
    deviations  how far the normal distribution is cut, in standard deviations
    scale       scaled latents are (z - shift) * scale; a number, or one per feature
    shift       as above

    Bins are equally likely under the normal distribution; each stands for its mean. A latent goes to the
    nearest of these means, a tie to the lower one. There are no parameters; the gradient skips the rounding.
    Source: YuqingWang1029/TokenBridge, reconstruction.py, with scale=0.2325 on the latents of MAR's KL-16.
    """

    def __init__(
        self,
        dim: int,
        levels: int = 64,
        *,
        clip: float = 5.0,
        deviations: float = 3.0,
        scale: float | Sequence[float] = 1.0,
        shift: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        if dim < 1 or levels < 2:
            raise ValueError(f"dim={dim}, levels={levels}: expected at least 1 feature and 2 levels")
        if not (clip > 0 and deviations > 0):
            raise ValueError(f"clip={clip}, deviations={deviations}: expected more than 0")
        self.codebook_sizes = (levels,) * dim
        self.dim_in = self.dim_out = dim
        self.clip = clip
        self.deviations = deviations
        self.scale = _per_feature(scale, dim, "scale")
        self.shift = _per_feature(shift, dim, "shift")
        self.means = _bin_means(levels, deviations)
        if not all(low < high for low, high in pairwise(self.means)):
            raise ValueError(f"{levels} levels within {deviations} deviations: some are empty; take fewer")
        self.edges = _edges(self.means)

    @classmethod
    def fitted(cls, latents: Tensor, levels: int = 64, *, deviations: float = 3.0) -> PostTrainingQuantizer:
        """For latents like these (..., D): scale and shift make each feature standard normal."""
        flat = latents.detach().double().reshape(-1, latents.shape[-1])
        deviation, mean = torch.std_mean(flat, dim=0)
        return cls(
            latents.shape[-1],
            levels,
            clip=deviations,
            deviations=deviations,
            scale=(1 / deviation.clamp(min=1e-12)).tolist(),
            shift=mean.tolist(),
        )

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """Loss: 0. Values are (..., D), one id per feature."""
        ids = self.encode(latents)
        levels, dim = self.codebook_sizes[0], self.dim_in
        slots = ids + levels * torch.arange(dim, device=ids.device)
        return Quantized(
            latents=straight_through(latents, self.decode(ids)),
            values=ids,
            loss=latents.new_zeros((), dtype=working_dtype(latents)),
            usage=code_counts(slots, levels * dim).view(dim, levels),
        )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        """The bins of the features: (..., D) float -> (..., D) int64 in [0, levels)."""
        self._check_latents(latents)
        with torch.no_grad(), without_autocast(latents.device):
            latents = latents.to(working_dtype(latents))
            scaled = (latents - latents.new_tensor(self.shift)) * latents.new_tensor(self.scale)
            # In this order the official code rounds.
            normal = (scaled + self.clip) / (2 * self.clip) * (2 * self.deviations) - self.deviations
            return quantize_bins(normal, latents.new_tensor(self.edges))

    def decode(self, values: Tensor) -> Tensor:
        """Means of the bins: (..., D) int64 -> (..., D) float32."""
        means = torch.tensor(self.means, device=values.device)
        scaled = (means + self.deviations) / (2 * self.deviations) * (2 * self.clip) - self.clip
        return scaled[values] / means.new_tensor(self.scale) + means.new_tensor(self.shift)


def _per_feature(value: float | Sequence[float], dim: int, name: str) -> tuple[float, ...]:
    values = (float(value),) * dim if isinstance(value, int | float) else tuple(value)
    if len(values) != dim or not all(map(math.isfinite, values)) or (name == "scale" and 0 in values):
        raise ValueError(f"{name}={value}: expected a number or {dim} of them, finite, and no scale of 0")
    return values


def _bin_means(levels: int, deviations: float) -> tuple[float, ...]:
    """Means of a standard normal number within equally likely bins, in float32 as in the official code."""
    # On the CPU by name: under torch.device("meta") there would be no numbers.
    shares = torch.linspace(0, 1, levels + 1, dtype=torch.float32, device="cpu")
    edges = torch.special.ndtri(shares.double()).float().clamp(-deviations, deviations)
    density = (-0.5 * edges**2).exp() / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + torch.erf(edges / math.sqrt(2)))
    return tuple((-density.diff() / below.diff()).tolist())


def _edges(means: Sequence[float]) -> tuple[float, ...]:
    """Where the nearest mean changes. Rounded down, so that no float32 falls on the wrong side."""
    exact = torch.tensor(means, dtype=torch.float64, device="cpu").unfold(0, 2, 1).mean(dim=1)
    edges = exact.float()
    return tuple(torch.where(edges > exact, edges.nextafter(edges - 1), edges).tolist())
