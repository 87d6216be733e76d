"""X-Codec 2 (Ye et al. 2025, arXiv 2502.04128): 50 ids of 16 bits for a second of speech, made for Llasa.

Source: zhenye234/X-Codec-2.0 e5d3b26 and the package xcodec2 0.1.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.projected import ProjectedQuantizer
from ..zoo.residual_fsq import ResidualFiniteScalarQuantizer
from ..zoo.tokens import Tokens
from .extra_hop import ExtraHopTokenizer
from .kaldi_mel import SAMPLE_RATE_HZ, SHIFT_SAMPLES, normalised_log_mel
from .preprocess import AudioPreprocess
from .stream import Overlap
from .vocos import GROUPS
from .w2v_bert import W2vBertSize
from .xcodec2_parts import XCodec2Decoder, XCodec2Encoder

# w2v-BERT has a frame in 20 ms, and every token takes one.
HOP_SAMPLES = 320


@dataclass(frozen=True)
class DecoderSize:
    """Sizes of the transformer that makes sound: features, layers, attention heads, width inside the MLPs."""

    width: int = 1024
    layers: int = 12
    heads: int = 16
    hidden: int = 4096

    def __post_init__(self) -> None:
        # The group norms of a single token need groups of more than one feature.
        check_range("width", self.width, 2 * GROUPS, 16384)
        check_range("layers", self.layers, 1, 256)
        check_range("heads", self.heads, 1, 256)
        check_range("hidden", self.hidden, 1, 65536)
        if self.width % self.heads or self.width % GROUPS:
            raise ValueError(
                f"width={self.width} with heads={self.heads}: expected a multiple of both them and {GROUPS}"
            )


@dataclass(frozen=True)
class XCodec2Config(Config):
    """One X-Codec 2.

    acoustic_channels  width of the acoustic encoder next to the sound; every stride doubles it
    acoustic_strides   finest first; their product is 320
    acoustic_features  of a token, that this encoder makes beside those of w2v-BERT
    semantic           sizes of w2v-BERT, as far as the layer that is read
    levels             L_j per feature of a code; their product is the size of the codebook
    decoder            sizes of the decoder
    preprocess         rate and channels of the sound
    """

    tokenizer_type: ClassVar[str] = "xcodec2"

    acoustic_channels: int = 48
    acoustic_strides: tuple[int, ...] = (2, 2, 4, 4, 5)
    acoustic_features: int = 1024
    semantic: W2vBertSize = field(default_factory=W2vBertSize)
    levels: tuple[int, ...] = (4,) * 8
    decoder: DecoderSize = field(default_factory=DecoderSize)
    preprocess: AudioPreprocess = field(
        default_factory=lambda: AudioPreprocess(sample_rate_hz=SAMPLE_RATE_HZ)
    )

    def __post_init__(self) -> None:
        check_range("acoustic_channels", self.acoustic_channels, 1, 4096)
        check_range("acoustic_features", self.acoustic_features, 1, 16384)
        check_range("number of levels", len(self.levels), 1, 64)
        for level in self.levels:
            check_range("level", level, 2, 65536)
        check_range("codebook size", math.prod(self.levels), 2, 1 << 62)
        if min(self.acoustic_strides, default=0) < 1 or math.prod(self.acoustic_strides) != HOP_SAMPLES:
            raise ValueError(f"acoustic_strides {self.acoustic_strides}: expected a product of {HOP_SAMPLES}")
        if (self.preprocess.sample_rate_hz, self.preprocess.channels) != (SAMPLE_RATE_HZ, 1):
            raise ValueError(
                f"{self.preprocess.channels} channels at {self.preprocess.sample_rate_hz} Hz: expected mono "
                f"at {SAMPLE_RATE_HZ} Hz, which w2v-BERT hears"
            )

    @property
    def hop_samples(self) -> int:
        return HOP_SAMPLES

    @property
    def features(self) -> int:
        """D, width of the latents: what both encoders make of a token."""
        return self.semantic.width + self.acoustic_features

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="xcodec2",
            modality="audio",
            sample_rate_hz=SAMPLE_RATE_HZ,
            channels=1,
            token_rate_hz=SAMPLE_RATE_HZ / HOP_SAMPLES,
            codebook_sizes=(math.prod(self.levels),),
            latent_dim=len(self.levels),
        )


class XCodec2(ExtraHopTokenizer):
    """Speech as one row of ids, each of which says what is spoken and how it sounds.

    Kept as the official code has it: a latent is bounded twice before it is rounded, and a sound of whole
    hops gets one token more. Mended: each item of a batch has semantic features of its own, where officially
    those of the first serve all, and a round trip gives back as many samples as went in.
    """

    config_type = XCodec2Config
    config: XCodec2Config

    def __init__(self, config: XCodec2Config) -> None:
        super().__init__(config)
        self.encoder = XCodec2Encoder(config)
        self.quantizer = ProjectedQuantizer(
            ResidualFiniteScalarQuantizer(config.levels, 1, rule="bounded"), config.features
        )
        self.decoder = XCodec2Decoder(config.decoder, config.features, config.hop_samples)

    @property
    def overlap(self) -> Overlap:
        """Two seconds. Features are normalised over the whole item, and both transformers see all of it."""
        return Overlap(encode_tokens=100, decode_tokens=100, is_exact=False)

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D). Padding counts as sound: `encode` takes it off."""
        sound = self.pad_signal(signal)
        latents = self.encoder(sound, self.semantic_features(sound))
        return self.tokens_of(latents.transpose(1, 2), signal.shape[-1])

    def semantic_features(self, sound: Tensor) -> Tensor:
        """What w2v-BERT reads, of padded sound: (B, 1, N * hop) -> (B, N, 160), each item by itself.

        With a frame's step of silence on each side, two frames begin in every hop.
        """
        return normalised_log_mel(F.pad(sound[:, 0], (SHIFT_SAMPLES, SHIFT_SAMPLES))).to(sound)
