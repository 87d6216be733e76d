"""DAC, the Descript Audio Codec (Kumar et al. 2023, arXiv 2306.06546): residual ids for sound of any kind.

Source: descriptinc/descript-audio-codec c7cfc5d, dac/model/dac.py and dac/nn/quantize.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.projected import ProjectedQuantizer
from ..zoo.quantizer import Quantizer
from ..zoo.residual_quantizer import ResidualQuantizer
from ..zoo.vector_quantizer import VectorQuantizer
from .audio_tokenizer import AudioTokenizer
from .dac_parts import DacDecoder, DacEncoder
from .preprocess import AudioPreprocess
from .reach import decoder_context, encoder_context
from .stream import Overlap


@dataclass(frozen=True)
class DacConfig(Config):
    """One DAC.

    encoder_channels   width next to the sound; every stride doubles it
    encoder_strides    finest first
    features           D, width of the latents between encoder, codebooks and decoder
    decoder_channels   width next to the latents; every stride halves it
    decoder_strides    coarsest first
    num_codebooks      Q, residual codebooks
    num_codes          K, size of each
    code_dim           width of a code, where it is searched
    commitment_weight  weight of the commitment loss
    preprocess         rate and channels of the sound
    """

    tokenizer_type: ClassVar[str] = "dac"

    encoder_channels: int = 64
    encoder_strides: tuple[int, ...] = (2, 4, 8, 8)
    features: int = 1024
    decoder_channels: int = 1536
    decoder_strides: tuple[int, ...] = (8, 8, 4, 2)
    num_codebooks: int = 9
    num_codes: int = 1024
    code_dim: int = 8
    commitment_weight: float = 0.25
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(sample_rate_hz=44_100))

    def __post_init__(self) -> None:
        check_strides(self.encoder_strides, self.decoder_strides)
        check_range("encoder_channels", self.encoder_channels, 1, 4096)
        check_range("features", self.features, 1, 16384)
        check_range("decoder_channels", self.decoder_channels, 1 << len(self.decoder_strides), 16384)
        check_range("num_codebooks", self.num_codebooks, 1, 256)
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("code_dim", self.code_dim, 1, 4096)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        if self.preprocess.channels != 1:
            raise ValueError(f"{self.preprocess.channels} channels: expected mono")

    @property
    def hop_samples(self) -> int:
        return math.prod(self.encoder_strides)

    def facts(self) -> Facts:
        """All but identity."""
        rate_hz = self.preprocess.sample_rate_hz
        return Facts(
            name="dac",
            modality="audio",
            sample_rate_hz=rate_hz,
            channels=1,
            token_rate_hz=rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,) * self.num_codebooks,
            latent_dim=self.code_dim,
            nested="codebooks",
        )


class Dac(AudioTokenizer):
    """Sound as rows of residual ids, each codebook searched by direction in few dimensions.

    Kept as the official code has it: the decoder of the 16 and 24 kHz models, which have a stride of 5, gives
    8 samples less than whole hops. Mended: a round trip gives back as many samples as went in, the missing
    ones as zeros at the very end of the sound. Levels are left alone, as in the official `encode`; the
    official command line brings sounds to -16 LUFS first.
    """

    config_type = DacConfig
    config: DacConfig

    def __init__(self, config: DacConfig) -> None:
        super().__init__(config)
        self.encoder = DacEncoder(config.encoder_channels, config.encoder_strides, config.features)
        self.quantizer = ResidualQuantizer(
            [
                factorized(config.num_codes, config.code_dim, config.features, config.commitment_weight)
                for _ in range(config.num_codebooks)
            ],
            detached=False,
        )
        self.decoder = DacDecoder(config.features, config.decoder_channels, config.decoder_strides)

    @property
    def overlap(self) -> Overlap:
        """All that the convolutions look at."""
        hop = self.config.hop_samples
        return Overlap(
            encode_tokens=encoder_context(self.encoder, 1, hop),
            decode_tokens=decoder_context(self.decoder, 1, hop),
            is_exact=True,
        )


def factorized(num_codes: int, code_dim: int, features: int, commitment_weight: float) -> Quantizer:
    """One level of DAC or SNAC: a codebook in few dimensions, searched by direction, between linear maps."""
    codebook = VectorQuantizer(num_codes, code_dim, l2=True, commitment_weight=commitment_weight)
    return ProjectedQuantizer(codebook, features)


def check_strides(encoder: tuple[int, ...], decoder: tuple[int, ...]) -> None:
    """ValueError unless both have one to eight strides of one product."""
    for name, strides in (("encoder_strides", encoder), ("decoder_strides", decoder)):
        check_range(f"number of {name}", len(strides), 1, 8)
        for stride in strides:
            check_range(name, stride, 1, 64)
    if math.prod(encoder) != math.prod(decoder):
        raise ValueError(f"strides {encoder} and {decoder}: expected the same product")
