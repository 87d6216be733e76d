"""The convolutional autoencoder of taming-transformers and latent diffusion: its blocks, encoder and decoder.

KL-VAEs (Rombach et al. 2021, arXiv 2112.10752), LlamaGen's VQ and IBQ differ in sizes and bottleneck only.
Plain tensors in, plain tensors out; parts keep the official names.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.attention import attention
from ..zoo.config import check_range

NORM_GROUPS = 32
NORM_EPS = 1e-6


@dataclass(frozen=True)
class LevelsConfig:
    """Shape of a pyramid of convolutions.

    channels     width at the finest level
    multipliers  width of each level over `channels`, finest first; each but the first halves the size
    blocks       residual blocks a level
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    blocks: int = 2

    def __post_init__(self) -> None:
        check_range("channels", self.channels, NORM_GROUPS, 4096)
        check_range("blocks", self.blocks, 1, 64)
        check_range("number of multipliers", len(self.multipliers), 1, 12)
        for multiplier in self.multipliers:
            check_range("multipliers", multiplier, 1, 64)
        if self.channels % NORM_GROUPS:
            raise ValueError(
                f"channels={self.channels}: expected a multiple of {NORM_GROUPS}, the norm groups"
            )

    @property
    def stride(self) -> int:
        """Pixels along one side of a latent."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each level, finest first."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)


@dataclass(frozen=True)
class ConvConfig(LevelsConfig):
    """Shape of a convolutional autoencoder; the decoder has one more block a level than the encoder.

    encoder_attention  levels, 0 the finest, whose blocks are each followed by attention
    decoder_attention  as above
    """

    encoder_attention: tuple[int, ...] = ()
    decoder_attention: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for level in (*self.encoder_attention, *self.decoder_attention):
            check_range("attention level", level, 0, len(self.multipliers) - 1)


class ConvEncoder(nn.Module):
    """Images to latents: (B, 3, H, W) float -> (B, dim, H / stride, W / stride) float.

    channels_out  what the last 3x3 convolution gives, before the 1x1 convolution to `dim`
    """

    def __init__(self, config: ConvConfig, channels_out: int, dim: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = conv3(3, widths[0])
        self.down = nn.ModuleList(
            DownLevel(
                widths[max(level - 1, 0)],
                width,
                config.blocks,
                attention=level in config.encoder_attention,
                downsample=level < len(widths) - 1,
            )
            for level, width in enumerate(widths)
        )
        self.mid = middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = conv3(widths[-1], channels_out)
        self.quant_conv = nn.Conv2d(channels_out, dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return self.quant_conv(x)


class ConvDecoder(nn.Module):
    """Latents to images: (B, dim, h, w) float -> (B, 3, stride h, stride w) float, not clamped.

    channels_in   what the 1x1 convolution makes of `dim`, before the first 3x3 convolution
    finest_first  the order in which the levels are stored; they run coarsest first
    """

    def __init__(self, config: ConvConfig, channels_in: int, dim: int, *, finest_first: bool = True) -> None:
        super().__init__()
        widths = config.widths
        self.finest_first = finest_first
        self.post_quant_conv = nn.Conv2d(dim, channels_in, 1)
        self.conv_in = conv3(channels_in, widths[-1])
        self.mid = middle(widths[-1])
        levels = [
            UpLevel(
                widths[min(level + 1, len(widths) - 1)],
                width,
                config.blocks + 1,
                attention=level in config.decoder_attention,
                upsample=level > 0,
            )
            for level, width in enumerate(widths)
        ]
        self.up = nn.ModuleList(levels if finest_first else reversed(levels))
        self.norm_out = norm(widths[0])
        self.conv_out = conv3(widths[0], 3)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid(self.conv_in(self.post_quant_conv(latents)))
        for level in reversed(self.up) if self.finest_first else self.up:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks of one size, each followed by attention where asked: (B, channels_in, h, w) float."""

    def __init__(self, channels_in: int, channels: int, blocks: int, *, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(channels_in if index == 0 else channels, channels) for index in range(blocks)
        )
        self.attn = nn.ModuleList(AttentionBlock(channels) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class DownLevel(Level):
    """A level of the encoder; all but the coarsest end in halving."""

    def __init__(
        self, channels_in: int, channels: int, blocks: int, *, attention: bool, downsample: bool
    ) -> None:
        super().__init__(channels_in, channels, blocks, attention=attention)
        self.downsample = Downsample(channels) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.downsample is None else self.downsample(x)


class UpLevel(Level):
    """A level of the decoder; all but the finest end in doubling."""

    def __init__(
        self, channels_in: int, channels: int, blocks: int, *, attention: bool, upsample: bool
    ) -> None:
        super().__init__(channels_in, channels, blocks, attention=attention)
        self.upsample = Upsample(channels) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.upsample is None else self.upsample(x)


class Downsample(nn.Module):
    """Half the size, by a convolution padded right and below only: (B, C, 2 h, 2 w) -> (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size, by repetition and a convolution: (B, C, h, w) -> (B, C, 2 h, 2 w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0))


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, plus the input.

    (B, channels_in, h, w) float -> (B, channels, h, w) float
    """

    def __init__(self, channels_in: int, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = conv3(channels_in, channels, bias=bias)
        self.norm2 = norm(channels)
        self.conv2 = conv3(channels, channels, bias=bias)
        self.nin_shortcut = (
            nn.Conv2d(channels_in, channels, 1, bias=bias) if channels_in != channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return hidden + self.shortcut(x)

    def shortcut(self, x: Tensor) -> Tensor:
        """The input at the width of the output."""
        return x if self.nin_shortcut is None else self.nin_shortcut(x)


class AttentionBlock(nn.Module):
    """One head of attention among all places of a map, plus the input: (B, C, h, w) float."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (
            project(normed).flatten(2).transpose(1, 2).unsqueeze(1) for project in (self.q, self.k, self.v)
        )
        seen = attention(query, key, value).squeeze(1).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(seen)


def middle(channels: int) -> nn.Sequential:
    """The coarsest part: block, attention, block."""
    return nn.Sequential(
        ResidualBlock(channels, channels), AttentionBlock(channels), ResidualBlock(channels, channels)
    )


def conv3(channels_in: int, channels: int, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels, 3, padding=1, bias=bias)


def norm(channels: int) -> nn.GroupNorm:
    """The group norm of all these networks."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS)
