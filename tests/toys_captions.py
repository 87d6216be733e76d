"""TA-TiTok and TexTok at a size for the contract test; their text tower is that of tests/tiny_clip.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tokenzoo.image.captions import TextTowerConfig
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.ta_titok import TaTiTok, TaTiTokConfig
from tokenzoo.image.textok import TexTok, TexTokConfig
from tokenzoo.zoo.transformer import TransformerSize

from .tiny_clip import tiny_clip
from .toys_distilled import spread

SIZE = TransformerSize(width=32, layers=2, heads=2)
SIXTEEN = ImagePreprocess(size=16)


@dataclass(frozen=True)
class SmallTaTiTokConfig(TaTiTokConfig):
    num_tokens: int = 5
    latent_dim: int = 4
    encoder: TransformerSize = SIZE
    decoder: TransformerSize = SIZE
    image_size: int = 16
    preprocess: ImagePreprocess = SIXTEEN
    encoder_patch_size: int = 4
    decoder_patch_size: int = 4
    num_codes: int | None = 40
    text_tower: TextTowerConfig = field(default_factory=tiny_clip)


class SmallTaTiTok(TaTiTok):
    config_type = SmallTaTiTokConfig

    def __init__(self, config: SmallTaTiTokConfig) -> None:
        super().__init__(config)
        spread(self)


@dataclass(frozen=True)
class SmallTaTiTokKlConfig(SmallTaTiTokConfig):
    tokenizer_type: ClassVar[str] = "small-ta-titok-kl"

    quantizer: Literal["vq", "gaussian"] = "gaussian"
    num_codes: int | None = None


class SmallTaTiTokKl(SmallTaTiTok):
    config_type = SmallTaTiTokKlConfig


@dataclass(frozen=True)
class SmallTexTokConfig(TexTokConfig):
    num_tokens: int = 3
    latent_dim: int = 4
    encoder: TransformerSize = SIZE
    decoder: TransformerSize = SIZE
    image_size: int = 16
    preprocess: ImagePreprocess = SIXTEEN
    encoder_patch_size: int = 4
    decoder_patch_size: int = 4
    text_tower: TextTowerConfig = field(default_factory=tiny_clip)


class SmallTexTok(TexTok):
    config_type = SmallTexTokConfig

    def __init__(self, config: SmallTexTokConfig) -> None:
        super().__init__(config)
        spread(self)


@dataclass(frozen=True)
class SmallTexTokVqConfig(SmallTexTokConfig):
    tokenizer_type: ClassVar[str] = "small-textok-vq"

    quantizer: Literal["vq", "gaussian"] = "vq"
    num_codes: int | None = 40


class SmallTexTokVq(SmallTexTok):
    config_type = SmallTexTokVqConfig
