"""What audio tokenizers share: waveforms of any length, hops, exact length, rates, pieces of long sounds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.chance import Chance, check_generators, select_generators
from ..zoo.neural import NeuralTokenizer, Reconstruction, _unpadded
from ..zoo.optional import require
from ..zoo.stamping import check_lengths, check_values
from ..zoo.tokens import Tokens
from .preprocess import AudioPreprocess
from .stream import AudioStream, CausalStream, Overlap, OverlapStream, join
from .stream_state import StreamState

if TYPE_CHECKING:
    from .training import AudioTraining

# Resampling and lossy files overshoot [-1, 1]; beyond this it is integers that were never scaled.
PEAK_LIMIT = 4.0
# A month of sound in one piece.
MAX_SECONDS = 31 * 24 * 3600


class AudioTokenizer(NeuralTokenizer):
    """Sound of any length; the configuration has `preprocess: AudioPreprocess` and `hop_samples`.

    A family brings its configuration, with `hop_samples` (samples per token), and the parts: an encoder from
    waveforms (B, C, S), S a number that `pad_signal` makes, to latents (B, D, N); a quantizer of (..., D); a
    decoder from latents (B, D, N) to waveforms.

    A round trip gives back exactly the samples that went in. Items of different lengths are encoded and
    decoded by length, so each gets what it would get alone.
    """

    # Token counts are multiples of this.
    align_tokens: int = 1
    # Shorter sounds have no token.
    min_samples: int = 1

    @property
    @abstractmethod
    def overlap(self) -> Overlap:
        """The context that pieces of a long sound need."""

    @property
    def preprocess(self) -> AudioPreprocess:
        return self.config.preprocess

    def check_signal(self, signal: Tensor) -> None:
        """float (B, C, S) in about [-1, 1], finite, S at least 1."""
        name, channels = self.facts.name, self.config.preprocess.channels
        if signal.ndim != 3 or signal.shape[1] != channels or not signal.shape[2]:
            mono = " (mix stereo down first)" if channels == 1 else " (repeat mono to both)"
            raise ValueError(
                f"sound has shape {tuple(signal.shape)}: {name} takes (B, {channels}, S), S at least 1{mono};"
                " pass each sound through tokenizer.preprocess"
            )
        if signal.shape[2] < self.min_samples:
            raise ValueError(
                f"sound of {signal.shape[2]} samples: {name} takes at least {self.min_samples}; "
                "pad it with silence"
            )
        if not signal.is_floating_point():
            raise TypeError(f"sound is {signal.dtype}: expected floats in [-1, 1]; divide int16 by 32768")
        if signal.numel():
            low, high = float(signal.detach().min()), float(signal.detach().max())
            # NaN fails every comparison, so it is caught here too.
            if not (low >= -PEAK_LIMIT and high <= PEAK_LIMIT):
                raise ValueError(
                    f"sound holds {low:g} ... {high:g}: expected finite floats in [-1, 1]; "
                    "divide integers by their largest value first"
                )

    def num_tokens(self, extent: Sequence[int]) -> int:
        """One for every hop, the last one filled up."""
        (samples,) = extent
        hops = -(-int(samples) // self.config.hop_samples)
        return -(-hops // self.align_tokens) * self.align_tokens

    def default_extents(self, lengths: Tensor) -> Tensor:
        """(B, 1): whole hops."""
        return lengths[:, None] * self.config.hop_samples

    def encode(
        self,
        signal: Tensor | Sequence[Any],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
        padded: bool = False,
        chunk_seconds: float | None = None,
    ) -> Tokens:
        """See `Tokenizer.encode`.

        padded         items of several lengths at once, zeros after the shorter ones: faster, and the ids
                       near the end of those may be others than each gets alone
        chunk_seconds  long sounds piece by piece, in memory for one piece; see `stream`
        """
        if padded and chunk_seconds is not None:
            raise ValueError("padded and chunk_seconds do not go together: leave one out")
        if chunk_seconds is None and not padded:
            return super().encode(signal, extents=extents, keep=keep, generator=generator)
        items = self._items(signal, extents)
        check_generators(generator, len(items))
        if chunk_seconds is None:
            return self._encode_padded(items, keep, generator)
        return Tokens.cat([self._encode_chunks(item, keep, chunk_seconds) for item in items])

    @torch.no_grad()
    def decode(
        self, tokens: Tokens, *, generator: Chance = None, chunk_seconds: float | None = None
    ) -> Tensor:
        """See `Tokenizer.decode`; (B, C, S) float32 in [-1, 1].

        chunk_seconds  long sounds piece by piece, in memory for one piece; see `stream`
        """
        if chunk_seconds is None or not self.facts.has_decoder or not len(tokens):
            return self._decode_with(tokens, generator, lambda some: self.decode_drawing(some, generator))
        self.check_tokens(tokens)
        check_values(tokens)
        check_lengths(self, tokens)
        check_generators(generator, len(tokens))
        # Written in place: pieces and their sum together would take twice the memory.
        sounds = torch.zeros(len(tokens), self.facts.channels or 1, int(tokens.extents.max()))
        for index, single in enumerate(tokens.unbind()):
            sound = sounds[index : index + 1, :, : int(single.extents)]
            self._decode_chunks(single, sound, chunk_seconds, select_generators(generator, [index]))
        return sounds.to(self.device)

    def stream(self, *, keep: int | None = None, block_seconds: float = 1.0) -> AudioStream:
        """An object that encodes and decodes sound in pieces of any size; see `AudioStream`.

        keep           how many codebooks to compute
        block_seconds  how much is worked on at once; a causal model works as soon as a hop is full
        """
        check_seconds("block_seconds", block_seconds)
        return OverlapStream(self, keep=keep, block_seconds=block_seconds)

    def pad_signal(self, signal: Tensor) -> Tensor:
        """(B, C, S) with zeros after it, up to `num_tokens` hops; a family pads as the official code does."""
        whole = self.num_tokens(signal.shape[2:]) * self.config.hop_samples
        return F.pad(signal, (0, whole - signal.shape[2]))

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D). Padding counts as sound: `encode` takes it off."""
        latents = self.encoder(self.pad_signal(signal)).transpose(1, 2)
        return self.tokens_of(latents, signal.shape[-1])

    def tokens_of(self, values: Tensor, samples: int) -> Tokens:
        """Tokens of a stacked batch (B, N, ...), of items with so many samples."""
        batch, count = values.shape[:2]
        lengths = torch.full((batch,), count, dtype=torch.int64, device=values.device)
        return Tokens(values, lengths, torch.full_like(lengths, samples)[:, None], self.facts)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`; (B, C, S), shorter items with silence after them. Those of one length are
        decoded together; those without tokens are silence."""
        longest = int(tokens.extents.max())
        sounds: dict[int, Tensor] = {}
        for members in _by_length(tokens):
            group = _group(tokens, members)
            nothing = group.values.new_zeros(len(members), self.config.preprocess.channels, 0)
            some = self.sound_of_group(group) if group.values.shape[1] else nothing
            for index, sound in zip(members, some, strict=True):
                sound = sound[..., : int(tokens.extents[index])]
                sounds[index] = F.pad(sound, (0, longest - sound.shape[-1]))
        return torch.stack([sounds[index] for index in range(len(tokens))])

    def sound_of_group(self, tokens: Tokens) -> Tensor:
        """`sound_of` latent tokens of one length; families whose sound depends on more than the values."""
        return self.sound_of(tokens.values)

    def decode_drawing(self, tokens: Tokens, generator: Chance) -> Tensor:
        """`decode_latents`, of families that draw noise for it with that of the generator."""
        return self.decode_latents(tokens)

    def sound_of(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) of items of one length to sound (B, C, S'), S' about N hops."""
        return self.decoder(latents.transpose(1, 2))

    def finish_signal(self, signal: Tensor, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`."""
        return self.finish_sound(signal)

    def finish_sound(self, signal: Tensor) -> Tensor:
        """float32 in [-1, 1]; ValueError for NaN or infinity, which no clamp mends."""
        if not bool(torch.isfinite(signal.sum())):
            raise ValueError(
                f"{self.facts.name} decodes these tokens to NaN or infinity; load it with "
                "dtype=torch.float32 where half precision overflows"
            )
        return signal.float().clamp_(-1, 1)

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """((K, D), ...), what each codebook adds to the latents that the decoder reads."""
        sizes = self.quantizer.codebook_sizes
        tables = []
        for place, size in enumerate(sizes):
            ids = torch.full((size, len(sizes)), -1, device=self.device)
            ids[:, place] = torch.arange(size, device=self.device)
            tables.append(self.quantizer.decode(ids if len(sizes) > 1 else ids[:, 0]))
        return tuple(tables)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; lengths (B,) counts codebooks where those nest (quantizer dropout)."""
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        told: dict[str, Any] = {}
        if lengths is not None:
            if self.facts.nested != "codebooks":
                raise ValueError(f"{self.facts.name} is not nested and keeps all tokens: leave lengths out")
            told["lengths"] = lengths
        latents = self.encode_latents(signal)
        quantized = self.quantizer(latents.values, generator=generator, **told)
        rebuilt = self.decode_drawing(replace(latents, values=quantized.latents), generator)
        return Reconstruction(rebuilt, quantized)

    def finetune(self, **hyperparameters: Any) -> AudioTraining:
        """An `AudioTraining` with these hyperparameters, started from a float32 copy of the weights."""
        require("lightning.pytorch", "train")
        from ..zoo.trainee import finetuned
        from .training import AudioTraining

        return finetuned(AudioTraining, self, hyperparameters)

    def _items(self, signal: Tensor | Sequence[Any], extents: Tensor | None) -> list[Tensor]:
        """The sounds (C, S) of a batch or a list, checked."""
        if isinstance(signal, Tensor):
            self.check_signal(signal)
            items = list(signal) if extents is None else _unpadded(signal, extents, axes=1)
        else:
            items = [self.item_tensor(item) for item in signal]
        for item in items:
            self.check_signal(item[None])
        if not items:
            raise ValueError("nothing to encode: the list of items is empty")
        return items

    @torch.no_grad()
    def _encode_padded(self, items: list[Tensor], keep: int | None, generator: Chance) -> Tokens:
        """All items at once; what the zeros after an item became is cut off."""
        batch = torch.nn.utils.rnn.pad_sequence([item.T for item in items], batch_first=True)
        tokens = super().encode(batch.transpose(1, 2), keep=keep, generator=generator)
        if tokens.scales is not None:
            raise ValueError(f"{self.facts.name} measures loudness by segments: padded would change it")
        samples = [[item.shape[-1]] for item in items]
        lengths = torch.tensor([self.num_tokens(extent) for extent in samples], device=tokens.device)
        extents = torch.tensor(samples, device=tokens.device)
        return replace(tokens, lengths=lengths, extents=extents)._zero_padding()

    def _encode_chunks(self, item: Tensor, keep: int | None, chunk_seconds: float) -> Tokens:
        pieces = item.split(self._chunk_samples(chunk_seconds), dim=-1)
        stream = self.stream(keep=keep, block_seconds=chunk_seconds)
        tokens = [stream.encode(piece) for piece in pieces]
        return join([*tokens, stream.flush().tokens])

    def _decode_chunks(self, tokens: Tokens, sound: Tensor, chunk_seconds: float, generator: Chance) -> None:
        """The tokens of one item into `sound` (1, C, S)."""
        told: dict[str, Any] = {"generator": generator} if self.facts.draws_noise else {}
        step = self._chunk_samples(chunk_seconds)
        stream, place = self.stream(block_seconds=chunk_seconds, **told), 0
        for piece in self.pieces_of(tokens, step):
            place = _write(sound, stream.decode(piece), place)
        _write(sound, stream.flush().signal, place)

    def pieces_of(self, tokens: Tokens, samples: int) -> Iterator[Tokens]:
        """The tokens of one item in pieces of about so many samples, for a stream to decode."""
        hop = self.config.hop_samples
        step = samples // hop
        for start in range(0, int(tokens.lengths[0]), step):
            values = tokens.values[:, start : start + step]
            lengths = torch.full_like(tokens.lengths, values.shape[1])
            extents = (tokens.extents - start * hop).clamp(min=0, max=values.shape[1] * hop)
            yield replace(tokens, values=values, lengths=lengths, extents=extents)

    def _chunk_samples(self, chunk_seconds: float) -> int:
        """Samples of a chunk, a whole number of hops."""
        hop = self.config.hop_samples
        check_seconds("chunk_seconds", chunk_seconds)
        return max(1, round(chunk_seconds * self.config.preprocess.sample_rate_hz / hop)) * hop


