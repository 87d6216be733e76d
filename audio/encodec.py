"""EnCodec (Defossez et al. 2022, arXiv 2210.13438): sound as residual codebooks, at 24 and 48 kHz.

Source: facebookresearch/encodec, model.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..kernels.precision import working_dtype
from ..zoo.codebook_care import KMeansStart, Revival
from ..zoo.config import Config, check_range
from ..zoo.ema_quantizer import EMAVectorQuantizer
from ..zoo.facts import Facts
from ..zoo.residual_quantizer import ResidualQuantizer
from ..zoo.tokens import Tokens
from .audio_tokenizer import CausalAudioTokenizer
from .preprocess import AudioPreprocess
from .seanet import SeanetConfig, SeanetDecoder, SeanetEncoder
from .segments import OverlapAdd, Segments, SegmentStream, runs
from .stream import AudioStream, Overlap, OverlapStream
from .stream_state import StreamState

# Added to the loudness of a segment, which may be silent; official, so kept.
LOUDNESS_FLOOR = 1e-8
# Segments of a sound that go through the networks together: on a CPU more are slower.
SEGMENTS_AT_ONCE = {"cpu": 2}
SEGMENTS_AT_ONCE_ELSEWHERE = 16


@dataclass(frozen=True)
class EncodecConfig(Config):
    """One EnCodec.

    num_codebooks      Q, of which the first few decode too
    num_codes          K, size of each codebook
    latent_dim         D, width of a code
    seanet             sizes of the networks
    segment_seconds    sounds are cut into segments of this length, each by itself; None: they are not
    segment_overlap    share of a segment that the next one covers again
    normalise          each segment is divided by its loudness, which goes with the tokens
    commitment_weight  weight of the commitment loss, the mean over the codebooks
    preprocess         rate and channels
    """

    tokenizer_type: ClassVar[str] = "encodec"

    num_codebooks: int = 32
    num_codes: int = 1024
    latent_dim: int = 128
    seanet: SeanetConfig = field(default_factory=lambda: SeanetConfig(causal=True))
    segment_seconds: float | None = None
    segment_overlap: float = 0.01
    normalise: bool = False
    commitment_weight: float = 1.0
    preprocess: AudioPreprocess = field(default_factory=AudioPreprocess)

    def __post_init__(self) -> None:
        check_range("num_codebooks", self.num_codebooks, 1, 1024)
        check_range("num_codes", self.num_codes, 1, 1 << 20)
        check_range("latent_dim", self.latent_dim, 1, 8192)
        check_range("segment_overlap", self.segment_overlap, 0, 0.9)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        if self.seanet.channels != self.preprocess.channels:
            raise ValueError(
                f"seanet takes {self.seanet.channels} channels, preprocess gives {self.preprocess.channels}: "
                "expected as many"
            )
        if self.segment_seconds is not None:
            shortest = 1 / self.preprocess.sample_rate_hz
            check_range("segment_seconds", self.segment_seconds, shortest, 3600)
            if self.seanet.causal:
                raise ValueError("segments of a causal network: expected segment_seconds or causal, not both")
        elif self.normalise:
            raise ValueError("normalise without segment_seconds: loudness is measured by segments; give both")

    @property
    def hop_samples(self) -> int:
        return self.seanet.hop_samples

    @property
    def segments(self) -> Segments | None:
        """How a sound is cut, rounded as the official code does; None when it is not."""
        if self.segment_seconds is None:
            return None
        samples = int(self.segment_seconds * self.preprocess.sample_rate_hz)
        return Segments(samples, max(1, int((1 - self.segment_overlap) * samples)), self.hop_samples)

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="encodec",
            modality="audio",
            sample_rate_hz=self.preprocess.sample_rate_hz,
            channels=self.seanet.channels,
            token_rate_hz=self.preprocess.sample_rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,) * self.num_codebooks,
            latent_dim=self.latent_dim,
            nested="codebooks",
            is_causal=self.seanet.causal,
        )


class Encodec(CausalAudioTokenizer):
    """24 kHz: causal, so that a stream gives the tokens of the whole. 48 kHz: stereo, in segments of a second
    that overlap by a hundredth, each divided by its loudness: `Tokens.scales` (B, segments) holds it. Without
    scales, ids decode at loudness 1.

    What differs from the official code:
    - `decode` gives as many samples as went in, the official one whole hops.
    - At 48 kHz the official `decode` fails where the last segment decodes to an end before that of the one
      ahead of it (sounds that end 161 to 320 samples after the start of a segment); here it does not.
    - In training the residual is detached: each codebook is pulled by its own loss alone, as in audiocraft.
    """

    config_type = EncodecConfig
    config: EncodecConfig

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__(config)
        self.encoder = SeanetEncoder(config.seanet, config.latent_dim)
        self.quantizer = ResidualQuantizer(
            [
                EMAVectorQuantizer(
                    config.num_codes,
                    config.latent_dim,
                    commitment_weight=config.commitment_weight / config.num_codebooks,
                    start=KMeansStart(rounds=50),
                    revival=Revival(),
                )
                for _ in range(config.num_codebooks)
            ]
        )
        self.decoder = SeanetDecoder(config.seanet, config.latent_dim)

    @property
    def overlap(self) -> Overlap:
        """Where the network is neither causal nor given segments, its LSTM remembers everything: measured."""
        if self.config.seanet.causal or self.config.segments is not None:
            return super().overlap
        return Overlap(encode_tokens=32, decode_tokens=32, is_exact=False)

    def num_tokens(self, extent: Sequence[int]) -> int:
        """One for every hop, the last one filled up; of each segment, where there are segments."""
        segments = self.config.segments
        return super().num_tokens(extent) if segments is None else segments.num_tokens(int(extent[0]))

    def default_extents(self, lengths: Tensor) -> Tensor:
        """(B, 1): the longest sounds that have so many tokens."""
        segments = self.config.segments
        if segments is None:
            return super().default_extents(lengths)
        longest = [[segments.longest(length)] for length in lengths.tolist()]
        return torch.tensor(longest, dtype=torch.int64, device=lengths.device).reshape(-1, 1)

    def pad_signal(self, signal: Tensor) -> Tensor:
        """As it is: every convolution pads by itself."""
        return signal

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D), segment after segment, with their scales (B, segments)."""
        segments = self.config.segments
        if segments is None:
            return super().encode_latents(signal)
        latents, scales = self.segment_latents(signal, segments.spans(signal.shape[-1]))
        return replace(self.tokens_of(latents, signal.shape[-1]), scales=scales)

    def segment_latents(self, signal: Tensor, spans: Sequence[slice]) -> tuple[Tensor, Tensor | None]:
        """Latents (B, N, D) of segments of a sound (B, C, S), and their scales (B, segments) if measured."""
        batch, latents, scales = len(signal), [], []
        for run in runs([span.stop - span.start for span in spans], self._at_once):
            stack = torch.cat([signal[..., span] for span in spans[run]])
            count = len(spans[run])
            if self.config.normalise:
                loudness = _loudness(stack)
                stack = (stack / loudness).to(stack.dtype)
                scales.append(loudness.view(count, batch).T)
            found = self.encoder(stack)
            latents.append(found.unflatten(0, (count, batch)).permute(1, 0, 3, 2).flatten(1, 2))
        return torch.cat(latents, dim=1), torch.cat(scales, dim=1) if scales else None

    def segment_sounds(
        self, latents: Tensor, lengths: Sequence[int], scales: Tensor | None
    ) -> Iterator[Tensor]:
        """Segment after segment (B, C, length * hop), not yet faded into each other.

        latents  (B, N, D), N at least the sum of the lengths
        lengths  tokens of each segment
        scales   (B, segments), None for 1
        """
        if scales is not None and scales.shape[1] < len(lengths):
            raise ValueError(
                f"{scales.shape[1]} scales for {len(lengths)} segments: expected one each; the loudness of "
                "each segment goes with its tokens"
            )
        start = 0
        for run in runs(lengths, self._at_once):
            count, length = len(lengths[run]), lengths[run][0]
            some = latents[:, start : start + count * length].unflatten(1, (count, length))
            start += count * length
            sounds = self.decoder(some.transpose(0, 1).flatten(0, 1).transpose(1, 2))
            if scales is not None:
                sounds = sounds * scales[:, run].T.reshape(-1, 1, 1)
            yield from sounds.unflatten(0, (count, len(latents)))

    @property
    def _at_once(self) -> int:
        return SEGMENTS_AT_ONCE.get(self.device.type, SEGMENTS_AT_ONCE_ELSEWHERE)

    def sound_of_group(self, tokens: Tokens) -> Tensor:
        """See `AudioTokenizer`; the segments faded into each other."""
        segments = self.config.segments
        if segments is None:
            return super().sound_of_group(tokens)
        adder, lengths = OverlapAdd(segments.stride), segments.lengths(tokens.values.shape[1])
        parts = [adder.add(each) for each in self.segment_sounds(tokens.values, lengths, tokens.scales)]
        return torch.cat([part for part in (*parts, adder.rest()) if part is not None], dim=-1)

    def pieces_of(self, tokens: Tokens, samples: int) -> Iterator[Tokens]:
        """See `AudioTokenizer`; whole segments with their scales."""
        segments = self.config.segments
        if segments is None:
            yield from super().pieces_of(tokens, samples)
            return
        lengths = segments.lengths(int(tokens.lengths[0]))
        most, start, left = max(1, samples // segments.stride), 0, tokens.extents
        for first in range(0, len(lengths), most):
            some = lengths[first : first + most]
            is_last = first + len(some) == len(lengths)
            here = left if is_last else torch.full_like(left, len(some) * segments.stride)
            yield replace(
                tokens,
                values=tokens.values[:, start : start + sum(some)],
                lengths=torch.full_like(tokens.lengths, sum(some)),
                extents=here,
                scales=None if tokens.scales is None else tokens.scales[:, first : first + len(some)],
            )
            start, left = start + sum(some), left - here

    def stream(self, *, keep: int | None = None, block_seconds: float = 1.0) -> AudioStream:
        """See `AudioTokenizer`. Causal: as soon as a hop is full. In segments: as soon as a segment is."""
        segments = self.config.segments
        if segments is not None:
            return SegmentStream(self, segments, keep=keep)
        if self.config.seanet.causal:
            return super().stream(keep=keep)
        return OverlapStream(self, keep=keep, block_seconds=block_seconds)

    def encode_step(self, signal: Tensor, state: StreamState, *, last: bool = False) -> Tensor:
        """See `CausalAudioTokenizer`. The first latents come late: the padding reflects samples ahead."""
        return self.encoder.step(signal, state, last).transpose(1, 2)

    def decode_step(self, latents: Tensor, state: StreamState, *, last: bool = False) -> Tensor:
        """See `CausalAudioTokenizer`."""
        return self.decoder.step(latents.transpose(1, 2), state, last)


def _loudness(sound: Tensor) -> Tensor:
    """(B, 1, 1): root mean square of the mean of the channels, above 0."""
    mono = sound.to(working_dtype(sound)).mean(dim=1, keepdim=True)
    return mono.square().mean(dim=2, keepdim=True).sqrt() + LOUDNESS_FLOOR
