"""The quantizer of continuous tokenizers: a diagonal Gaussian posterior (Kingma and Welling 2013)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.precision import without_autocast, working_dtype
from .chance import Chance, draw_noise
from .quantizer import Quantized, Quantizer

LOGVAR_RANGE = (-30.0, 20.0)


class GaussianPosterior(Quantizer):
    """Latents hold mean and log-variance side by side; values are points of the posterior.

    dim  D, width of a value; latents are 2 D wide, the mean first

    Without a generator `encode` gives the mean. With one it draws a sample, the noise on the CPU as the
    official models do, so that a seed means the same on every device.

    Source: bytedance/1d-tokenizer, DiagonalGaussianDistribution (log-variance clamped to [-30, 20]).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"values of width {dim}; expected at least 1")
        self.codebook_sizes = ()
        self.dim_in = 2 * dim
        self.dim_out = dim

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """A sample with the reparametrisation gradient; without a generator, from torch's own in train mode,
        and the mean in eval mode. Loss: KL to the standard normal, summed per item, averaged over items."""
        self._check_latents(latents)
        with without_autocast(latents.device):
            if generator is None and self.training:
                generator = torch.default_generator
            values = self.encode(latents, generator=generator)
            items = latents.shape[0] if latents.ndim > 1 else 1
            return Quantized(latents=values, values=values, loss=self.kl(latents).sum() / items, usage=None)

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        with without_autocast(latents.device):
            mean, logvar = self.moments(latents)
            if generator is None:
                return mean
            return mean + torch.exp(0.5 * logvar) * _noise_like(mean, generator)

    def decode(self, values: Tensor) -> Tensor:
        return values

    def moments(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and clamped log-variance: (..., 2 D) float -> two of (..., D), float32 at least."""
        mean, logvar = latents.to(working_dtype(latents)).chunk(2, dim=-1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def kl(self, latents: Tensor) -> Tensor:
        """Divergence of each token's posterior from the standard normal, in nats: (..., 2 D) -> (...)."""
        with without_autocast(latents.device):
            mean, logvar = self.moments(latents)
            return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=-1)


def _noise_like(mean: Tensor, generator: Chance) -> Tensor:
    """Standard normal noise (..., N, D), drawn as (..., D, N): official means are channels first."""
    if mean.ndim < 3:
        return draw_noise(mean.shape, generator).to(mean)
    channels_first = (*mean.shape[:-2], mean.shape[-1], mean.shape[-2])
    return draw_noise(channels_first, generator).to(mean).transpose(-1, -2)
