"""Training image tokenizers: a LightningModule that is a Tokenizer too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..zoo.adversary import Adversary, AdversarySettings
from ..zoo.objective import Step
from ..zoo.recipe import (
    Identity,
    LengthSettings,
    OptimizerSettings,
    as_settings,
    nested_length,
    plain,
)
from ..zoo.tokens import Tokens
from ..zoo.trainee import tokenizer_to_train
from ..zoo.training import TokenizerTraining
from .captioned import CaptionedImages
from .image_tokenizer import ImageTokenizer
from .losses import LossWeights, image_objectives, squared_errors
from .metrics import psnr
from .objectives import FamilyTerms, family_objectives, settled_terms
from .patch_gan import PatchGan

VALIDATED_LENGTHS = (1, 8, 32, 128)
# One of each, so that the signature shows the defaults; they are frozen.
_IDENTITY, _LOSSES, _LENGTHS, _OPTIMIZER = Identity(), LossWeights(), LengthSettings(), OptimizerSettings()


class ImageTraining(TokenizerTraining):
    """Trains an image tokenizer to reconstruct, under nested dropout, and averages its weights.

    tokenizer_type     key of `catalogue.FAMILIES`, when a new tokenizer is trained
    config             its configuration: the fields, or a file of configs/, which says the type too
    pretrained         instead of both: the name, Hub id or folder of the tokenizer to start from
    identity           what the result is called, its licence and provenance
    losses             weights of the terms that every family has
    terms              those of the family, see `FamilyTerms`. None: what the family needs; {} leaves all out
    adversary          a PatchGAN beside them; None trains without one
    balance            weights are shares of the gradient at the pixels, see `Balancer`
    lengths            distribution of kept tokens; ignored unless the tokenizer is nested
    optimizer          AdamW, warm-up, cosine, clipping
    ema_decay          share of the old average kept at each step; None trains without an average
    freeze             parts that do not move: "encoder", "quantizer", "decoder", or what lies in them; a
                       list, or one string with commas
    initialise_images  how many training images a new tokenizer's `initialise` sees
    seed               of the kept lengths and the quantizer's noise, which depend on it and the step alone

    Batches are (B, 3, H, W), float in [0, 1] or uint8, or `CaptionedImages`. More is said in
    `TokenizerTraining`.

    The hyperparameters kept in checkpoints are plain values and hold the whole configuration, so
    `load_from_checkpoint` needs neither `pretrained` nor the weights of the perceptual loss.
    """

    def __init__(
        self,
        tokenizer_type: str | None = None,
        config: dict[str, Any] | str | None = None,
        pretrained: str | None = None,
        *,
        identity: Identity = _IDENTITY,
        losses: LossWeights = _LOSSES,
        terms: FamilyTerms | None = None,
        adversary: AdversarySettings | None = None,
        balance: bool = False,
        lengths: LengthSettings = _LENGTHS,
        optimizer: OptimizerSettings = _OPTIMIZER,
        ema_decay: float | None = 0.999,
        freeze: str | list[str] | tuple[str, ...] = (),
        initialise_images: int = 4096,
        seed: int = 0,
    ) -> None:
        identity = as_settings(Identity, identity)
        losses, lengths = as_settings(LossWeights, losses), as_settings(LengthSettings, lengths)
        optimizer = as_settings(OptimizerSettings, optimizer)
        if adversary is not None:
            adversary = as_settings(AdversarySettings, adversary)
        tokenizer = tokenizer_to_train(tokenizer_type, config, pretrained, identity, "image")
        assert isinstance(tokenizer, ImageTokenizer)
        losses, terms = losses.settled(tokenizer.loss_defaults), settled_terms(terms, tokenizer)
        _check_pixels(tokenizer, losses, adversary)
        super().__init__(
            tokenizer,
            [*image_objectives(losses), *family_objectives(terms, tokenizer)],
            adversary=None if adversary is None else Adversary([PatchGan()], adversary),
            balance=balance,
            lengths=lengths,
            optimizer=optimizer,
            ema_decay=ema_decay,
            freeze=freeze,
            initialise_items=initialise_images,
            seed=seed,
            is_new=pretrained is None,
        )
        self.loss_weights = losses
        self.save_hyperparameters(
            {
                "tokenizer_type": self.tokenizer.config_type.tokenizer_type,
                "config": self.tokenizer.config.to_dict(),
                "identity": plain(Identity.of(self.tokenizer)),
                "losses": plain(losses),
                "terms": plain(terms),
                "adversary": None if adversary is None else plain(adversary),
                "balance": balance,
                "lengths": plain(lengths),
                "optimizer": plain(optimizer),
                "ema_decay": ema_decay,
                "freeze": list(self.freeze_parts),
                "initialise_images": initialise_images,
                "seed": seed,
            }
        )

    def signal_of(self, batch: Any) -> Tensor:
        """Bytes become floats in the step, so that a quarter of the memory travels to the device."""
        images = batch.images if isinstance(batch, CaptionedImages) else batch
        if not isinstance(images, Tensor):
            raise TypeError(
                f"a batch is a {type(batch).__name__}: expected one tensor of images (B, 3, H, W), or "
                "CaptionedImages"
            )
        return images.float().div_(255) if images.dtype == torch.uint8 else images

    def captions_of(self, batch: Any) -> tuple[str, ...] | None:
        """Only where the tokenizer takes them; a batch without any trains it on the empty caption."""
        if not self.facts.takes_captions or not isinstance(batch, CaptionedImages):
            return None
        return batch.captions

    def training_figures(self, step: Step) -> dict[str, Tensor]:
        if not self._tokenizer.rebuilds_pixels:
            return {}
        return {"psnr": -10 * squared_errors(step).detach().mean().log10()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        signal, captions = self.signal_of(batch), self.captions_of(batch)
        self.log_validation(self.validation_figures(signal, captions), len(signal))

    @torch.no_grad()
    def validation_figures(
        self, signal: Tensor, captions: tuple[str, ...] | None = None
    ) -> dict[str, Tensor]:
        """PSNR at a few kept lengths and at all; the terms of the loss where `forward` gives no pixels."""
        if not self._tokenizer.rebuilds_pixels:
            made = self(signal, captions=captions)
            step = Step(signal, made.signal, made.quantized, self.tokenizer, captions=captions)
            return {term.name: term(step) for term in self._each_objective()}
        tokens: Tokens = (
            self.encode(signal) if captions is None else self._tokenizer.encode(signal, captions=captions)  # pyright: ignore
        )
        found = {
            f"psnr_{count}": psnr(self.decode(tokens.keep(count)), signal).mean()
            for count in self._validated_lengths()
        }
        return found | {"psnr": psnr(self.decode(tokens), signal).mean()}

    @property
    def _tokenizer(self) -> ImageTokenizer:
        return self.tokenizer  # pyright: ignore[reportReturnType]

    def _validated_lengths(self) -> list[int]:
        facts = self.facts
        longest = nested_length(facts) or 0
        return [n for n in VALIDATED_LENGTHS if n < longest and (not facts.keeps or n in facts.keeps)]


def _check_pixels(
    tokenizer: ImageTokenizer, losses: LossWeights, adversary: AdversarySettings | None
) -> None:
    """ValueError where pixels are to be judged and `forward` gives none."""
    wanted = [*losses.of_pixels, *(["adversary"] if adversary else [])]
    if wanted and not tokenizer.rebuilds_pixels:
        raise ValueError(
            f"{tokenizer.facts.name} is trained without painting pixels: leave out {', '.join(wanted)} "
            f"(weight 0, adversary None); its terms are {', '.join(tokenizer.term_defaults)}"
        )
