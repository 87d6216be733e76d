"""Pixel encoder of MaskGIT's VQGAN (Chang et al. 2022), as MAGE trained it; the decoder is in maskgit.py.

Source: LTH14/mage, taming/modules/diffusionmodules/model.py (after taming-transformers), without attention.
The quirk of `ResidualBlock` holds here too.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .conv_parts import norm
from .maskgit import PixelDecoderConfig, ResidualBlock


class PixelEncoder(nn.Module):
    """Pixels to features, before any quantizing; levels are halved by averaging, not by a convolution.

    images   (B, 3, H, W) float, sides that are multiples of `config.upscaling`
    returns  (B, latent_dim, H / upscaling, W / upscaling) float
    middle   blocks after the last level, `config.blocks` if None
    """

    def __init__(self, config: PixelDecoderConfig, *, middle: int | None = None) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.down = nn.ModuleList(
            nn.Sequential(
                *(ResidualBlock(width if index else finer, width) for index in range(config.blocks))
            )
            for finer, width in zip([widths[0], *widths[:-1]], widths, strict=True)
        )
        self.mid = nn.ModuleList(
            ResidualBlock(widths[-1], widths[-1]) for _ in range(middle or config.blocks)
        )
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(images)
        for index, level in enumerate(self.down):
            x = level(F.avg_pool2d(x, 2) if index else x)
        for block in self.mid:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))
