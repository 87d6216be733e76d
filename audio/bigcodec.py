"""BigCodec (Xin et al. 2024, arXiv 2409.05377): 80 ids of 13 bits for a second of speech at 16 kHz.

Source: Aria-K-Alethia/BigCodec 09845ab, vq/codec_encoder.py, vq/codec_decoder.py and inference.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from .bigcodec_parts import AliasFreeDecoder, AliasFreeEncoder
from .dac import check_strides, factorized
from .extra_hop import ExtraHopTokenizer
from .preprocess import AudioPreprocess
from .stream import Overlap


@dataclass(frozen=True)
class BigCodecConfig(Config):
    """One BigCodec.

    encoder_channels   width next to the sound; every stride doubles it
    encoder_strides    finest first
    encoder_lstm       layers of the LSTM after the last stride
    features           D, width of the latents between encoder, codebook and decoder
    decoder_channels   width next to the latents; every stride halves it
    decoder_strides    coarsest first
    decoder_lstm       layers of the LSTM before the first stride
    num_codes          K, size of the codebook
    code_dim           width of a code, where it is searched
    commitment_weight  weight of the commitment loss
    preprocess         rate and channels of the sound
    """

    tokenizer_type: ClassVar[str] = "bigcodec"

    encoder_channels: int = 48
    encoder_strides: tuple[int, ...] = (2, 2, 2, 5, 5)
    encoder_lstm: int = 2
    features: int = 1024
    decoder_channels: int = 1536
    decoder_strides: tuple[int, ...] = (5, 5, 2, 2, 2)
    decoder_lstm: int = 2
    num_codes: int = 8192
    code_dim: int = 8
    commitment_weight: float = 0.25
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(sample_rate_hz=16_000))

    def __post_init__(self) -> None:
        check_strides(self.encoder_strides, self.decoder_strides)
        check_range("encoder_channels", self.encoder_channels, 1, 4096)
        check_range("encoder_lstm", self.encoder_lstm, 1, 64)
        check_range("features", self.features, 1, 16384)
        check_range("decoder_channels", self.decoder_channels, 1 << len(self.decoder_strides), 16384)
        check_range("decoder_lstm", self.decoder_lstm, 1, 64)
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
            name="bigcodec",
            modality="audio",
            sample_rate_hz=rate_hz,
            channels=1,
            token_rate_hz=rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,),
            latent_dim=self.code_dim,
        )


class BigCodec(ExtraHopTokenizer):
    """Speech as one row of ids from a codebook that is searched by direction, in few dimensions.

    Kept as the official code has it: a sound of whole hops gets one token more. Mended: a round trip gives
    back as many samples as went in.
    """

    config_type = BigCodecConfig
    config: BigCodecConfig

    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__(config)
        self.encoder = AliasFreeEncoder(
            config.encoder_channels, config.encoder_strides, config.features, lstm_layers=config.encoder_lstm
        )
        self.quantizer = factorized(
            config.num_codes, config.code_dim, config.features, config.commitment_weight
        )
        self.decoder = AliasFreeDecoder(
            config.features, config.decoder_channels, config.decoder_strides, lstm_layers=config.decoder_lstm
        )

    @property
    def overlap(self) -> Overlap:
        """One second. The LSTMs remember all that was before, though less and less of it."""
        return Overlap(encode_tokens=80, decode_tokens=80, is_exact=False)
