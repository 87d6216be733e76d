"""Sound in pieces: streams that hold the state, so that pieces of any size give what the whole gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.stamping import check_values
from ..zoo.tokens import Tokens
from .stream_state import StreamState

if TYPE_CHECKING:
    from .audio_tokenizer import AudioTokenizer, CausalAudioTokenizer


@dataclass(frozen=True)
class Overlap:
    """How many tokens of context on each side a piece needs, so that its middle is what the whole gives.

    encode_tokens, decode_tokens  of the way there and of the way back
    is_exact                      whether they cover all that the network looks at; where it looks at the
                                  whole item, pieces deviate, and docs/audio.md says how much
    """

    encode_tokens: int
    decode_tokens: int
    is_exact: bool


@dataclass(frozen=True, eq=False)
class Flushed:
    """What a stream held back: the last tokens of `encode`, the last samples (B, C, S) of `decode`."""

    tokens: Tokens
    signal: Tensor


class AudioStream(ABC):
    """One sound, or a batch of B that run side by side, in pieces; make it with `tokenizer.stream()`.

    keep  how many codebooks to compute, as in `encode`

    Several streams share one model. `encode` and `decode` are independent of each other. A stream may hold
    back what it cannot know yet; `flush` gives the rest and makes the stream new. The tokens of all pieces,
    one after the other (`join`), are those of the whole, and their extents add up to its samples.
    """

    def __init__(self, tokenizer: AudioTokenizer, *, keep: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.keep = None if keep is None else tokenizer.facts.check_keep(keep)
        self._restart()

    def _restart(self) -> None:
        """Forget everything."""
        self._samples: Tensor | None = None  # not consumed yet
        self._given = 0  # samples that came in
        self._spoken = 0  # samples that tokens stand for, of those given out
        self._due = 0  # samples that the tokens to decode stand for
        self._heard = 0  # samples given out
        self._listeners = 1  # items that are decoded side by side
        self._depth: tuple[int, ...] | None = None  # codebooks of the tokens to decode

    @torch.no_grad()
    def encode(self, chunk: Tensor) -> Tokens:
        """Tokens that are ready, perhaps none, after the next samples: float (C, S) or (B, C, S), S >= 0."""
        chunk = self._checked(chunk)
        self._given += chunk.shape[-1]
        self._samples = chunk if self._samples is None else torch.cat([self._samples, chunk], dim=-1)
        with self.tokenizer._evaluating():
            return self._stamped(self._encode_ready(), last=False)

    @torch.no_grad()
    def decode(self, tokens: Tokens) -> Tensor:
        """Samples (B, C, S) that are ready, perhaps none, after the next tokens; all items of one length."""
        tokenizer = self.tokenizer
        if not tokenizer.facts.has_decoder:
            return tokenizer.decode(tokens)  # which says so
        tokenizer.check_tokens(tokens)
        check_values(tokens)
        if len({*tokens.lengths.tolist()}) != 1:
            raise ValueError(f"lengths {tokens.lengths.tolist()[:8]}: a stream takes items side by side")
        depth = tuple(tokens.values.shape[2:])
        if self._depth is not None and (len(tokens), depth) != (self._listeners, self._depth):
            raise ValueError(
                f"{len(tokens)} items of codebooks {depth}: this stream began with {self._listeners} of "
                f"{self._depth}"
            )
        self._due += int(tokens.extents.max())
        self._listeners, self._depth = len(tokens), depth
        tokens = tokens.to(tokenizer.device)
        with tokenizer._evaluating():
            return self._sound(self._decode_ready(tokens.values))

    @torch.no_grad()
    def flush(self) -> Flushed:
        """The rest of both directions; after it the stream begins anew."""
        with self.tokenizer._evaluating():
            tokens = self._stamped(self._encode_rest(), last=True)
            rest = self._sound(self._decode_rest())
        self._restart()
        return Flushed(tokens, rest)

    @abstractmethod
    def _encode_ready(self) -> Tensor | None:
        """Ids (B, N) or (B, N, q) that are certain, out of `_samples`, whose consumed part it drops."""

    @abstractmethod
    def _encode_rest(self) -> Tensor | None:
        """The ids of what is left, the end of the sound."""

    @abstractmethod
    def _decode_ready(self, ids: Tensor) -> Tensor | None:
        """Samples (B, C, S) that are certain after these ids (B, N) or (B, N, q)."""

    @abstractmethod
    def _decode_rest(self) -> Tensor | None:
        """The samples of what is left."""

    def _quantized(self, latents: Tokens) -> Tensor:
        """Ids of the latents of a piece."""
        told: dict[str, Any] = {}
        if self.keep is not None and self.tokenizer.facts.nested == "codebooks":
            told["keep"] = min(self.keep, len(self.tokenizer.facts.codebook_sizes))
        return self.tokenizer.quantize(latents, **told).values

    def _latents(self, ids: Tensor) -> Tensor:
        """What the decoder reads for the ids of a piece, in the model's dtype."""
        tokens = self._tokens(ids)
        return self.tokenizer.dequantize(tokens).values.to(self.tokenizer.dtype)

    def _tokens(self, values: Tensor) -> Tokens:
        """Values (B, N, ...) of a piece, all of them real."""
        lengths = torch.full((len(values),), values.shape[1], dtype=torch.int64, device=values.device)
        extents = lengths[:, None] * self.tokenizer.config.hop_samples
        return Tokens(values, lengths, extents, self.tokenizer.facts)

    def _checked(self, chunk: Tensor) -> Tensor:
        """(B, C, S) on the model's device and in its dtype."""
        tokenizer = self.tokenizer
        if not isinstance(chunk, Tensor):
            raise TypeError(f"chunk is a {type(chunk).__name__}: expected a tensor (C, S) or (B, C, S)")
        chunk = chunk[None] if chunk.ndim == 2 else chunk
        # A chunk may be shorter than a sound.
        tokenizer.check_signal(F.pad(chunk, (0, max(0, tokenizer.min_samples - chunk.shape[-1]))))
        if self._samples is not None and len(chunk) != len(self._samples):
            raise ValueError(f"{len(chunk)} sounds: this stream began with {len(self._samples)}")
        return chunk.to(tokenizer.device, tokenizer.dtype)

    def _stamped(self, values: Tensor | None, *, last: bool) -> Tokens:
        """Ids as tokens whose extents add up to the samples given."""
        facts = self.tokenizer.facts
        if values is None:
            batch = 1 if self._samples is None else len(self._samples)
            rest = facts.codebook_sizes[1:] and (self.keep or len(facts.codebook_sizes),)
            values = torch.zeros((batch, 0, *rest), dtype=torch.int64, device=self.tokenizer.device)
        samples = self._given - self._spoken
        if not last:
            samples = min(samples, values.shape[1] * self.tokenizer.config.hop_samples)
        self._spoken += samples
        tokens = self._tokens(values)
        return replace(tokens, extents=torch.full_like(tokens.extents, samples))

    def _sound(self, samples: Tensor | None) -> Tensor:
        if samples is None:
            channels = self.tokenizer.facts.channels or 1
            return torch.zeros(self._listeners, channels, 0, device=self.tokenizer.device)
        # What fills up the last hop is no sound that the tokens stand for.
        samples = samples[..., : max(0, self._due - self._heard)]
        self._heard += samples.shape[-1]
        return self.tokenizer.finish_sound(samples)


