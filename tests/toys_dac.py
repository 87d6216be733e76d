"""DAC and SNAC at a size for the contract test, with an odd stride each, where DAC's decoder falls short."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tokenzoo.audio.dac import Dac, DacConfig
from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.snac import Snac, SnacConfig


@dataclass(frozen=True)
class SmallDacConfig(DacConfig):
    encoder_channels: int = 4
    encoder_strides: tuple[int, ...] = (2, 5)
    features: int = 12
    decoder_channels: int = 16
    decoder_strides: tuple[int, ...] = (5, 2)
    num_codebooks: int = 3
    num_codes: int = 16
    code_dim: int = 4
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(sample_rate_hz=16_000))


class SmallDac(Dac):
    config_type = SmallDacConfig


@dataclass(frozen=True)
class SmallSnacConfig(SnacConfig):
    encoder_channels: int = 4
    encoder_strides: tuple[int, ...] = (2, 3)
    decoder_channels: int = 16
    decoder_strides: tuple[int, ...] = (3, 2)
    num_codes: int = 16
    code_dim: int = 4


class SmallSnac(Snac):
    config_type = SmallSnacConfig


@dataclass(frozen=True)
class SmallWindowedSnacConfig(SmallSnacConfig):
    """Windows of two tokens."""

    tokenizer_type: ClassVar[str] = "small-windowed-snac"

    encoder_channels: int = 16
    decoder_channels: int = 64
    window_size: int = 4
    frames: tuple[int, ...] = (2, 1)


class SmallWindowedSnac(Snac):
    config_type = SmallWindowedSnacConfig
