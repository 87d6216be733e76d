"""Tiny tokenizers of sound and of text, of no paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenzoo.text.bytes import AsText
from tokenzoo.zoo.chance import Chance
from tokenzoo.zoo.config import Config
from tokenzoo.zoo.config import check_range as check_number
from tokenzoo.zoo.facts import Facts
from tokenzoo.zoo.neural import NeuralTokenizer, Reconstruction
from tokenzoo.zoo.tokens import Tokens
from tokenzoo.zoo.unquantized import Unquantized

from .toys_image import ToyResidual


@dataclass(frozen=True)
class AsWaveform:
    """Preprocessing of sound: (waveform, rate_hz) with a waveform (S,) or (C, S) of floats."""

    rate_hz: int

    def __call__(self, item: tuple[Any, int]) -> Tensor:
        waveform, rate_hz = item
        if rate_hz != self.rate_hz:
            raise ValueError(f"waveform at {rate_hz} Hz: expected {self.rate_hz}; resample it first")
        tensor = torch.as_tensor(np.array(waveform), dtype=torch.float32)
        return tensor.reshape(-1, tensor.shape[-1]).mean(0, keepdim=True)


@dataclass(frozen=True)
class ToySoundConfig(Config):
    """A codec with residual codebooks; `decoder=False` makes units without a way back."""

    tokenizer_type: ClassVar[str] = "toy-sound"

    sample_rate_hz: int = 16000
    hop_samples: int = 4
    dim: int = 5
    codebook_sizes: tuple[int, ...] = (6, 8, 3)
    decoder: bool = True

    def __post_init__(self) -> None:
        check_number("hop_samples", self.hop_samples, 1, 4096)

    def facts(self) -> Facts:
        return Facts(
            name="toy-sound",
            modality="audio",
            sample_rate_hz=self.sample_rate_hz,
            channels=1,
            token_rate_hz=self.sample_rate_hz / self.hop_samples,
            codebook_sizes=self.codebook_sizes,
            latent_dim=self.dim,
            roles=("semantic",) + ("acoustic",) * (len(self.codebook_sizes) - 1),
            nested="codebooks",
            has_decoder=self.decoder,
        )


class ToySound(NeuralTokenizer):
    """Sound of any length: the last hop is padded, and decode gives back exactly the samples there were.

    The decoder looks three tokens wide, so padding that leaks changes what it paints.
    """

    config_type = ToySoundConfig
    config: ToySoundConfig

    def __init__(self, config: ToySoundConfig) -> None:
        super().__init__(config)
        hop, dim = config.hop_samples, config.dim
        self.encoder = nn.Sequential(nn.Conv1d(1, dim, hop, stride=hop), nn.BatchNorm1d(dim), nn.Dropout(0.5))
        self.quantizer = ToyResidual(config.codebook_sizes, dim)
        self.mix = nn.Conv1d(dim, dim, 3, padding=1)
        self.decoder = nn.ConvTranspose1d(dim, 1, hop, stride=hop)

    @property
    def preprocess(self) -> AsWaveform:
        return AsWaveform(self.config.sample_rate_hz)

    def check_signal(self, signal: Tensor) -> None:
        if signal.ndim != 3 or signal.shape[1] != 1 or not signal.shape[2]:
            raise ValueError(
                f"sound has shape {tuple(signal.shape)}: {self.facts.name} takes (B, 1, S), S > 0"
            )
        if not signal.is_floating_point():
            raise TypeError(f"sound is {signal.dtype}: expected floats in [-1, 1]; divide int16 by 32768")
        if not bool((signal.abs() <= 1).all()):
            raise ValueError(f"sound holds {signal.abs().max():g}: expected finite floats in [-1, 1]")

    def num_tokens(self, extent: Sequence[int]) -> int:
        (samples,) = extent
        return -(-int(samples) // self.config.hop_samples)

    def default_extents(self, lengths: Tensor) -> Tensor:
        return lengths[:, None] * self.config.hop_samples

    def finish_signal(self, signal: Tensor, tokens: Tokens) -> Tensor:
        return signal.float().clamp(-1, 1)

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        batch, _, samples = signal.shape
        latents = self.encoder(F.pad(signal, (0, -samples % self.config.hop_samples)))
        lengths = torch.full((batch,), latents.shape[2], device=signal.device)
        extents = torch.full((batch, 1), samples, device=signal.device)
        return Tokens(latents.transpose(1, 2), lengths, extents, self.facts)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        frames = tokens.values.transpose(1, 2) * tokens.mask[:, None]
        sound = self.decoder(self.mix(frames) * tokens.mask[:, None])[..., : int(tokens.extents.max())]
        return sound * (torch.arange(sound.shape[-1], device=sound.device) < tokens.extents)[:, None]

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        return tuple(level.codebook for level in self.quantizer.levels)  # pyright: ignore

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        latents = self.encode_latents(signal)
        quantized = self.quantizer(latents.values)
        rebuilt = Tokens(quantized.latents, latents.lengths, latents.extents, self.facts)
        return Reconstruction(self.decode_latents(rebuilt), quantized)


@dataclass(frozen=True)
class ToyWordsConfig(Config):
    """One float token a word, kept in the slot where the word starts."""

    tokenizer_type: ClassVar[str] = "toy-words"

    dim: int = 6

    def __post_init__(self) -> None:
        check_number("dim", self.dim, 1, 64)

    def facts(self) -> Facts:
        return Facts(name="toy-words", modality="text", latent_dim=self.dim, is_adaptive=True)


class ToyWords(NeuralTokenizer):
    """Learned text: a token is the mean of a word's byte vectors, its position the word's first byte.

    How many tokens a text has depends on what it says; inside the model a text is (S,) int64.
    """

    config_type = ToyWordsConfig
    config: ToyWordsConfig

    def __init__(self, config: ToyWordsConfig) -> None:
        super().__init__(config)
        self.encoder = nn.Embedding(256, config.dim)
        self.quantizer = Unquantized(config.dim)
        self.decoder = nn.Linear(config.dim, 256)

    @property
    def preprocess(self) -> AsText:
        return AsText()

    def item_tensor(self, item: str | bytes) -> Tensor:
        text = self.preprocess(item)
        return torch.tensor(list(text.encode() if isinstance(text, str) else text), dtype=torch.int64)

    def check_signal(self, signal: Tensor) -> None:
        if signal.ndim != 2 or signal.dtype != torch.int64:
            raise ValueError(f"text is {signal.dtype} {tuple(signal.shape)}: expected bytes as int64 (B, S)")
        if signal.numel() and not 0 <= int(signal.min()) <= int(signal.max()) <= 255:
            raise ValueError(f"text holds {int(signal.max())}: expected bytes from 0 to 255")

    def num_tokens(self, extent: Sequence[int]) -> int:
        (size,) = extent
        return int(size)

    def default_extents(self, lengths: Tensor) -> Tensor:
        return lengths[:, None]

    def finish_signal(self, signal: Tensor, tokens: Tokens) -> list[bytes]:
        rows, sizes = signal.argmax(-1).tolist(), tokens.extents[:, 0].tolist()
        return [bytes(row[:size]) for row, size in zip(rows, sizes, strict=True)]

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        batch, size = signal.shape
        vectors = self.encoder(signal)
        after_space = F.pad(signal == ord(" "), (1, 0), value=True)[:, :size]
        words = after_space.cumsum(1) - 1
        lengths = after_space.sum(1)
        width = int(lengths.max()) if signal.numel() else 0
        share = F.one_hot(words, max(width, 1)).to(vectors.dtype).transpose(1, 2)[:, :width]
        values = share @ vectors / share.sum(-1, keepdim=True).clamp(min=1)
        starts = F.pad(share, (0, 1)).argmax(-1) * (
            torch.arange(width, device=signal.device) < lengths[:, None]
        )
        sizes = torch.full((batch, 1), size, device=signal.device)
        return Tokens(values, lengths, sizes, self.facts, positions=starts)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """Logits (B, S, 256) over the bytes."""
        assert tokens.positions is not None
        size = int(tokens.extents.max()) if len(tokens) else 0
        started = (
            tokens.positions[:, None] <= torch.arange(size, device=tokens.device)[:, None]
        ) & tokens.mask[:, None]
        word = started.sum(-1).clamp(min=1) - 1
        padded = F.pad(tokens.values, (0, 0, 0, 1))
        return self.decoder(padded.gather(1, word[..., None].expand(-1, -1, padded.shape[-1])))

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        return ()

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        latents = self.encode_latents(signal)
        return Reconstruction(self.decode_latents(latents), self.quantizer(latents.values))
