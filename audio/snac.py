"""SNAC (Siuzdak et al. 2024, arXiv 2410.14411): residual ids of several rates, the coarse ones rarest.

Source: hubertsiuzdak/snac f49016a, snac/snac.py and snac/vq.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul
from typing import ClassVar

import torch
from torch import Tensor

from ..zoo.chance import Chance, select_generators
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.multi_scale_quantizer import MultiScaleQuantizer
from ..zoo.tokens import Tokens
from .audio_tokenizer import AudioTokenizer
from .dac import check_strides, factorized
from .preprocess import AudioPreprocess
from .reach import decoder_context, encoder_context
from .snac_parts import HEAD_FEATURES, SnacDecoder, SnacEncoder
from .snac_stream import SnacStream, draw_token_noise
from .stream import Overlap


@dataclass(frozen=True)
class SnacConfig(Config):
    """One SNAC.

    encoder_channels   width next to the sound; every stride doubles it, up to the width of the latents
    encoder_strides    finest first
    decoder_channels   width next to the latents; every stride halves it
    decoder_strides    coarsest first
    window_size        latents in a window of attention, 0 for no attention
    frames             latents that one id of each level stands for, coarse first
    num_codes          K, size of each codebook
    code_dim           width of a code, where it is searched
    commitment_weight  weight of the commitment loss
    preprocess         rate and channels of the sound
    """

    tokenizer_type: ClassVar[str] = "snac"

    encoder_channels: int = 48
    encoder_strides: tuple[int, ...] = (2, 4, 8, 8)
    decoder_channels: int = 1024
    decoder_strides: tuple[int, ...] = (8, 8, 4, 2)
    window_size: int = 0
    frames: tuple[int, ...] = (4, 2, 1)
    num_codes: int = 4096
    code_dim: int = 8
    commitment_weight: float = 0.25
    preprocess: AudioPreprocess = field(default_factory=AudioPreprocess)

    def __post_init__(self) -> None:
        check_strides(self.encoder_strides, self.decoder_strides)
        check_range("encoder_channels", self.encoder_channels, 1, 4096)
        check_range("decoder_channels", self.decoder_channels, 1 << len(self.decoder_strides), 16384)
        check_range("window_size", self.window_size, 0, 4096)
        check_range("number of levels of frames", len(self.frames), 1, 16)
        for count in self.frames:
            check_range("frames", count, 1, 256)
            if self.frames[0] % count:
                raise ValueError(f"frames {self.frames}: expected each to divide the first")
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("code_dim", self.code_dim, 1, 4096)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        if self.window_size and (self.features % HEAD_FEATURES or self.decoder_channels % HEAD_FEATURES):
            raise ValueError(
                f"attention at widths {self.features} and {self.decoder_channels}: expected multiples of "
                f"{HEAD_FEATURES}"
            )
        if self.preprocess.channels != 1:
            raise ValueError(f"{self.preprocess.channels} channels: expected mono")

    @property
    def features(self) -> int:
        """D, the width of a latent."""
        return self.encoder_channels << len(self.encoder_strides)

    @property
    def hop_samples(self) -> int:
        """Samples of a token, which is one id of the first level with all under it."""
        return self.frames[0] * math.prod(self.encoder_strides)

    @property
    def ids_per_token(self) -> tuple[int, ...]:
        """Of each level, coarse first: 1, 2, 4."""
        return tuple(self.frames[0] // count for count in self.frames)

    @property
    def noise_per_token(self) -> tuple[int, ...]:
        """Numbers that each block of the decoder draws for a token."""
        return tuple(self.frames[0] * product for product in accumulate(self.decoder_strides, mul))

    @property
    def noise_width(self) -> int:
        """Numbers that the decoder draws for a token."""
        return sum(self.noise_per_token)

    def facts(self) -> Facts:
        """All but identity."""
        rate_hz = self.preprocess.sample_rate_hz
        return Facts(
            name="snac",
            modality="audio",
            sample_rate_hz=rate_hz,
            channels=1,
            token_rate_hz=rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,) * sum(self.ids_per_token),
            latent_dim=self.code_dim,
            nested="codebooks",
            keeps=tuple(accumulate(self.ids_per_token)),
            draws_noise=True,
        )


class Snac(AudioTokenizer):
    """Sound as rows of ids: a token is one coarse id, two of the next level, four of the next in order.

    `encode_latents` gives frames, several to a token; `quantize` and `dequantize` go between the two.

    Kept as the official code has it: sounds are filled up to whole tokens, and with attention to whole
    windows; noise enters the decoder. Mended: a round trip gives back as many samples as went in, and
    decoding is repeatable: every item gets the noise of seed 0, unless a generator draws it. Noise is drawn
    token by token, not block by block as there, so that pieces go on where the last one ended;
    `decode_latents(noise=)` takes numbers drawn elsewhere.
    """

    config_type = SnacConfig
    config: SnacConfig

    def __init__(self, config: SnacConfig) -> None:
        super().__init__(config)
        self.encoder = SnacEncoder(config.encoder_channels, config.encoder_strides, config.window_size)
        levels = [
            factorized(config.num_codes, config.code_dim, config.features, config.commitment_weight)
            for _ in config.frames
        ]
        self.quantizer = MultiScaleQuantizer(levels, config.frames)
        self.decoder = SnacDecoder(
            config.features, config.decoder_channels, config.decoder_strides, config.window_size
        )

    @property
    def align_tokens(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tokens until windows of attention and tokens begin together again."""
        frames = self.config.frames[0]
        return math.lcm(frames, self.config.window_size or 1) // frames

    @property
    def overlap(self) -> Overlap:
        """All that convolutions and windows look at."""
        tokens = self.align_tokens
        piece = tokens * self.config.frames[0], tokens * self.config.hop_samples
        return Overlap(
            encode_tokens=tokens * encoder_context(self.encoder, *piece),
            decode_tokens=tokens * decoder_context(self.decoder, *piece),
            is_exact=True,
        )

    def quantize(self, latents: Tokens, generator: Chance = None, *, keep: int | None = None) -> Tokens:
        """Frames to tokens."""
        ids = self.quantizer.encode(latents.values, keep=keep, generator=generator)
        return replace(latents, values=ids, lengths=latents.lengths // self.config.frames[0])

    def dequantize(self, tokens: Tokens) -> Tokens:
        """Tokens to frames."""
        frames = self.quantizer.decode(tokens.values)
        return replace(tokens, values=frames, lengths=tokens.lengths * self.config.frames[0])

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """((K, D), ...), what an id adds to each of its frames; one table for all ids of a level."""
        ids = torch.arange(self.config.num_codes, device=self.device)
        tables = [level.inner.decode(ids) for level in self.quantizer.residual.stages]
        return tuple(
            table
            for table, count in zip(tables, self.config.ids_per_token, strict=True)
            for _ in range(count)
        )

    def decode_latents(self, tokens: Tokens, *, noise: Tensor | None = None) -> Tensor:
        """See `NeuralTokenizer`; frames to sound (B, 1, S).

        noise  (B, N, W) standard normal, for N tokens of W = `noise_width` numbers, those of the decoder's
               first block first; that of seed 0 by default
        """
        counts = tokens.lengths // self.config.frames[0]
        if noise is None:
            noise = self._drawn(tokens, None)
        expected = (len(tokens), tokens.values.shape[1] // self.config.frames[0], self.config.noise_width)
        if noise.shape != expected:
            raise ValueError(f"noise of shape {tuple(noise.shape)}: expected {expected}")
        return super().decode_latents(
            replace(tokens, values=self.rows_of(tokens.values, noise), lengths=counts)
        )

    def decode_drawing(self, tokens: Tokens, generator: Chance) -> Tensor:
        """See `AudioTokenizer`; in train mode torch's own generator is the default, as officially."""
        if generator is None and self.training:
            generator = torch.default_generator
        return self.decode_latents(tokens, noise=self._drawn(tokens, generator))

    def rows_of(self, frames: Tensor, noise: Tensor) -> Tensor:
        """Frames (B, N * frames, D) and noise (B, N, W) as one row for each token, (B, N, frames * D + W)."""
        tokens = frames.unflatten(1, (-1, self.config.frames[0])).flatten(2)
        return torch.cat([tokens, noise.to(tokens)], dim=-1)

    def sound_of(self, latents: Tensor) -> Tensor:
        """Sound (B, 1, N * hop) of what `rows_of` gives."""
        if latents.shape[1] % self.align_tokens:
            raise ValueError(
                f"{latents.shape[1]} tokens: {self.facts.name} decodes whole windows of attention; expected "
                f"a multiple of {self.align_tokens}"
            )
        frames, width = self.config.frames[0], self.config.features
        values, noise = latents.tensor_split([frames * width], dim=-1)
        parts = [part.flatten(1)[:, None] for part in noise.split(self.config.noise_per_token, dim=-1)]
        return self.decoder(values.unflatten(2, (frames, width)).flatten(1, 2).transpose(1, 2), parts)

    def stream(
        self, *, keep: int | None = None, block_seconds: float = 1.0, generator: Chance = None
    ) -> SnacStream:
        """See `AudioTokenizer.stream`.

        generator  for the noise: one for each sound; that of seed 0 by default
        """
        return SnacStream(self, keep=keep, block_seconds=block_seconds, generator=generator)

    def _drawn(self, tokens: Tokens, generator: Chance) -> Tensor:
        """Noise (B, N, W) for frames, item after item."""
        counts = (tokens.lengths // self.config.frames[0]).tolist()
        rows = [
            draw_token_noise(self.config.noise_width, count, select_generators(generator, [index]))
            for index, count in enumerate(counts)
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
