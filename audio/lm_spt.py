"""LM-SPT (Jo et al. 2025, arXiv 2506.16738): a semantic id and acoustic ones, 25, 12.5 or 6.25 a second each.

The semantic codebook is taught through sound: speech that is decoded from it alone must be, to a frozen
speech recognizer, what the original is; see `audio/resynthesis.py`. Nothing is pooled or aligned, so few
tokens do.

Source: kakao/lmspt b6e52d5 (Apache-2.0), lmspt/model_codec; weights of 12.5 tokens a second of 24 kHz are on
the Hub, "lm-spt-12hz". The recipes in configs/ train the three rates of the paper at 16 kHz. Where training
differs: the one decoder says the semantic ids, where the official training has a second, smaller one for it,
which inference does without; and codebooks start from k-means and have unused codes revived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..zoo.codebook_care import KMeansStart, Revival
from ..zoo.config import Config, check_range
from ..zoo.dual_quantizer import DualQuantizer
from ..zoo.facts import Facts
from ..zoo.projected import ProjectedQuantizer
from ..zoo.residual_quantizer import ResidualQuantizer
from ..zoo.vector_quantizer import VectorQuantizer
from .audio_tokenizer import AudioTokenizer
from .dac import check_strides
from .dac_parts import DacDecoder, DacEncoder
from .preprocess import AudioPreprocess
from .reach import decoder_context, encoder_context
from .stream import Overlap


@dataclass(frozen=True)
class LmSptConfig(Config):
    """One LM-SPT; the defaults are 12.5 tokens a second of 16 kHz, with the official widths and codebooks.

    encoder_channels   width of both encoders next to the sound; every stride doubles it
    encoder_strides    finest first; their product is the hop. At an odd one DAC's decoder falls some samples
                       short of whole hops, which zeros then fill, so even ones are the default
    features           D, width of the latents of each encoder, of the codebooks' sum, and of the decoder
    decoder_channels   width next to the latents; every stride halves it
    decoder_strides    coarsest first
    num_codebooks      Q: one semantic, the others acoustic
    semantic_codes     size of the semantic codebook
    acoustic_codes     size of each acoustic codebook
    code_dim           width of a code, where it is searched
    commitment_weight  weight of the commitment loss
    subtracts          acoustic codebooks see their latent less the semantic code
    revives            codebooks start from k-means and have unused codes moved; the official ones do not
    preprocess         rate and channels of the sound
    """

    tokenizer_type: ClassVar[str] = "lm-spt"

    encoder_channels: int = 32
    encoder_strides: tuple[int, ...] = (4, 4, 4, 10, 2)
    features: int = 1024
    decoder_channels: int = 1536
    decoder_strides: tuple[int, ...] = (2, 10, 4, 4, 4)
    num_codebooks: int = 8
    semantic_codes: int = 16384
    acoustic_codes: int = 4096
    code_dim: int = 8
    commitment_weight: float = 0.25
    subtracts: bool = True
    revives: bool = True
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(sample_rate_hz=16_000))

    def __post_init__(self) -> None:
        check_strides(self.encoder_strides, self.decoder_strides)
        check_range("encoder_channels", self.encoder_channels, 1, 4096)
        check_range("features", self.features, 1, 16384)
        check_range("decoder_channels", self.decoder_channels, 1 << len(self.decoder_strides), 16384)
        check_range("num_codebooks", self.num_codebooks, 2, 256)
        check_range("semantic_codes", self.semantic_codes, 1, 1 << 24)
        check_range("acoustic_codes", self.acoustic_codes, 1, 1 << 24)
        check_range("code_dim", self.code_dim, 1, 4096)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        if self.preprocess.channels != 1:
            raise ValueError(f"{self.preprocess.channels} channels: expected mono")

    @property
    def hop_samples(self) -> int:
        """Samples per token."""
        return math.prod(self.encoder_strides)

    def facts(self) -> Facts:
        """All but identity."""
        rate_hz, acoustic = self.preprocess.sample_rate_hz, self.num_codebooks - 1
        return Facts(
            name="lm-spt",
            modality="audio",
            sample_rate_hz=rate_hz,
            channels=1,
            token_rate_hz=rate_hz / self.hop_samples,
            codebook_sizes=(self.semantic_codes,) + (self.acoustic_codes,) * acoustic,
            latent_dim=self.code_dim,
            roles=("semantic",) + ("acoustic",) * acoustic,
            nested="codebooks",
        )


class LmSpt(AudioTokenizer):
    """Speech as a semantic id and acoustic ones; `decode(tokens.keep(1))` is said by the semantic ids alone.

    A sound is filled up with zeros to whole hops. The official code leaves that to the caller: where it is
    not done, its strided convolutions drop what does not fill them.
    """

    config_type = LmSptConfig
    config: LmSptConfig

    def __init__(self, config: LmSptConfig) -> None:
        super().__init__(config)
        self.encoder = DualEncoder(config.encoder_channels, config.encoder_strides, config.features)
        self.quantizer = DualQuantizer(
            _level(config, config.semantic_codes),
            ResidualQuantizer(
                [_level(config, config.acoustic_codes) for _ in range(config.num_codebooks - 1)],
                detached=False,
            ),
            subtracts=config.subtracts,
        )
        self.decoder = DacDecoder(config.features, config.decoder_channels, config.decoder_strides)

    @property
    def overlap(self) -> Overlap:
        """All that the convolutions look at."""
        hop = self.config.hop_samples
        return Overlap(
            encode_tokens=encoder_context(self.encoder.semantic, 1, hop),
            decode_tokens=decoder_context(self.decoder, 1, hop),
            is_exact=True,
        )


class DualEncoder(nn.Module):
    """Two encoders of the same sound, side by side: (B, 1, N * hop) -> (B, 2 * features, N)."""

    def __init__(self, channels: int, strides: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.semantic = DacEncoder(channels, strides, features)
        self.acoustic = DacEncoder(channels, strides, features)

    def forward(self, sound: Tensor) -> Tensor:
        return torch.cat([self.semantic(sound), self.acoustic(sound)], dim=1)


def _level(config: LmSptConfig, num_codes: int) -> ProjectedQuantizer:
    """A codebook in few dimensions, searched by direction, between linear maps: DAC's."""
    codebook = VectorQuantizer(
        num_codes,
        config.code_dim,
        l2=True,
        commitment_weight=config.commitment_weight,
        start=KMeansStart() if config.revives else None,
        revival=Revival() if config.revives else None,
    )
    return ProjectedQuantizer(codebook, config.features)
