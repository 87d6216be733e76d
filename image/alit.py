"""ALIT (Duggal et al. 2025, arXiv 2411.02393): tokens are added round by round until they tell the image.

Each round refines the patches and the latents so far; then 32 more latents are added, and patches whose code
the decoder already knows are masked. Every round gives a whole encoding of its own: the first 32 of 64 tokens
are not the 32 tokens of the round before, so the tokens are not nested.

Source: ShivamDuggal4/adaptive-length-tokenizer, adaptive_tokenizers. The official code decides the length on
the mean error of a batch; its batches of one are what this module reproduces, for every size of batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..kernels.vq import nearest_code
from ..zoo.chance import Chance, draw_noise
from ..zoo.config import check_range
from ..zoo.facts import Facts
from ..zoo.neural import Reconstruction
from ..zoo.tokens import Tokens
from .alit_parts import AlitDecoder, AlitEncoder
from .distilled import DistilledConfig, DistilledTokenizer, posterior_noise

# The official default.
MAX_ERROR = 0.07


@dataclass(frozen=True, kw_only=True)
class AlitConfig(DistilledConfig):
    """One ALIT; see `DistilledConfig` for the other fields.

    tokens_per_round  latents that each round adds
    rounds            most rounds, as many as were trained
    slots             latents that the decoder has positions for
    mask_threshold    patches whose code is predicted with at least this probability may be masked between
                      rounds; None masks none. With a VAE none is: the official code marks them in a copy
    """

    tokenizer_type: ClassVar[str] = "alit"

    tokens_per_round: int = 32
    rounds: int = 8
    slots: int = 256
    mask_threshold: float | None = 0.55

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("tokens_per_round", self.tokens_per_round, 1, 4096)
        check_range("rounds", self.rounds, 1, 256)
        check_range("slots", self.slots, self.rounds * self.tokens_per_round, 16384)
        if self.mask_threshold is not None:
            check_range("mask_threshold", self.mask_threshold, 0, 1)
            if self.vqgan is None:
                raise ValueError(
                    "mask_threshold without a vqgan: a VAE has no codes to predict; set it to None"
                )

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="alit",
            modality="image",
            channels=3,
            max_tokens=self.rounds * self.tokens_per_round,
            codebook_sizes=() if self.num_codes is None else (self.num_codes,),
            latent_dim=self.latent_dim,
            keeps=tuple(self.tokens_per_round * (1 + index) for index in range(self.rounds)),
            is_adaptive=True,
            draws_noise=self.vae is not None or self.mask_threshold is not None,
        )


class Alit(DistilledTokenizer):
    """Images of one size as 32, 64, ... 256 tokens, the fewest whose reconstruction is close enough.

    Two things are drawn with a generator, as the official code always does: which of the well predicted
    patches are masked between rounds, each with its probability, and the point of the VAE's posterior.
    Without one it is what is likeliest: all whose probability is more than one half, and the mean.
    """

    config_type = AlitConfig
    config: AlitConfig

    def __init__(self, config: AlitConfig) -> None:
        super().__init__(config)
        self.encoder = AlitEncoder(config)
        self.quantizer = config.build_quantizer()
        self.decoder = AlitDecoder(config)
        if config.mask_threshold is None:
            self.untaught = ("encoder.mask_token",)

    @torch.no_grad()
    def encode(
        self,
        signal: Tensor | Sequence[Any],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
        max_error: float | None = None,
    ) -> Tokens:
        """See `Tokenizer.encode`.

        keep       tokens of an image, a whole number of rounds; with max_error, the most an image gets
        max_error  each image gets the fewest tokens whose reconstruction, not clamped, has a mean absolute
                   error below this; where none has, those with the least. Every round is decoded to find out.
                   By default 0.07, as the official code has it; with keep, no image is decoded
        """
        budget = self._budget(keep)

        def latents_of(images: Tensor, chance: Chance) -> Tokens:
            noise = posterior_noise(self.config, len(images), chance)
            uniform = self._uniform(len(images), chance)
            return self.encode_latents(images, keep=budget, max_error=max_error, noise=noise, uniform=uniform)

        return self._encode_with(signal, extents, None, generator, latents_of)

    def encode_latents(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        max_error: float | None = None,
        noise: Tensor | None = None,
        uniform: Tensor | None = None,
    ) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D).

        noise    (B, C, h, w) standard normal: with a VAE below, its posterior is sampled with it
        uniform  (B, rounds, h w) in [0, 1], for `masked_patches` after each round
        The other keywords are those of `encode`.
        """
        if max_error is None and keep is None:
            max_error = MAX_ERROR
        check_range("max_error", max_error or 0, 0, math.inf)
        rounds = (self._budget(keep) or self.facts.keeps[-1]) // self.config.tokens_per_round
        features = self.encoder.features(signal, noise)
        if uniform is None:
            uniform = self._uniform(len(signal), None)
        rows = self._roll_out(signal, features, uniform.to(signal.device), rounds, max_error)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=signal.device)
        empty = features.new_zeros(0, 0, self.config.latent_dim)
        return Tokens(
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else empty,
            lengths,
            self.default_extents(lengths) if extents is None else extents,
            self.facts,
        )

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W). Items of different lengths come out as they would alone."""
        counts = set(tokens.lengths.tolist())
        if counts - set(self.facts.keeps):
            raise ValueError(
                f"lengths {sorted(counts)[:8]}: {self.facts.name} decodes "
                f"{', '.join(map(str, self.facts.keeps))} tokens"
            )
        width = max(counts, default=0)
        keep = tokens.mask[:, :width] if len(counts) > 1 else None
        return self.decoder(tokens.values[:, :width], keep=keep)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; in eval mode with the tokens of `encode`, in train mode of all rounds."""
        self._refuse(lengths, captions)
        latents = self.encode_latents(
            signal,
            keep=self.facts.keeps[-1] if self.training else None,
            noise=posterior_noise(self.config, len(signal), generator),
            uniform=self._uniform(len(signal), generator),
        )
        quantized = self.quantizer(latents.values, generator=generator, valid=latents.mask)
        return Reconstruction(self.decode_latents(replace(latents, values=quantized.latents)), quantized)

    def masked_patches(self, prediction: Tensor, features: Tensor, uniform: Tensor | float = 0.5) -> Tensor:
        """Which patches a round masks: (B, h w) bool.

        prediction  (B, codes, h, w) logits, what the decoder makes of the latents so far
        features    (B, C, h, w) the VQGAN's, whose nearest codes are the truth
        uniform     (B, h w) in [0, 1]: a patch is masked where this is below the probability of its code
        """
        assert self.decoder.vqgan is not None and self.config.mask_threshold is not None
        truth = nearest_code(features.flatten(2).transpose(1, 2), self.decoder.vqgan.codebook)
        share = prediction.flatten(2).softmax(dim=1).gather(1, truth[:, None])[:, 0]
        return (share >= self.config.mask_threshold) & (share > uniform)

    def _roll_out(
        self, signal: Tensor, features: Tensor, uniform: Tensor, rounds: int, max_error: float | None
    ) -> list[Tensor]:
        """The latents (N, D) of each image, of the round where it stops."""
        x = self.encoder.first(signal, features)
        search = None if max_error is None else _Search(len(signal), max_error)
        masks = self.config.mask_threshold is not None
        latents, drop = x[:, :0], None
        for index in range(rounds):
            x = self.encoder(self.encoder.grow(x, index, drop) if index else x)
            latents = self.encoder.latents(x)
            if search is None and (not masks or index == rounds - 1):
                continue
            prediction = self._predict(latents)
            if search is not None:
                errors = (self.decoder.paint(prediction) - signal).abs().flatten(1).float().mean(dim=1)
                on = search.offer(latents, errors.tolist())
                if not on:
                    break
                x, signal, features, uniform, prediction = (
                    each[on] for each in (x, signal, features, uniform, prediction)
                )
            if masks:
                drop = self.masked_patches(prediction, features, uniform[:, index])
        return list(latents) if search is None else search.chosen

    def _predict(self, latents: Tensor) -> Tensor:
        return self.decoder.predict(self.quantizer.decode(self.quantizer.encode(latents)))

    def _uniform(self, batch: int, generator: Chance) -> Tensor:
        """(B, rounds, h w) in [0, 1] for `masked_patches`; without a generator 0.5, the likelier outcome."""
        shape = (batch, self.config.rounds, self.config.side**2)
        if self.config.mask_threshold is None or generator is None:
            return torch.full(shape, 0.5)
        return torch.special.ndtr(draw_noise(shape, generator))


class _Search:
    """Of every image the latents of its first round with an error below `max_error`, or else of its best."""

    def __init__(self, images: int, max_error: float) -> None:
        self.max_error = max_error
        self.chosen: list[Tensor] = []
        self._going = list(range(images))
        self._least = [math.inf] * images

    def offer(self, latents: Tensor, errors: list[float]) -> list[int]:
        """One more round of the images that go on, with their errors; which of them go on still."""
        self.chosen = self.chosen or list(latents)
        for image, row, error in zip(self._going, latents, errors, strict=True):
            if error < self._least[image]:
                self._least[image], self.chosen[image] = error, row
        on = [place for place, error in enumerate(errors) if not error < self.max_error]
        self._going = [self._going[place] for place in on]
        return on
