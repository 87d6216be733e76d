"""BigCodec at 4 samples a token and X-Codec 2 at its 320, small, for the contract test."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tokenzoo.audio.bigcodec import BigCodec, BigCodecConfig
from tokenzoo.audio.w2v_bert import W2vBertSize
from tokenzoo.audio.xcodec2 import DecoderSize, XCodec2, XCodec2Config


@dataclass(frozen=True)
class SmallBigCodecConfig(BigCodecConfig):
    encoder_channels: int = 2
    encoder_strides: tuple[int, ...] = (2, 2)
    features: int = 12
    decoder_channels: int = 16
    decoder_strides: tuple[int, ...] = (2, 2)
    num_codes: int = 40
    code_dim: int = 4


class SmallBigCodec(BigCodec):
    config_type = SmallBigCodecConfig


@dataclass(frozen=True)
class SmallXCodec2Config(XCodec2Config):
    acoustic_channels: int = 2
    acoustic_features: int = 12
    semantic: W2vBertSize = field(
        default_factory=lambda: W2vBertSize(width=16, layers=2, heads=2, hidden=24, kernel=5, left=4, right=2)
    )
    levels: tuple[int, ...] = (4, 4, 4)
    decoder: DecoderSize = field(default_factory=lambda: DecoderSize(64, layers=1, heads=4, hidden=48))


class SmallXCodec2(XCodec2):
    """With latents wide enough to reach all levels."""

    config_type = SmallXCodec2Config

    def __init__(self, config: SmallXCodec2Config) -> None:
        super().__init__(config)
        with torch.no_grad():
            self.quantizer.project_in.weight.mul_(8)
