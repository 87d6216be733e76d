"""Pixel decoder of MaskGIT's VQGAN (Chang et al. 2022), as TiTok and One-D-Piece use it.

Source: bytedance/1d-tokenizer, modeling/modules/maskgit_vqgan.py (after open-muse). Its quirks are kept for
checkpoint compatibility.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.config import check_range
from .conv_parts import NORM_GROUPS, conv3, norm


@dataclass(frozen=True)
class PixelDecoderConfig:
    """Shape of a convolutional pixel decoder.

    channels       width at the finest level
    multipliers    width of each level over `channels`, finest first; each but the first doubles the size
    blocks         residual blocks a level
    latent_dim     width of the codes that come in
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2
    latent_dim: int = 256

    def __post_init__(self) -> None:
        check_range("channels", self.channels, NORM_GROUPS, 4096)
        check_range("blocks", self.blocks, 1, 64)
        check_range("latent_dim", self.latent_dim, 1, 65536)
        check_range("number of multipliers", len(self.multipliers), 1, 12)
        for multiplier in self.multipliers:
            check_range("multipliers", multiplier, 1, 64)
        if self.channels % NORM_GROUPS:
            raise ValueError(
                f"channels={self.channels}: expected a multiple of {NORM_GROUPS}, the norm groups"
            )

    @property
    def upscaling(self) -> int:
        """How many pixels a code becomes along one side."""
        return 2 ** (len(self.multipliers) - 1)


class PixelDecoder(nn.Module):
    """Codes to pixels: (B, latent_dim, h, w) float -> (B, 3, upscaling h, upscaling w) float, not clamped.

    middle  blocks before the first level, `config.blocks` if None
    """

    def __init__(self, config: PixelDecoderConfig, *, middle: int | None = None) -> None:
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        self.conv_in = conv3(config.latent_dim, widths[-1])
        self.mid = nn.ModuleList(
            ResidualBlock(widths[-1], widths[-1]) for _ in range(middle or config.blocks)
        )
        # Stored finest level first, run coarsest first.
        self.up = nn.ModuleList(
            UpLevel(coarser, width, config.blocks, upsample=level > 0)
            for level, (width, coarser) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True))
        )
        self.norm_out = norm(widths[0])
        self.conv_out = conv3(widths[0], 3)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.conv_in(codes)
        for block in self.mid:
            x = block(x)
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class UpLevel(nn.Module):
    """Residual blocks of one level; then, not on the finest, nearest-neighbour doubling and a convolution."""

    def __init__(self, channels_in: int, channels: int, blocks: int, *, upsample: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(channels_in if index == 0 else channels, channels) for index in range(blocks)
        )
        self.upsample_conv = conv3(channels, channels) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.upsample_conv is None:
            return x
        return self.upsample_conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, plus a residual.

    Where the width changes, the official code feeds `nin_shortcut` with the block's output instead of its
    input: the input's own path is lost. Trained weights rely on it, so it stays.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = conv3(channels_in, channels, bias=False)
        self.norm2 = norm(channels)
        self.conv2 = conv3(channels, channels, bias=False)
        self.nin_shortcut = nn.Conv2d(channels, channels, 1, bias=False) if channels_in != channels else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return hidden + (x if self.nin_shortcut is None else self.nin_shortcut(hidden))