class OverlapStream(AudioStream):
    """Pieces with context on both sides, for networks that look ahead: late by the context.

    block_seconds  how much is gathered before it is worked on; longer blocks repeat less context
    """

    def __init__(
        self, tokenizer: AudioTokenizer, *, keep: int | None = None, block_seconds: float = 1.0
    ) -> None:
        hop, align = tokenizer.config.hop_samples, tokenizer.align_tokens
        tokens = block_seconds * tokenizer.config.preprocess.sample_rate_hz / hop
        self._block = max(1, round(tokens / align)) * align
        super().__init__(tokenizer, keep=keep)

    def _restart(self) -> None:
        super()._restart()
        self._encoded = _Window(self.tokenizer.align_tokens, self.tokenizer.overlap.encode_tokens)
        self._decoded = _Window(self.tokenizer.align_tokens, self.tokenizer.overlap.decode_tokens)
        self._ids: Tensor | None = None

    def _encode_ready(self) -> Tensor | None:
        hop, parts = self.tokenizer.config.hop_samples, []
        while self._samples is not None:
            held = self._samples.shape[-1] // hop
            if not self._encoded.can_take(self._block, held):
                break
            piece = self._samples[..., : self._encoded.reach(self._block) * hop]
            parts.append(self._middle_ids(piece, self._block))
            self._samples = self._samples[..., self._encoded.advance(self._block) * hop :]
        return torch.cat(parts, dim=1) if parts else None

    def _encode_rest(self) -> Tensor | None:
        if self._samples is None or self._given == self._spoken:
            return None
        return self._middle_ids(self._samples, None)

    def _middle_ids(self, samples: Tensor, count: int | None) -> Tensor:
        """Ids of the tokens after the context, `count` of them or all."""
        ids = self._quantized(self.tokenizer.encode_latents(samples))
        start = self._encoded.context
        return ids[:, start:] if count is None else ids[:, start : start + count]

    def _decode_ready(self, ids: Tensor) -> Tensor | None:
        self._ids = ids if self._ids is None else torch.cat([self._ids, ids], dim=1)
        parts = []
        while self._decoded.can_take(self._block, self._ids.shape[1]):
            parts.append(self._middle_sound(self._ids[:, : self._decoded.reach(self._block)], self._block))
            self._ids = self._ids[:, self._decoded.advance(self._block) :]
        return torch.cat(parts, dim=-1) if parts else None

    def _decode_rest(self) -> Tensor | None:
        return None if self._ids is None else self._middle_sound(self._ids, None)

    def _middle_sound(self, ids: Tensor, count: int | None) -> Tensor:
        """Samples of the tokens after the context, `count` of them or all."""
        hop, start = self.tokenizer.config.hop_samples, self._decoded.context
        end = (ids.shape[1] if count is None else start + count) * hop
        sound = self.tokenizer.sound_of(self._latents(ids))[..., :end]
        return F.pad(sound, (0, end - sound.shape[-1]))[..., start * hop :]


