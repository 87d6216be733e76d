"""LM-SPT at a size for the contract test, at its three rates: hops of 640, 1280 and 2560 samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenzoo.audio.lm_spt import LmSpt, LmSptConfig


@dataclass(frozen=True)
class SmallLmSptConfig(LmSptConfig):
    """25 tokens a second."""

    encoder_channels: int = 2
    encoder_strides: tuple[int, ...] = (8, 8, 10)
    features: int = 6
    decoder_channels: int = 16
    decoder_strides: tuple[int, ...] = (10, 8, 8)
    num_codebooks: int = 3
    semantic_codes: int = 32
    acoustic_codes: int = 16
    code_dim: int = 4
    revives: bool = False


class SmallLmSpt(LmSpt):
    config_type = SmallLmSptConfig


@dataclass(frozen=True)
class SmallLmSpt12Config(SmallLmSptConfig):
    """12.5 tokens a second."""

    tokenizer_type: ClassVar[str] = "small-lm-spt-12"

    encoder_strides: tuple[int, ...] = (8, 16, 10)
    decoder_strides: tuple[int, ...] = (10, 16, 8)


class SmallLmSpt12(LmSpt):
    config_type = SmallLmSpt12Config


@dataclass(frozen=True)
class SmallLmSpt6Config(SmallLmSptConfig):
    """6.25 tokens a second, each codebook on the whole latent."""

    tokenizer_type: ClassVar[str] = "small-lm-spt-6"

    encoder_strides: tuple[int, ...] = (16, 16, 10)
    decoder_strides: tuple[int, ...] = (10, 16, 16)
    subtracts: bool = False


class SmallLmSpt6(LmSpt):
    config_type = SmallLmSpt6Config
