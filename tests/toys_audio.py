"""A tiny codec on the base of the audio families, of no paper: its networks look two tokens far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from tokenzoo.audio.audio_tokenizer import AudioTokenizer
from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.stream import Overlap
from tokenzoo.zoo.config import Config, check_range
from tokenzoo.zoo.facts import Facts
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer


@dataclass(frozen=True)
class ToyCodecConfig(Config):
    """Residual codebooks over frames of `hop_samples`."""

    tokenizer_type: ClassVar[str] = "toy-codec"

    hop_samples: int = 4
    dim: int = 6
    codebooks: int = 3
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(sample_rate_hz=16_000))

    def __post_init__(self) -> None:
        check_range("hop_samples", self.hop_samples, 1, 4096)
        check_range("codebooks", self.codebooks, 1, 64)

    def facts(self) -> Facts:
        return Facts(
            name="toy-codec",
            modality="audio",
            sample_rate_hz=self.preprocess.sample_rate_hz,
            channels=self.preprocess.channels,
            token_rate_hz=self.preprocess.sample_rate_hz / self.hop_samples,
            codebook_sizes=(16,) * self.codebooks,
            latent_dim=self.dim,
            nested="codebooks",
        )


class ToyCodec(AudioTokenizer):
    """Convolutions over whole hops, two tokens to each side both ways."""

    config_type = ToyCodecConfig
    config: ToyCodecConfig

    def __init__(self, config: ToyCodecConfig) -> None:
        super().__init__(config)
        hop, dim, channels = config.hop_samples, config.dim, config.preprocess.channels
        self.encoder = nn.Sequential(
            nn.Conv1d(channels, dim, hop, stride=hop), nn.Dropout(0.5), nn.Conv1d(dim, dim, 5, padding=2)
        )
        stages = [VectorQuantizer(16, dim) for _ in range(config.codebooks)]
        for depth, stage in enumerate(stages):
            with torch.no_grad():
                stage.codebook.normal_(std=0.4 * 0.5**depth)
        self.quantizer = ResidualQuantizer(stages)
        self.decoder = nn.Sequential(
            nn.Conv1d(dim, dim, 5, padding=2), nn.ConvTranspose1d(dim, channels, hop, stride=hop)
        )

    @property
    def overlap(self) -> Overlap:
        return Overlap(encode_tokens=2, decode_tokens=2, is_exact=True)
