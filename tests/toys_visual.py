"""The visual-token modules at a size for the contract test: 4 x 4 places in images of 16 x 16 pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenzoo.image.matryoshka import Matryoshka, MatryoshkaConfig
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.token_shuffle import TokenShuffle, TokenShuffleConfig
from tokenzoo.image.tokenflex import TokenFlex, TokenFlexConfig
from tokenzoo.image.visual_tokenizer import VisualConfig
from tokenzoo.image.visual_transformer import VisualTransformer, VisualTransformerConfig
from tokenzoo.zoo.transformer import TransformerSize

SIZE = TransformerSize(width=16, layers=1, heads=2)


@dataclass(frozen=True, kw_only=True)
class SmallVisualConfig(VisualConfig):
    dim: int = 8
    image_size: int = 16
    patch_size: int = 4
    vision: TransformerSize | None = SIZE
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(size=16))


@dataclass(frozen=True, kw_only=True)
class SmallMatryoshkaConfig(SmallVisualConfig, MatryoshkaConfig):
    sides: tuple[int, ...] = (1, 2, 4)


class SmallMatryoshka(Matryoshka):
    config_type = SmallMatryoshkaConfig


@dataclass(frozen=True, kw_only=True)
class SmallTokenFlexConfig(SmallVisualConfig, TokenFlexConfig):
    sides: tuple[int, ...] = (1, 3, 4)


class SmallTokenFlex(TokenFlex):
    config_type = SmallTokenFlexConfig


@dataclass(frozen=True, kw_only=True)
class SmallVisualTransformerConfig(SmallVisualConfig, VisualTransformerConfig):
    num_tokens: int = 5
    layers: int = 3


class SmallVisualTransformer(VisualTransformer):
    config_type = SmallVisualTransformerConfig


@dataclass(frozen=True, kw_only=True)
class SmallTokenShuffleConfig(SmallVisualConfig, TokenShuffleConfig):
    pass


class SmallTokenShuffle(TokenShuffle):
    config_type = SmallTokenShuffleConfig
