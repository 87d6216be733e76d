"""The binary autoencoder of ELM (Liu et al. 2024, arXiv 2410.16257): a grid of ids whose bits are drawn.

A bit is 1 with the probability that the encoder gives; the decoder sums one learned vector for each that is.
No SiLU stands before the last convolutions. Source: Pepper-lll/LMforImageGeneration, bae/binaryae.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..zoo.bernoulli import BernoulliQuantizer
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from .conv_parts import (
    NORM_GROUPS,
    AttentionBlock,
    Downsample,
    LevelsConfig,
    ResidualBlock,
    Upsample,
    conv3,
    norm,
)
from .grid_tokenizer import GridTokenizer
from .preprocess import ImagePreprocess


@dataclass(frozen=True)
class ElmBaeConfig(Config):
    """One binary autoencoder of ELM.

    bits         D, bits of an id
    features     width of a bit's vector and of what the encoder gives
    code_weight  weight of the loss that makes bits sure
    norm_first   the decoder normalises the sum of the vectors
    conv         sizes of the networks
    attention    levels, 0 the finest, whose blocks are each followed by attention
    preprocess   how a picture gets the size the model was trained at
    """

    tokenizer_type: ClassVar[str] = "elm-bae"

    bits: int = 16
    features: int = 256
    code_weight: float = 0.0
    norm_first: bool = True
    conv: LevelsConfig = field(default_factory=LevelsConfig)
    attention: tuple[int, ...] = (4,)
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(interpolation="bilinear"))

    def __post_init__(self) -> None:
        check_range("bits", self.bits, 1, 30)
        check_range("features", self.features, 1, 4096)
        check_range("code_weight", self.code_weight, 0, 1e6)
        for level in self.attention:
            check_range("attention level", level, 0, len(self.conv.multipliers) - 1)
        if self.norm_first and self.features % NORM_GROUPS:
            raise ValueError(
                f"features={self.features} with norm_first: expected a multiple of {NORM_GROUPS}, the groups"
            )

    @property
    def stride(self) -> int:
        return self.conv.stride

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="elm-bae",
            modality="image",
            channels=3,
            codebook_sizes=(2**self.bits,),
            latent_dim=self.bits,
            draws_noise=True,
        )


class ElmBae(GridTokenizer):
    """Images as a grid of ids: the likelier bits, or with a generator bits as likely as they are.

    The first bit is the highest. ELM's language models split an id into parts of as many bits each.
    """

    config_type = ElmBaeConfig
    config: ElmBaeConfig
    symmetric = False

    def __init__(self, config: ElmBaeConfig) -> None:
        super().__init__(config)
        self.encoder = BitEncoder(config)
        self.quantizer = BernoulliQuantizer(config.bits, code_weight=config.code_weight)
        self.decoder = BitDecoder(config)


class BitEncoder(nn.Module):
    """Images to logits of bits: (B, 3, H, W) float in [0, 1] -> (B, D, H / stride, W / stride) float."""

    def __init__(self, config: ElmBaeConfig) -> None:
        super().__init__()
        widths = config.conv.widths
        blocks: list[nn.Module] = [conv3(3, widths[0])]
        for level, width in enumerate(widths):
            blocks += _level(widths[max(level - 1, 0)], width, config.conv.blocks, level in config.attention)
            if level < len(widths) - 1:
                blocks.append(Downsample(width))
        blocks += [*_middle(widths[-1]), norm(widths[-1]), conv3(widths[-1], config.features)]
        self.blocks = nn.Sequential(*blocks)
        self.proj = nn.Conv2d(config.features, config.bits, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(self.blocks(images))


class BitDecoder(nn.Module):
    """Bits to images: (B, D, h, w) float, 0 or 1 -> (B, 3, stride h, stride w) float, not clamped."""

    def __init__(self, config: ElmBaeConfig) -> None:
        super().__init__()
        widths = config.conv.widths
        self.vectors = nn.Parameter(torch.randn(config.bits, config.features))
        blocks: list[nn.Module] = [norm(config.features)] if config.norm_first else []
        blocks += [conv3(config.features, widths[-1]), *_middle(widths[-1])]
        for level in reversed(range(len(widths))):
            coarser = widths[min(level + 1, len(widths) - 1)]
            blocks += _level(coarser, widths[level], config.conv.blocks, level in config.attention)
            if level:
                blocks.append(Upsample(widths[level]))
        blocks += [norm(widths[0]), conv3(widths[0], 3)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, bits: Tensor) -> Tensor:
        return self.blocks(torch.einsum("bnhw,nd->bdhw", bits, self.vectors))


class PaddedBlock(ResidualBlock):
    """A residual block that always has the weights of a shortcut, as the checkpoints do.

    Where the width stays they are never read, so they are frozen.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(channels_in, channels)
        self.keeps_width = self.nin_shortcut is None
        if self.keeps_width:
            self.nin_shortcut = nn.Conv2d(channels, channels, 1).requires_grad_(False)

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.keeps_width else super().shortcut(x)


def _level(channels_in: int, channels: int, count: int, attention: bool) -> list[nn.Module]:
    """Residual blocks of one size, each followed by attention where asked."""
    blocks: list[nn.Module] = []
    for index in range(count):
        blocks.append(PaddedBlock(channels_in if index == 0 else channels, channels))
        if attention:
            blocks.append(AttentionBlock(channels))
    return blocks


def _middle(channels: int) -> list[nn.Module]:
    return [PaddedBlock(channels, channels), AttentionBlock(channels), PaddedBlock(channels, channels)]