class CausalAudioTokenizer(AudioTokenizer):
    """A network that never looks ahead: its streams hold the state of every layer, in a `StreamState`."""

    @property
    def overlap(self) -> Overlap:
        """None: the state is all the context there is."""
        return Overlap(encode_tokens=0, decode_tokens=0, is_exact=True)

    @abstractmethod
    def encode_step(self, signal: Tensor, state: StreamState, *, last: bool = False) -> Tensor:
        """Latents (B, m, D) that are ready after the next samples (B, C, n * hop).

        last  these are the last samples, any number of them, 0 included
        """

    @abstractmethod
    def decode_step(self, latents: Tensor, state: StreamState, *, last: bool = False) -> Tensor:
        """Samples (B, C, S) that are ready after the next latents (B, n, D); last: they are the last."""

    def stream(self, *, keep: int | None = None, block_seconds: float = 1.0) -> AudioStream:
        """An object that encodes and decodes sound in pieces of any size, as soon as a hop is full."""
        check_seconds("block_seconds", block_seconds)
        return CausalStream(self, keep=keep)


def check_seconds(name: str, seconds: float) -> None:
    """ValueError unless this is a length of sound that is not nothing, and not more than a month."""
    if not isinstance(seconds, int | float) or not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{name}={seconds!r}: expected a number of seconds above 0, at most {MAX_SECONDS}")


def _by_length(tokens: Tokens) -> list[list[int]]:
    """Indices of the items that have as many tokens each."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(tokens.lengths.tolist()):
        groups.setdefault(length, []).append(index)
    return list(groups.values())


def _group(tokens: Tokens, members: list[int]) -> Tokens:
    """Items of one length, without padding."""
    return replace(
        tokens,
        values=tokens.values[members, : int(tokens.lengths[members[0]])],
        lengths=tokens.lengths[members],
        extents=tokens.extents[members],
        scales=None if tokens.scales is None else tokens.scales[members],
    )


def _write(sound: Tensor, piece: Tensor, place: int) -> int:
    """`piece` into `sound` from `place` on, as far as there is room; returns the place after it."""
    piece = piece[..., : sound.shape[-1] - place]
    sound[..., place : place + piece.shape[-1]] = piece
    return place + piece.shape[-1]
