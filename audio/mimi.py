"""Mimi (Défossez et al. 2024, arXiv 2410.00037): speech at 12.5 tokens a second, made for streams.

Source: kyutai-labs/moshi, models/compression.py and quantization/vq.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.config import Config, check_range
from ..zoo.ema_quantizer import EMAVectorQuantizer
from ..zoo.facts import Facts
from ..zoo.projected import ProjectedQuantizer
from ..zoo.residual_quantizer import ResidualQuantizer
from ..zoo.split_quantizer import SplitQuantizer
from ..zoo.tokens import Tokens
from .audio_tokenizer import CausalAudioTokenizer
from .causal_transformer import CausalTransformer, CausalTransformerConfig
from .conv import Conv1d, ConvTranspose1d
from .preprocess import AudioPreprocess
from .seanet import SeanetConfig, SeanetDecoder, SeanetEncoder
from .stream_state import StreamState, step_through

# Sounds of up to 20 seconds pass as a whole, with the very numbers of the official code. Longer ones pass in
# pieces of 4 seconds with the state of the layers in between: the same but for rounding, in bounded memory.
WHOLE_TOKENS = 250
PIECE_TOKENS = 50


@dataclass(frozen=True)
class MimiConfig(Config):
    """One Mimi.

    num_codes           K, size of every codebook
    codebooks           Q; the first q of them decode too
    semantic_codebooks  how many of them, the first, carry meaning
    code_dim            width in which codes are compared; the latents have the width of the transformer
    commitment_weight   of the loss of every codebook
    stride              SEANet latents per token
    seanet              the convolutions, causal
    transformer         one behind the encoder, one before the decoder
    preprocess          rate, channels, mixing; the official scripts hear the first channel of a file
    """

    tokenizer_type: ClassVar[str] = "mimi"

    num_codes: int = 2048
    codebooks: int = 32
    semantic_codebooks: int = 1
    code_dim: int = 256
    commitment_weight: float = 1.0
    stride: int = 2
    seanet: SeanetConfig = field(
        default_factory=lambda: SeanetConfig(
            filters=64,
            ratios=(8, 6, 5, 4),
            last_kernel=3,
            true_skip=True,
            causal=True,
            pad_mode="constant",
            lstm_layers=0,
        )
    )
    transformer: CausalTransformerConfig = field(default_factory=CausalTransformerConfig)
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(mix="first"))

    def __post_init__(self) -> None:
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("codebooks", self.codebooks, 2, 256)
        check_range("semantic_codebooks", self.semantic_codebooks, 1, self.codebooks - 1)
        check_range("code_dim", self.code_dim, 1, 4096)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        check_range("stride", self.stride, 2, 64)
        if not self.seanet.causal:
            raise ValueError("seanet.causal=False: Mimi never looks ahead; set it")
        if self.seanet.channels != self.preprocess.channels:
            raise ValueError(
                f"seanet.channels={self.seanet.channels}, preprocess.channels={self.preprocess.channels}: "
                "expected the same"
            )

    @property
    def hop_samples(self) -> int:
        """Samples per token."""
        return self.seanet.hop_samples * self.stride

    def facts(self) -> Facts:
        """All but identity."""
        semantic, acoustic = self.semantic_codebooks, self.codebooks - self.semantic_codebooks
        return Facts(
            name="mimi",
            modality="audio",
            sample_rate_hz=self.preprocess.sample_rate_hz,
            channels=self.preprocess.channels,
            token_rate_hz=self.preprocess.sample_rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,) * self.codebooks,
            latent_dim=self.transformer.width,
            roles=("semantic",) * semantic + ("acoustic",) * acoustic,
            nested="codebooks",
            keeps=() if semantic == 1 else tuple(range(semantic, self.codebooks + 1)),
            is_causal=True,
        )


class Mimi(CausalAudioTokenizer):
    """Speech as a semantic codebook and acoustic ones beside it, all of the same latents.

    The file of the weights has 32 codebooks; the official package uses 8, and so does Moshi: `keep=8`
    computes no others. A sound is filled up with zeros to whole hops, as kyutai's code does. (transformers
    fills up each convolution by itself instead: its last token differs unless the sound is whole hops.)

    A stream gives the ids of the whole. (The official one does not quite: its ring of keys holds one window,
    so of the latents of a chunk the first no longer see the oldest keys.)
    """

    config_type = MimiConfig
    config: MimiConfig

    def __init__(self, config: MimiConfig) -> None:
        super().__init__(config)
        width, stride = config.transformer.width, config.stride
        self.encoder = nn.Sequential(
            OrderedDict(
                seanet=SeanetEncoder(config.seanet, width),
                transformer=CausalTransformer(config.transformer),
                downsample=Conv1d(
                    width, width, 2 * stride, stride=stride, bias=False, causal=True, pad_mode="replicate"
                ),
            )
        )
        self.quantizer = SplitQuantizer(
            _residual(config, config.semantic_codebooks),
            _residual(config, config.codebooks - config.semantic_codebooks),
        )
        self.decoder = nn.Sequential(
            OrderedDict(
                # Channel by channel, which the official code calls a bug and keeps for its weights.
                upsample=ConvTranspose1d(
                    width, width, 2 * stride, stride=stride, groups=width, bias=False, causal=True
                ),
                transformer=CausalTransformer(config.transformer),
                seanet=SeanetDecoder(config.seanet, width),
            )
        )

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; long sounds in pieces."""
        hop, samples = self.config.hop_samples, signal.shape[-1]
        if samples <= WHOLE_TOKENS * hop:
            return super().encode_latents(signal)
        pieces = signal.split(PIECE_TOKENS * hop, dim=-1)
        return self.tokens_of(torch.cat(_steps(self.encode_step, pieces), dim=1), samples)

    def sound_of(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) to sound (B, C, N hops), long ones in pieces."""
        if latents.shape[1] <= WHOLE_TOKENS:
            return super().sound_of(latents)
        return torch.cat(_steps(self.decode_step, latents.split(PIECE_TOKENS, dim=1)), dim=-1)

    def encode_step(self, signal: Tensor, state: StreamState, *, last: bool = False) -> Tensor:
        """See `CausalAudioTokenizer`: a token for every hop, the last one filled up with zeros."""
        if last:
            signal = F.pad(signal, (0, -signal.shape[-1] % self.config.hop_samples))
        return step_through(self.encoder, signal, state, last).transpose(1, 2)

    def decode_step(self, latents: Tensor, state: StreamState, *, last: bool = False) -> Tensor:
        """See `CausalAudioTokenizer`: a hop for every token."""
        return step_through(self.decoder, latents.transpose(1, 2), state, last)


def _residual(config: MimiConfig, codebooks: int) -> ProjectedQuantizer:
    stages = [
        EMAVectorQuantizer(
            config.num_codes, config.code_dim, smoothing="floor", commitment_weight=config.commitment_weight
        )
        for _ in range(codebooks)
    ]
    return ProjectedQuantizer(ResidualQuantizer(stages), config.transformer.width, bias=False)


def _steps(step: Callable[..., Tensor], pieces: Sequence[Tensor]) -> list[Tensor]:
    """What one stream makes of each piece."""
    state = StreamState()
    return [step(piece, state, last=index == len(pieces) - 1) for index, piece in enumerate(pieces)]
