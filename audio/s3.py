"""The S3 tokenizers of CosyVoice: one semantic token every 20 or 40 ms, supervised by speech recognition.

v1 (arXiv 2407.05407) quantizes the directions of 1280 features to the nearest of 4096 codes; v2 (arXiv
2412.10117) and v3 round 8 features to 3 levels each. They only encode: CosyVoice's flow model is the decoder.

Source: xingchensong/S3Tokenizer 0.3.0, which computes what the released ONNX graphs do, up to near-ties (its
own tests allow 0.5 % of the ids to differ). No released file was at hand: names, shapes and numbers are held
to that package. v3 is unverified beyond its names and shapes: the package has it as v2 with 12 blocks, and
loads it without asking that every weight be found; its authors measured 0.15 % of the ids to differ from the
graph's (its pull request 47), and a user found other tokens than CosyVoice's own (its issue 49).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.precision import working_dtype
from ..zoo.chance import Chance
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.fsq import FiniteScalarQuantizer
from ..zoo.quantizer import Quantizer
from ..zoo.tokenizer import NoDecoder
from ..zoo.tokens import Tokens
from ..zoo.transformer import TransformerSize
from ..zoo.vector_quantizer import VectorQuantizer
from .audio_tokenizer import AudioTokenizer
from .log_mel import LogMel
from .preprocess import AudioPreprocess
from .s3_stream import S3Stream
from .s3_windows import Window, batches, joined
from .stream import Overlap
from .whisper_encoder import WhisperEncoder, WhisperSize


@dataclass(frozen=True, kw_only=True)
class S3Config(Config):
    """One S3 tokenizer.

    log_mel         the spectrogram it listens to
    blocks          width, layers and heads of the encoder
    first_stride    of the first convolution: 1 gives 50 tokens a second, 2 gives 25
    positions       rows of the table of positions; 0: rotary positions
    memory_kernel   tokens that the memory beside each attention spans; 0: none
    norm_eps        of the norm before each attention
    num_codes       size of the codebook; 0 with `levels`
    levels          of each feature that is rounded; () with a codebook
    window_frames   longest piece of a spectrogram that is encoded whole (30 s)
    overlap_frames  that two windows of a longer one share (4 s); half of it is cut from each
    preprocess      the official code takes the first channel, not their mean
    """

    tokenizer_type: ClassVar[str] = "s3tokenizer"

    log_mel: LogMel = field(default_factory=LogMel)
    blocks: TransformerSize = field(default_factory=lambda: TransformerSize(width=1280, layers=6, heads=20))
    first_stride: int = 2
    positions: int = 0
    memory_kernel: int = 31
    norm_eps: float = 1e-5
    num_codes: int = 0
    levels: tuple[int, ...] = (3,) * 8
    window_frames: int = 3000
    overlap_frames: int = 400
    preprocess: AudioPreprocess = field(
        default_factory=lambda: AudioPreprocess(sample_rate_hz=16_000, mix="first")
    )

    def __post_init__(self) -> None:
        check_range("first_stride", self.first_stride, 1, 2)
        check_range("positions", self.positions, 0, 1 << 20)
        check_range("memory_kernel", self.memory_kernel, 0, 1023)
        check_range("norm_eps", self.norm_eps, 0, 1)
        check_range("num_codes", self.num_codes, 0, 1 << 24)
        check_range("window_frames", self.window_frames, 1, 1 << 20)
        check_range("overlap_frames", self.overlap_frames, 0, self.window_frames - 1)
        for level in self.levels:
            check_range("levels", level, 2, 65536)
        if self.levels:
            check_range("codebook size", math.prod(self.levels), 2, 1 << 24)
        if self.log_mel.sample_rate_hz != self.preprocess.sample_rate_hz:
            raise ValueError(
                f"log_mel.sample_rate_hz={self.log_mel.sample_rate_hz} with preprocess.sample_rate_hz="
                f"{self.preprocess.sample_rate_hz}: expected the same"
            )
        if bool(self.num_codes) == bool(self.levels):
            raise ValueError(
                f"num_codes={self.num_codes} with levels={list(self.levels)}: expected one of them"
            )
        if self.memory_kernel and self.memory_kernel % 2 == 0:
            raise ValueError(f"memory_kernel={self.memory_kernel}: expected an odd number, or 0")
        if not self.positions and self.blocks.width // self.blocks.heads % 2:
            raise ValueError(
                f"heads of {self.blocks.width // self.blocks.heads} features: rotary positions turn pairs"
            )
        for name, frames in (("window_frames", self.window_frames), ("overlap_frames", self.overlap_frames)):
            if frames % (2 * self.stride):
                raise ValueError(f"{name}={frames}: expected a multiple of {2 * self.stride}")
        if self.positions and self.encoder.count(self.window_frames) > self.positions:
            raise ValueError(
                f"window_frames={self.window_frames} with positions={self.positions}: a window makes "
                f"{self.encoder.count(self.window_frames)} tokens, expected no more than positions"
            )

    @property
    def stride(self) -> int:
        """Frames of the spectrogram a token."""
        return 2 * self.first_stride

    @property
    def hop_samples(self) -> int:
        """Samples a token."""
        return self.stride * self.log_mel.hop

    @property
    def encoder(self) -> WhisperSize:
        """Sizes of the encoder."""
        return WhisperSize(
            mels=self.log_mel.mels,
            blocks=self.blocks,
            first_stride=self.first_stride,
            positions=self.positions,
            memory_kernel=self.memory_kernel,
            norm_eps=self.norm_eps,
        )

    def frames(self, samples: int) -> int:
        """Frames of the spectrogram of so many samples, filled up where they are too few for one."""
        return self.log_mel.frames(max(samples, self.log_mel.min_samples))

    def windows(self, frames: int) -> list[tuple[int, int]]:
        """First and last frame (exclusive) of the pieces that a long spectrogram is encoded in."""
        step = self.window_frames - self.overlap_frames
        count = 1 + max(0, -(-(frames - self.window_frames) // step))
        return [(step * place, min(step * place + self.window_frames, frames)) for place in range(count)]

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="s3tokenizer",
            modality="audio",
            sample_rate_hz=self.preprocess.sample_rate_hz,
            channels=1,
            token_rate_hz=self.preprocess.sample_rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes or math.prod(self.levels),),
            latent_dim=len(self.levels) or self.blocks.width,
            roles=("semantic",),
            has_decoder=False,
        )


class S3Encoder(nn.Module):
    """Log-mel spectrograms to what is quantized: features to round, or directions of length 1.

    mel, frames  as `WhisperEncoder` takes them
    returns      (B, N, len(levels) or width) float
    """

    def __init__(self, config: S3Config) -> None:
        super().__init__()
        self.trunk = WhisperEncoder(config.encoder)
        self.project = nn.Linear(config.blocks.width, len(config.levels)) if config.levels else None

    def forward(self, mel: Tensor, frames: Tensor | None = None) -> Tensor:
        hidden = self.trunk(mel, frames)
        if self.project is not None:
            return self.project(hidden)
        # The codes stay as they are: their lengths, near 1, count in the official search.
        return F.normalize(hidden.to(working_dtype(hidden)), dim=-1)


class S3Tokenizer(AudioTokenizer):
    """Speech as a row of semantic ids, without a way back.

    A token stands for `hop_samples`; the last frame of the spectrogram, where it is not full, is dropped as
    Whisper drops it, so num_tokens is ceil(samples // 160 / stride). A sound too short to have a frame (the
    official code fails below 201 samples) is filled up with silence.

    A sound over 30 s is encoded in windows of 30 s that overlap by 4 s, as the official code does it: two
    seconds of each seam come from the window before, two from the window after. The spectrogram is scaled by
    the loudest place of the whole sound. Where the window before reaches the end there is no other after it:
    the official 0.3.0 opens one nevertheless, and loses up to two seconds of tokens (its issue 53).

    `padded=True` is exact here: the encoder is told where each item ends. `chunk_seconds` changes nothing,
    since windows bound the memory of any length. `stream` works window by window, see `S3Stream`.
    """

    config_type = S3Config
    config: S3Config

    def __init__(self, config: S3Config) -> None:
        super().__init__(config)
        self.encoder = S3Encoder(config)
        self.quantizer = _quantizer(config)

    @property
    def overlap(self) -> Overlap:
        """Two seconds, as the official windows have it; attention looks at all of a window."""
        return Overlap(
            encode_tokens=self.config.overlap_frames // 2 // self.config.stride,
            decode_tokens=0,
            is_exact=False,
        )

    def num_tokens(self, extent: Sequence[int]) -> int:
        """One for every `stride` frames of the spectrogram, the last of them filled up."""
        (samples,) = extent
        return self.config.encoder.count(self.config.frames(int(samples)))

    def log_mel(self, signal: Tensor) -> Tensor:
        """What the encoder listens to: (B, 1, S) -> (B, M, T) float32 or wider."""
        mel = self.config.log_mel
        return mel(F.pad(signal[:, 0], (0, max(0, mel.min_samples - signal.shape[-1]))))

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D)."""
        samples = signal.shape[-1]
        if not len(signal):
            nothing = signal.new_zeros(0, self.num_tokens((samples,)), self.quantizer.dim_in)
            return self.tokens_of(nothing, samples)
        latents = self._latents_of(list(self.log_mel(signal)), mixed=False)
        return self.tokens_of(torch.stack(latents), samples)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """There is no sound: what the codes stand for, (B, N, D)."""
        return tokens.values

    def decode(
        self, tokens: Tokens, *, generator: Chance = None, chunk_seconds: float | None = None
    ) -> Tensor:
        """Raises NoDecoder."""
        raise NoDecoder(
            f"{self.facts.name} only encodes: it has no decoder; CosyVoice's flow model makes sound of its "
            "tokens, in the voice of a prompt"
        )

    def stream(self, *, keep: int | None = None, block_seconds: float = 1.0) -> S3Stream:
        """An object that encodes sound in pieces of any size, window by window whatever `block_seconds`."""
        return S3Stream(self, keep=keep)

    def _encode_chunks(self, item: Tensor, keep: int | None, chunk_seconds: float) -> Tokens:
        """As a whole, which is in windows."""
        self._chunk_samples(chunk_seconds)
        return self.encode(item[None], keep=keep)

    def _encode_padded(self, items: list[Tensor], keep: int | None, generator: Chance) -> Tokens:
        """All items at once, told where each ends."""
        if keep is not None:
            self.facts.check_keep(keep)
        with torch.no_grad(), self._evaluating():
            placed = [item.to(self.device, self.dtype) for item in items]
            rows = self._latents_of([self.log_mel(item[None])[0] for item in placed], mixed=True)
            latents = self.tokens_of(nn.utils.rnn.pad_sequence(rows, batch_first=True), 0)
            tokens = self.quantize(latents, generator)
        lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
        extents = torch.tensor([[item.shape[-1]] for item in items], device=tokens.device)
        return replace(tokens, lengths=lengths, extents=extents)._zero_padding()

    def _latents_of(self, mels: list[Tensor], *, mixed: bool) -> list[Tensor]:
        """Latents (N, D) of spectrograms (M, T), whose windows go through the encoder in batches.

        mixed  windows of several lengths may share a batch
        """
        windows = [
            Window(item, start, end)
            for item, mel in enumerate(mels)
            for start, end in self.config.windows(mel.shape[1])
        ]
        parts: dict[Window, Tensor] = {}
        for batch in batches(windows, mixed):
            pieces = [mels[window.item][:, window.start : window.end].T for window in batch]
            stack = nn.utils.rnn.pad_sequence(pieces, batch_first=True).transpose(1, 2).to(self.dtype)
            frames = torch.tensor([window.frames for window in batch], device=self.device)
            alike = batch[0].frames == batch[-1].frames
            for window, latents in zip(batch, self.encoder(stack, None if alike else frames), strict=True):
                parts[window] = latents[: self.config.encoder.count(window.frames)]
        rows: list[list[Tensor]] = [[] for _ in mels]
        for window in windows:
            rows[window.item].append(parts[window])
        return [joined(row, cut=self.overlap.encode_tokens) for row in rows]


def _quantizer(config: S3Config) -> Quantizer:
    if config.levels:
        return FiniteScalarQuantizer(config.levels, epsilon=-1e-3)
    return VectorQuantizer(config.num_codes, config.blocks.width)