class _Window:
    """Where a block lies in what is held: after `context` tokens that were worked on before."""

    def __init__(self, align: int, halo: int) -> None:
        self._align = align
        self._halo = halo
        self.context = 0

    def can_take(self, block: int, held: int) -> bool:
        return held >= self.reach(block)

    def reach(self, block: int) -> int:
        """Tokens that must be held to work on a block: it and the context around it."""
        return self.context + block + -(-self._halo // self._align) * self._align

    def advance(self, block: int) -> int:
        """Move past a block; returns how many tokens of what is held are of no more use."""
        kept = -(-self._halo // self._align) * self._align
        dropped = max(0, self.context + block - kept)
        self.context += block - dropped
        return dropped


class CausalStream(AudioStream):
    """A network that never looks ahead, with the state of its layers: tokens as soon as a hop is full.

    The tokenizer offers `encode_step` and `decode_step`; see `CausalAudioTokenizer`.
    """

    tokenizer: CausalAudioTokenizer

    def _restart(self) -> None:
        super()._restart()
        self._encoder_state = StreamState()
        self._decoder_state = StreamState()
        self._no_ids: Tensor | None = None

    def _encode_ready(self) -> Tensor | None:
        hop = self.tokenizer.config.hop_samples
        if self._samples is None or self._samples.shape[-1] < hop:
            return None
        whole = self._samples.shape[-1] // hop * hop
        ready, self._samples = self._samples[..., :whole], self._samples[..., whole:]
        return self._encode_step(ready, last=False)

    def _encode_rest(self) -> Tensor | None:
        return self._encode_step(self._samples, last=True) if self._samples is not None else None

    def _encode_step(self, samples: Tensor, *, last: bool) -> Tensor:
        latents = self.tokenizer.encode_step(samples, self._encoder_state, last=last)
        return self._quantized(self._tokens(latents))

    def _decode_ready(self, ids: Tensor) -> Tensor | None:
        self._no_ids = ids[:, :0]
        return self.tokenizer.decode_step(self._latents(ids), self._decoder_state, last=False)

    def _decode_rest(self) -> Tensor | None:
        if self._no_ids is None:
            return None
        return self.tokenizer.decode_step(self._latents(self._no_ids), self._decoder_state, last=True)


def join(pieces: list[Tokens]) -> Tokens:
    """The tokens of a stream's pieces, one after the other in time; their extents add up."""
    if not pieces:
        raise ValueError("no tokens to join: give at least one piece")
    values = torch.cat([piece.values for piece in pieces], dim=1)
    lengths = torch.full((len(values),), values.shape[1], dtype=torch.int64, device=values.device)
    extents = torch.stack([piece.extents for piece in pieces]).sum(dim=0)
    scales = [piece.scales for piece in pieces if piece.scales is not None]
    return replace(
        pieces[0],
        values=values,
        lengths=lengths,
        extents=extents,
        scales=torch.cat(scales, dim=1) if scales else None,
    )
