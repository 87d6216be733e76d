"""Open-MAGVIT2 (Luo et al. 2024, arXiv 2409.04410): a grid of ids whose bits are the signs of the latents.

The decoder reads the bits twice: as a map, and by their mean and deviation over the image, which scale and
shift every level. Source: TencentARC/SEED-Voken, src/Open_MAGVIT2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.lfq import LookupFreeQuantizer
from .conv_parts import NORM_EPS, NORM_GROUPS, LevelsConfig, ResidualBlock, conv3, norm
from .grid_tokenizer import GridTokenizer
from .preprocess import ImagePreprocess


@dataclass(frozen=True)
class OpenMagvit2Config(Config):
    """One Open-MAGVIT2 tokenizer; the weights are those of `LookupFreeQuantizer`.

    bits        D, bits of an id and width of a latent
    conv        sizes of the networks; both have as many blocks in the middle as a level has
    preprocess  how a picture gets the size the model was trained at
    """

    tokenizer_type: ClassVar[str] = "open-magvit2"

    bits: int = 18
    commitment_weight: float = 0.25
    sample_entropy_weight: float = 0.1
    code_entropy_weight: float = 0.1
    conv: LevelsConfig = field(default_factory=lambda: LevelsConfig(blocks=4))
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(interpolation="bilinear"))

    def __post_init__(self) -> None:
        check_range("bits", self.bits, 1, 24)
        for name in ("commitment_weight", "sample_entropy_weight", "code_entropy_weight"):
            check_range(name, getattr(self, name), 0, 1e6)

    @property
    def stride(self) -> int:
        return self.conv.stride

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="open-magvit2",
            modality="image",
            channels=3,
            codebook_sizes=(2**self.bits,),
            latent_dim=self.bits,
        )


class OpenMagvit2(GridTokenizer):
    """Images as a grid of ids, row by row."""

    config_type = OpenMagvit2Config
    config: OpenMagvit2Config

    def __init__(self, config: OpenMagvit2Config) -> None:
        super().__init__(config)
        self.encoder = Magvit2Encoder(config.conv, config.bits)
        self.quantizer = LookupFreeQuantizer(
            config.bits,
            high_first=False,
            commitment_weight=config.commitment_weight,
            sample_entropy_weight=config.sample_entropy_weight,
            code_entropy_weight=config.code_entropy_weight,
        )
        self.decoder = Magvit2Decoder(config.conv, config.bits)


class Magvit2Encoder(nn.Module):
    """Images to latents: (B, 3, H, W) float -> (B, dim, H / stride, W / stride) float."""

    def __init__(self, config: LevelsConfig, dim: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = conv3(3, widths[0], bias=False)
        self.down = nn.ModuleList(
            DownLevel(widths[max(level - 1, 0)], width, config.blocks, downsample=level < len(widths) - 1)
            for level, width in enumerate(widths)
        )
        self.mid = blocks(widths[-1], widths[-1], config.blocks)
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Magvit2Decoder(nn.Module):
    """Latents to images: (B, dim, h, w) float -> (B, 3, stride h, stride w) float, not clamped."""

    def __init__(self, config: LevelsConfig, dim: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = conv3(dim, widths[-1])
        self.mid = blocks(widths[-1], widths[-1], config.blocks)
        # Stored finest level first, run coarsest first.
        self.up = nn.ModuleList(
            UpLevel(coarser, width, config.blocks, dim, upsample=level > 0)
            for level, (width, coarser) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True))
        )
        self.norm_out = norm(widths[0])
        self.conv_out = conv3(widths[0], 3)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x, latents)
        return self.conv_out(F.silu(self.norm_out(x)))


class DownLevel(nn.Module):
    """Residual blocks; all levels but the coarsest end in a convolution that halves the size."""

    def __init__(self, channels_in: int, channels: int, count: int, *, downsample: bool) -> None:
        super().__init__()
        self.block = blocks(channels_in, channels, count)
        self.downsample = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        return x if self.downsample is None else self.downsample(x)


class UpLevel(nn.Module):
    """A norm set by the latents, residual blocks; all levels but the finest end in doubling.

    x        (B, channels_in, h, w) float
    latents  (B, dim, ...) float, the whole map at the coarsest level
    returns  (B, channels, 2 h, 2 w) float, at the finest level (B, channels, h, w)
    """

    def __init__(
        self, channels_in: int, channels: int, count: int, dim: int, *, upsample: bool, bias: bool = False
    ) -> None:
        super().__init__()
        self.adaptive = AdaptiveGroupNorm(channels_in, dim)
        self.block = blocks(channels_in, channels, count, bias=bias)
        self.upsample = conv3(channels, 4 * channels) if upsample else None

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        x = self.block(self.adaptive(x, latents))
        if self.upsample is None:
            return x
        # Channels vary fastest within a square of pixels, unlike in nn.PixelShuffle.
        return rearrange(self.upsample(x), "b (p q c) h w -> b c (h p) (w q)", p=2, q=2)


class AdaptiveGroupNorm(nn.Module):
    """A group norm whose scale and shift are linear in the deviation and the mean of the latents."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(dim, channels)
        self.beta = nn.Linear(dim, channels)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        flat = latents.flatten(2)
        # A single place has deviation 0 here, where the unbiased estimate has none.
        spread = flat.var(dim=-1, correction=min(1, flat.shape[-1] - 1))
        scale = self.gamma((spread + NORM_EPS).sqrt())
        shift = self.beta(flat.mean(dim=-1))
        normed = F.group_norm(x, NORM_GROUPS, eps=NORM_EPS)
        return scale[..., None, None] * normed + shift[..., None, None]


def blocks(channels_in: int, channels: int, count: int, *, bias: bool = False) -> nn.Sequential:
    """Residual blocks in a row, their convolutions without bias unless asked."""
    return nn.Sequential(
        *(
            ResidualBlock(channels_in if index == 0 else channels, channels, bias=bias)
            for index in range(count)
        )
    )
