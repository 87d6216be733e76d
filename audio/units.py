"""Units: the nearest of K centres to each vector of a layer of HuBERT or WavLM.

Source: Hsu et al. 2021, arXiv 2106.07447; Lakhotia et al. 2021, arXiv 2102.01192 (fairseq, textless_nlp).

A tokenizer of this family is put together from two parts, see `assembled`: an encoder as transformers stores
it, and the centres of a k-means, which fairseq publishes as joblib pickles. Those can run anything when they
are opened, so they are never opened here. Where you trust one, export its centres once, in an environment
with scikit-learn, and go on with the array:

    import joblib, numpy
    kmeans = joblib.load("km100.bin")
    numpy.save("km100.npy", kmeans.cluster_centers_)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.chance import Chance
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.tokenizer import NoDecoder
from ..zoo.tokens import Tokens
from ..zoo.vector_quantizer import VectorQuantizer
from .audio_tokenizer import AudioTokenizer
from .preprocess import AudioPreprocess
from .speech_encoder import SpeechEncoder, SpeechEncoderSize
from .stream import Overlap

# Tokens of context around a piece of a long sound: one second on each side.
PIECE_CONTEXT = 50


@dataclass(frozen=True, kw_only=True)
class UnitsConfig(Config):
    """Units of one layer of one encoder.

    encoder       sizes of the encoder, and the layer
    num_codes     K, how many centres
    normalise     whether each sound is brought to mean 0 and variance 1 first: the large models expect it,
                  the base models do not
    encoder_repo  where the weights of the encoder come from: a Hub id, or a folder
    preprocess    the official code takes the mean of the channels
    """

    tokenizer_type: ClassVar[str] = "units"

    encoder: SpeechEncoderSize = field(default_factory=SpeechEncoderSize)
    num_codes: int = 100
    normalise: bool = False
    encoder_repo: str = "facebook/hubert-base-ls960"
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(sample_rate_hz=16_000))

    def __post_init__(self) -> None:
        check_range("num_codes", self.num_codes, 1, 1 << 24)

    @property
    def hop_samples(self) -> int:
        """Samples from one token to the next."""
        return self.encoder.hop_samples

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="units",
            modality="audio",
            sample_rate_hz=self.preprocess.sample_rate_hz,
            channels=1,
            token_rate_hz=self.preprocess.sample_rate_hz / self.hop_samples,
            codebook_sizes=(self.num_codes,),
            latent_dim=self.encoder.width,
            roles=("semantic",),
            has_decoder=False,
        )


class Units(AudioTokenizer):
    """Speech as a row of units, 50 a second, without a way back: unit vocoders are models of their own.

    A sound of S samples has (S - 400) // 320 + 1 units: the convolutions take whole windows of 400, and there
    is none in a shorter sound. `encode(dedup=True)` says each run of a unit once, with `durations`;
    `with_repeats` is the inverse.

    Attention looks at the whole sound, so `chunk_seconds` and `stream` deviate. Its cost grows with the
    square of the length: a sound of more than a few minutes needs them. `padded=True` deviates with the base
    models, which normalise over time, padding included; with WavLM it encodes by length all the same.
    """

    config_type = UnitsConfig
    config: UnitsConfig

    def __init__(self, config: UnitsConfig) -> None:
        super().__init__(config)
        self.min_samples = config.encoder.reach_samples
        self.encoder = SpeechEncoder(config.encoder)
        self.quantizer = VectorQuantizer(config.num_codes, config.encoder.width)

    @classmethod
    def assembled(
        cls,
        centres: str | os.PathLike[str] | Tensor,
        encoder: str | os.PathLike[str],
        *,
        layer: int,
        normalise: bool | None = None,
        name: str = "units",
    ) -> Self:
        """Units out of centres and an encoder; `save_pretrained` then makes one checkpoint of both.

        centres    (K, width), a tensor, or a `.npy` or `.safetensors` file that holds it alone
        encoder    folder or Hub id of a HuBERT or WavLM in the layout of transformers
        layer      1 for the first block: fairseq's `output_layer`, hidden_states[layer] of transformers
        normalise  default: as the encoder was trained, so for a "layer" norm in its convolutions
        """
        from ..checkpoints import unit_parts, weights

        parts = unit_parts.read_encoder(encoder, layer)
        table = unit_parts.read_centres(centres)
        size = SpeechEncoderSize(**parts.size)
        config = UnitsConfig(
            encoder=size,
            num_codes=len(table),
            normalise=size.conv_norm == "layer" if normalise is None else normalise,
            encoder_repo=str(encoder),
        )
        tensors = parts.tensors | {unit_parts.CENTRES_NAME: table}
        with torch.device("meta"):
            tokenizer = cls(config).eval()
        weights.load_strict(tokenizer, tensors, source=parts.source)
        told = {"tokenizer_type": config.tokenizer_type} | config.to_dict()
        tokenizer.identify(
            name=name, revision=None, fingerprint=weights.fingerprint(told, tensors), licence=None
        )
        tokenizer.provenance = f"{parts.source}, layer {layer}, and {len(table)} centres"
        return tokenizer

    def assemble(self, centres: str | os.PathLike[str]) -> dict[str, Tensor]:
        """All weights of a tokenizer of this configuration, under our names: the centres in a file, and the
        encoder from `config.encoder_repo`. `tokenzoo convert CENTRES --like NAME` comes here."""
        from ..checkpoints import unit_parts

        parts = unit_parts.read_encoder(self.config.encoder_repo, self.config.encoder.layer)
        return parts.tensors | {unit_parts.CENTRES_NAME: unit_parts.read_centres(centres)}

    @property
    def overlap(self) -> Overlap:
        """One second; attention looks at the whole sound."""
        return Overlap(encode_tokens=PIECE_CONTEXT, decode_tokens=0, is_exact=False)

    def num_tokens(self, extent: Sequence[int]) -> int:
        """One for every whole window, a hop apart; 0 for less than one."""
        (samples,) = extent
        return self.config.encoder.count(int(samples))

    def default_extents(self, lengths: Tensor) -> Tensor:
        """(B, 1): the windows of so many tokens."""
        return ((lengths - 1) * self.config.hop_samples + self.min_samples).clamp(min=0)[:, None]

    @torch.no_grad()
    def encode(
        self,
        signal: Tensor | Sequence[Any],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
        padded: bool = False,
        chunk_seconds: float | None = None,
        dedup: bool = False,
    ) -> Tokens:
        """See `AudioTokenizer.encode`.

        dedup  one token for each run of the same unit, with how long it is in `durations`
        """
        tokens = super().encode(
            signal,
            extents=extents,
            keep=keep,
            generator=generator,
            padded=padded,
            chunk_seconds=chunk_seconds,
        )
        return without_repeats(tokens) if dedup else tokens

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D)."""
        sound = self._levelled(signal[:, 0])
        return self.tokens_of(self.encoder(sound), signal.shape[-1])

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """There is no sound: the centres themselves, (B, N, D)."""
        return tokens.values

    def decode(
        self, tokens: Tokens, *, generator: Chance = None, chunk_seconds: float | None = None
    ) -> Tensor:
        """Raises NoDecoder."""
        raise NoDecoder(
            f"{self.facts.name} only encodes: it has no decoder; a unit vocoder, trained for these units, "
            "makes sound of them"
        )

    def _encode_padded(self, items: list[Tensor], keep: int | None, generator: Chance) -> Tokens:
        """All items at once; each is levelled by itself, and attends to itself alone."""
        if keep is not None or self.config.encoder.kind == "wavlm":
            # The masks that transformers' WavLM would make of two kinds are not what torch wants any more.
            return super().encode(items, keep=keep, generator=generator)
        with torch.no_grad(), self._evaluating():
            sounds = [self._levelled(item[0].to(self.device, self.dtype)) for item in items]
            samples = torch.tensor([len(sound) for sound in sounds], device=self.device)
            latents = self.encoder(nn.utils.rnn.pad_sequence(sounds, batch_first=True), samples)
            lengths = torch.tensor([self.num_tokens((count,)) for count in samples.tolist()])
            tokens = Tokens(latents, lengths.to(latents.device), samples[:, None], self.facts)
            return self.quantize(tokens, generator)._zero_padding()

    def _levelled(self, sound: Tensor) -> Tensor:
        """(..., S) as the encoder expects it; ValueError for a sound without a unit.

        The epsilon is that of fairseq and of WavLM's own code; transformers adds 1e-7 to the variance.
        """
        if sound.shape[-1] < self.min_samples:  # `check_signal` has seen it, unless it came in pieces
            raise ValueError(
                f"sound of {sound.shape[-1]} samples: {self.facts.name} takes at least {self.min_samples}; "
                "pad it with silence"
            )
        return F.layer_norm(sound, sound.shape[-1:]) if self.config.normalise else sound


