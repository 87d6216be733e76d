"""WavTokenizer (Ji et al. 2024, arXiv 2408.16532): one id of 4096 for 13 or 25 ms of any sound at 24 kHz.

Source: jishengpeng/WavTokenizer, decoder/feature_extractors.py, decoder/models.py and decoder/heads.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..zoo.codebook_care import KMeansStart, Revival
from ..zoo.config import Config, check_range
from ..zoo.ema_quantizer import EMAVectorQuantizer
from ..zoo.facts import Facts
from .audio_tokenizer import AudioTokenizer
from .istft import check_window
from .preprocess import AudioPreprocess
from .seanet import SeanetConfig, SeanetEncoder
from .stream import Overlap
from .vocos import VocosConfig, VocosDecoder


@dataclass(frozen=True)
class WavTokenizerConfig(Config):
    """One WavTokenizer.

    num_codes          K, size of the codebook
    latent_dim         D, width of a code
    commitment_weight  weight of the commitment loss, beside a mel loss of weight 45
    encoder            sizes of the encoder
    decoder            sizes of the decoder
    preprocess         rate and channels of the sound
    """

    tokenizer_type: ClassVar[str] = "wavtokenizer"

    num_codes: int = 4096
    latent_dim: int = 512
    commitment_weight: float = 1000.0
    encoder: SeanetConfig = field(default_factory=SeanetConfig)
    decoder: VocosConfig = field(default_factory=VocosConfig)
    preprocess: AudioPreprocess = field(default_factory=AudioPreprocess)

    def __post_init__(self) -> None:
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("latent_dim", self.latent_dim, 1, 8192)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        check_window(self.decoder.n_fft, self.hop_samples)
        if self.preprocess.channels != self.encoder.channels or self.encoder.channels != 1:
            raise ValueError(
                f"{self.preprocess.channels} channels of sound, {self.encoder.channels} of the encoder: "
                "expected 1, for the decoder makes mono"
            )

    @property
    def hop_samples(self) -> int:
        return self.encoder.hop_samples

    def facts(self) -> Facts:
        """All but identity."""
        rate_hz = self.preprocess.sample_rate_hz
        return Facts(
            name="wavtokenizer",
            modality="audio",
            sample_rate_hz=rate_hz,
            channels=1,
            token_rate_hz=rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,),
            latent_dim=self.latent_dim,
        )


class WavTokenizer(AudioTokenizer):
    """Sound as one row of ids; the decoder attends to the whole of it.

    The official decoder gives whole hops of sound; here the samples beyond the input are cut off.
    """

    config_type = WavTokenizerConfig
    config: WavTokenizerConfig

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__(config)
        self.encoder = SeanetEncoder(config.encoder, config.latent_dim)
        self.quantizer = EMAVectorQuantizer(
            config.num_codes,
            config.latent_dim,
            commitment_weight=config.commitment_weight,
            start=KMeansStart(rounds=200),
            revival=Revival(),
        )
        self.decoder = VocosDecoder(config.decoder, config.latent_dim, config.hop_samples)

    @property
    def overlap(self) -> Overlap:
        """Measured: the encoder's LSTM remembers all. The decoder's convolutions reach 49 tokens far, but its
        attention and group norms see all, whatever the context."""
        return Overlap(encode_tokens=64, decode_tokens=64, is_exact=False)

    def pad_signal(self, signal: Tensor) -> Tensor:
        """As it is: each convolution pads by itself, by reflection, so that the last hop is whole."""
        return signal
