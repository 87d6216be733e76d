"""The convolutional autoencoder that latent-diffusion models stand on, as the diffusers library builds it.

Source: Rombach et al. 2022, arXiv 2112.10752; diffusers, AutoencoderKL.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..zoo.config import check_range
from ..zoo.optional import require


@dataclass(frozen=True)
class AutoencoderSize:
    """Shape of one autoencoder.

    latent_dim  channels of the latent map
    channels    width of each level, finest first; each but the first halves the map
    blocks      residual blocks a level
    groups      of every group norm
    """

    latent_dim: int = 16
    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    groups: int = 32

    def __post_init__(self) -> None:
        check_range("latent_dim", self.latent_dim, 1, 4096)
        check_range("number of channels", len(self.channels), 1, 8)
        check_range("blocks", self.blocks, 1, 16)
        check_range("groups", self.groups, 1, 1024)
        for width in self.channels:
            check_range("channels", width, 1, 8192)
            if width % self.groups:
                raise ValueError(
                    f"channels={width} with groups={self.groups}: expected a multiple of the groups"
                )

    @property
    def downscaling(self) -> int:
        """How many pixels a place of the latent map stands for along one side."""
        return 2 ** (len(self.channels) - 1)


class FrozenAutoencoder(nn.Module):
    """Images to a Gaussian over latent maps, and back. Gradients pass through, but the weights take none."""

    def __init__(self, size: AutoencoderSize) -> None:
        super().__init__()
        # Whatever the library makes while it is imported must not land on the meta device.
        with torch.device("cpu"):
            AutoencoderKL = require("diffusers", "diffusers").AutoencoderKL
        self.model = AutoencoderKL(
            latent_channels=size.latent_dim,
            block_out_channels=size.channels,
            layers_per_block=size.blocks,
            norm_num_groups=size.groups,
            down_block_types=("DownEncoderBlock2D",) * len(size.channels),
            up_block_types=("UpDecoderBlock2D",) * len(size.channels),
        )
        self.requires_grad_(False)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> (B, C, h, w): the mean, or with noise of that shape a sample."""
        posterior = self.model.encode(2 * images - 1).latent_dist
        return posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(images)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> images (B, 3, H, W), nominally in [0, 1], not clamped."""
        return (self.model.decode(latents).sample + 1) / 2
