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
from ..zoo.training import TokenizerTraining, tokenizer_to_train
from .losses import LossWeights, image_objectives, squared_errors
from .metrics import psnr
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
    losses             weights of the terms
    adversary          a PatchGAN beside them; None trains without one
    balance            weights are shares of the gradient at the pixels, see `Balancer`
    lengths            distribution of kept tokens; ignored unless the tokenizer is nested
    optimizer          AdamW, warm-up, cosine, clipping
    ema_decay          share of the old average kept at each step; None trains without an average
    freeze             parts that do not move: "encoder", "quantizer", "decoder", or submodules of them
    initialise_images  how many training images a new tokenizer's `initialise` sees
    seed               of the kept lengths and the quantizer's noise, which depend on it and the step alone

    Batches are (B, 3, H, W), float in [0, 1] or uint8. More is said in `TokenizerTraining`.

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
        adversary: AdversarySettings | None = None,
        balance: bool = False,
        lengths: LengthSettings = _LENGTHS,
        optimizer: OptimizerSettings = _OPTIMIZER,
        ema_decay: float | None = 0.999,
        freeze: tuple[str, ...] = (),
        initialise_images: int = 4096,
        seed: int = 0,
    ) -> None:
        identity = as_settings(Identity, identity)
        losses, lengths = as_settings(LossWeights, losses), as_settings(LengthSettings, lengths)
        optimizer = as_settings(OptimizerSettings, optimizer)
        if adversary is not None:
            adversary = as_settings(AdversarySettings, adversary)
        super().__init__(
            tokenizer_to_train(tokenizer_type, config, pretrained, identity, "image"),
            image_objectives(losses),
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
                "adversary": None if adversary is None else plain(adversary),
                "balance": balance,
                "lengths": plain(lengths),
                "optimizer": plain(optimizer),
                "ema_decay": ema_decay,
                "freeze": list(freeze),
                "initialise_images": initialise_images,
                "seed": seed,
            }
        )

    def signal_of(self, batch: Any) -> Tensor:
        """Bytes become floats in the step, so that a quarter of the memory travels to the device."""
        if not isinstance(batch, Tensor):
            raise TypeError(
                f"a batch is a {type(batch).__name__}: expected one tensor of images (B, 3, H, W)"
            )
        return batch.float().div_(255) if batch.dtype == torch.uint8 else batch

    def training_figures(self, step: Step) -> dict[str, Tensor]:
        return {"psnr": -10 * squared_errors(step).detach().mean().log10()}

    def validation_figures(self, signal: Tensor) -> dict[str, Tensor]:
        """PSNR at a few kept lengths and at all."""
        tokens = self.encode(signal)
        found = {
            f"psnr_{count}": psnr(self.decode(tokens.keep(count)), signal).mean()
            for count in self._validated_lengths()
        }
        return found | {"psnr": psnr(self.decode(tokens), signal).mean()}

    def _validated_lengths(self) -> list[int]:
        facts = self.facts
        longest = nested_length(facts) or 0
        return [n for n in VALIDATED_LENGTHS if n < longest and (not facts.keeps or n in facts.keeps)]
