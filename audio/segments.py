"""Sound in overlapping segments, coded one by one and faded into each other (EnCodec 48 kHz)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.tokens import Tokens
from .stream import AudioStream

if TYPE_CHECKING:
    from .encodec import Encodec


@dataclass(frozen=True)
class Segments:
    """A segment of `samples` begins every `stride` samples while there is sound; each fills its last hop.

    samples  of a whole segment; at the end of a sound they are shorter
    stride   from the start of one to the start of the next
    hop      samples per token
    """

    samples: int
    stride: int
    hop: int

    @property
    def tokens(self) -> int:
        """Of a whole segment."""
        return -(-self.samples // self.hop)

    def spans(self, samples: int) -> list[slice]:
        """Where each segment of a sound of so many samples lies."""
        return [slice(start, min(start + self.samples, samples)) for start in range(0, samples, self.stride)]

    def whole(self, samples: int) -> int:
        """How many segments of the sound are whole: those that more samples would not change."""
        return max(0, (samples - self.samples) // self.stride + 1)

    def num_tokens(self, samples: int) -> int:
        whole = self.whole(samples)
        rest = self.spans(samples - whole * self.stride)
        return whole * self.tokens + sum(-(-(span.stop - span.start) // self.hop) for span in rest)

    def longest(self, tokens: int) -> int:
        """Most samples that take at most so many tokens."""
        return bisect_right(range(tokens * self.hop + 1), tokens, key=self.num_tokens) - 1

    def lengths(self, tokens: int) -> list[int]:
        """Tokens of each segment in a row of so many: each grows with the sound, so their sum tells them."""
        spans = self.spans(self.longest(tokens))
        return [-(-(span.stop - span.start) // self.hop) for span in spans]

    def certain(self, tokens: int) -> int:
        """How many segments at the head of so many tokens are whole, whatever comes after them."""
        return max(0, (tokens - self.num_tokens(self.samples)) // self.tokens + 1)


def runs(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Neighbours of one size, at most so many at once."""
    start = 0
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes) and stop - start < most and sizes[stop] == sizes[start]:
            stop += 1
        yield slice(start, stop)
        start = stop


class OverlapAdd:
    """Segments (B, C, S) one after the other, a new one every `stride` samples, faded by triangles.

    Source: facebookresearch/encodec, utils.py, `_linear_overlap_add`, which however refuses a last segment
    that ends before the one ahead of it does.
    """

    def __init__(self, stride: int) -> None:
        self._stride = stride
        self._fade: Tensor | None = None
        self._sound: Tensor | None = None  # weighted, still to be added to
        self._weight: Tensor | None = None

    def add(self, segment: Tensor) -> Tensor:
        """The sound that later segments leave alone: up to `stride` samples. Only the last may be shorter."""
        if self._fade is None:
            # The length of the first segment shapes the fade of all.
            places = torch.linspace(0, 1, segment.shape[-1] + 2, device=segment.device, dtype=segment.dtype)
            self._fade = 0.5 - (places[1:-1] - 0.5).abs()
        weight = self._fade[: segment.shape[-1]]
        sound = segment * weight
        if self._sound is not None and self._weight is not None:
            sound, weight = _sum(self._sound, sound), _sum(self._weight, weight)
        self._sound, self._weight = sound[..., self._stride :], weight[self._stride :]
        return sound[..., : self._stride] / weight[: self._stride]

    def rest(self) -> Tensor | None:
        """What is left after the last segment; None without any."""
        return None if self._sound is None or self._weight is None else self._sound / self._weight


def _sum(left: Tensor, right: Tensor) -> Tensor:
    """Of two tensors that begin together; the shorter one has zeros after it."""
    longest = max(left.shape[-1], right.shape[-1])
    return F.pad(left, (0, longest - left.shape[-1])) + F.pad(right, (0, longest - right.shape[-1]))


class SegmentStream(AudioStream):
    """Segment by segment: the ids and the sound of the whole, late by a segment.

    A piece of tokens carries the loudness of its own segments. What is not the whole has no length that an
    extent explains, so a piece decodes here, or after `join`, and not by itself.
    """

    tokenizer: Encodec

    def __init__(self, tokenizer: Encodec, segments: Segments, *, keep: int | None = None) -> None:
        self._segments = segments
        super().__init__(tokenizer, keep=keep)

    def _restart(self) -> None:
        super()._restart()
        self._loudness: Tensor | None = None  # of the segments just encoded
        self._ids: Tensor | None = None
        self._scales: Tensor | None = None  # of the segments not decoded yet
        self._adder = OverlapAdd(self._segments.stride)

    def decode(self, tokens: Tokens) -> Tensor:
        """See `AudioStream`."""
        self.tokenizer.check_tokens(tokens)
        if tokens.scales is not None:
            scales = tokens.scales.to(self.tokenizer.device)
            self._scales = scales if self._scales is None else torch.cat([self._scales, scales], dim=1)
        return super().decode(tokens)

    def _encode_ready(self) -> Tensor | None:
        if self._samples is None or not (whole := self._segments.whole(self._samples.shape[-1])):
            return None
        ids = self._encode_spans(self._samples, self._segments.spans(self._samples.shape[-1])[:whole])
        self._samples = self._samples[..., whole * self._segments.stride :].clone()
        return ids

    def _encode_rest(self) -> Tensor | None:
        if self._samples is None or not self._samples.shape[-1]:
            return None
        return self._encode_spans(self._samples, self._segments.spans(self._samples.shape[-1]))

    def _encode_spans(self, samples: Tensor, spans: list[slice]) -> Tensor:
        latents, self._loudness = self.tokenizer.segment_latents(samples, spans)
        return self._quantized(self._tokens(latents))

    def _stamped(self, values: Tensor | None, *, last: bool) -> Tokens:
        tokens = super()._stamped(values, last=last)
        if not self.tokenizer.config.normalise:
            return tokens
        none = torch.zeros(len(tokens), 0, device=tokens.device)
        scales, self._loudness = self._loudness, None
        return replace(tokens, scales=none if scales is None else scales)

    def _decode_ready(self, ids: Tensor) -> Tensor | None:
        self._ids = ids if self._ids is None else torch.cat([self._ids, ids], dim=1)
        certain = self._segments.certain(self._ids.shape[1])
        return self._faded(self._ids, [self._segments.tokens] * certain)

    def _decode_rest(self) -> Tensor | None:
        if self._ids is None:
            return None
        last = self._faded(self._ids, self._segments.lengths(self._ids.shape[1]))
        parts = [part for part in (last, self._adder.rest()) if part is not None]
        return torch.cat(parts, dim=-1) if parts else None

    def _faded(self, ids: Tensor, lengths: list[int]) -> Tensor | None:
        """The sound that segments of these lengths, the next ones, make ready."""
        if not lengths:
            return None
        count = sum(lengths)
        sounds = self.tokenizer.segment_sounds(self._latents(ids[:, :count]), lengths, self._scales)
        parts = [self._adder.add(sound) for sound in sounds]
        self._ids = ids[:, count:].clone()
        self._scales = None if self._scales is None else self._scales[:, len(lengths) :]
        return torch.cat(parts, dim=-1)
