"""ReTok at a size for the contract test."""

from __future__ import annotations

from dataclasses import dataclass

from tokenzoo.image.conv_parts import LevelsConfig
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.retok import ReTok, ReTokConfig
from tokenzoo.zoo.transformer import TransformerSize

from .toys_distilled import spread

SIZE = TransformerSize(width=32, layers=2, heads=2)
SIXTEEN = ImagePreprocess(size=16)
# Two channels a norm group at least: over a lone channel that hardly varies, a norm magnifies rounding.
CONV = LevelsConfig(channels=64, multipliers=(1, 1, 1), blocks=1)


@dataclass(frozen=True)
class SmallReTokConfig(ReTokConfig):
    encoder: TransformerSize = SIZE
    decoder: TransformerSize = SIZE
    num_tokens: int = 16
    num_spare: int = 12
    num_codes: int = 50
    latent_dim: int = 4
    features: int = 8
    conv: LevelsConfig = CONV
    image_size: int = 16
    preprocess: ImagePreprocess = SIXTEEN
    semantic_depth: int = 1
    semantic_dim: int = 6


class SmallReTok(ReTok):
    config_type = SmallReTokConfig

    def __init__(self, config: SmallReTokConfig) -> None:
        super().__init__(config)
        spread(self)