def without_repeats(tokens: Tokens) -> Tokens:
    """Each run of the same id once, with its length in `durations`; the extents stay.

    Raises ValueError for tokens that have durations, and TypeError for floats.
    """
    if tokens.durations is not None:
        raise ValueError("these tokens have durations already: with_repeats(tokens) undoes them")
    if tokens.ids.ndim != 2:
        raise ValueError(f"ids have shape {tuple(tokens.ids.shape)}: runs are of one codebook, (B, N)")
    runs = [
        torch.unique_consecutive(row[:length], return_counts=True)
        for row, length in zip(tokens.ids, tokens.lengths.tolist(), strict=True)
    ]
    return _of_rows(tokens, [ids for ids, _ in runs], [counts for _, counts in runs])


def with_repeats(tokens: Tokens) -> Tokens:
    """The inverse of `without_repeats`: every id as often as its duration says."""
    if tokens.durations is None:
        raise ValueError("these tokens have no durations to repeat them by: they are whole")
    rows = [
        row[:length].repeat_interleave(counts[:length])
        for row, counts, length in zip(tokens.ids, tokens.durations, tokens.lengths.tolist(), strict=True)
    ]
    return _of_rows(tokens, rows, None)


def _of_rows(tokens: Tokens, rows: list[Tensor], durations: list[Tensor] | None) -> Tokens:
    """The same tokens with other ids, one row an item, and their durations."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=tokens.device)
    values = nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else tokens.values
    counts = None
    if durations is not None:
        counts = nn.utils.rnn.pad_sequence(durations, batch_first=True) if durations else values.clone()
    return replace(tokens, values=values, lengths=lengths, durations=counts)
