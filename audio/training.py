"""Training audio tokenizers: a LightningModule that is a Tokenizer too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..zoo.objective import Step
from ..zoo.recipe import (
    Identity,
    LengthSettings,
    OptimizerSettings,
    as_settings,
    nested_length,
    plain,
)
from ..zoo.tokenizer import NoDecoder
from ..zoo.trainee import tokenizer_to_train
from ..zoo.training import TokenizerTraining
from .discriminators import AudioAdversarySettings, audio_adversary
from .losses import AudioLossWeights, audio_objectives, mel_distance
from .metrics import si_sdr, spectral_distance

# What int16 samples are divided by.
FULL_SCALE = 32768
# One of each, so that the signature shows the defaults; they are frozen.
_IDENTITY, _LOSSES, _OPTIMIZER = Identity(), AudioLossWeights(), OptimizerSettings()
# Half of the draws keep every codebook (DAC, arXiv 2306.06546), or the full rate would suffer.
_LENGTHS = LengthSettings(full=0.5)


class AudioTraining(TokenizerTraining):
    """Trains an audio tokenizer to reconstruct, under quantizer dropout, and averages its weights.

    tokenizer_type    key of `catalogue.FAMILIES`, when a new tokenizer is trained
    config            its configuration: the fields, or a file of configs/, which says the type too
    pretrained        instead of both: the name, Hub id or folder of the tokenizer to start from
    identity          what the result is called, its licence and provenance
    losses            weights of the terms
    adversary         discriminators beside them; None trains without
    balance           weights are shares of the gradient at the samples, see `Balancer`
    lengths           distribution of kept codebooks; ignored unless they are nested
    optimizer         AdamW, warm-up, cosine, clipping
    ema_decay         share of the old average kept at each step; None trains without an average
    freeze            parts that do not move: "encoder", "quantizer", "decoder", or what lies in them; a list,
                      or one string with commas
    initialise_items  how many training sounds a new tokenizer's `initialise` sees
    seed              of the kept codebooks and the quantizer's noise, which depend on it and the step alone

    Batches are (B, C, S), float in [-1, 1] or int16. More is said in `TokenizerTraining`.

    The hyperparameters kept in checkpoints are plain values and hold the whole configuration, so
    `load_from_checkpoint` needs neither `pretrained` nor anything else.
    """

    def __init__(
        self,
        tokenizer_type: str | None = None,
        config: dict[str, Any] | str | None = None,
        pretrained: str | None = None,
        *,
        identity: Identity = _IDENTITY,
        losses: AudioLossWeights = _LOSSES,
        adversary: AudioAdversarySettings | None = None,
        balance: bool = False,
        lengths: LengthSettings = _LENGTHS,
        optimizer: OptimizerSettings = _OPTIMIZER,
        ema_decay: float | None = 0.999,
        freeze: str | tuple[str, ...] = (),
        initialise_items: int = 256,
        seed: int = 0,
    ) -> None:
        identity = as_settings(Identity, identity)
        losses, lengths = as_settings(AudioLossWeights, losses), as_settings(LengthSettings, lengths)
        optimizer = as_settings(OptimizerSettings, optimizer)
        if adversary is not None:
            adversary = as_settings(AudioAdversarySettings, adversary)
        tokenizer = tokenizer_to_train(tokenizer_type, config, pretrained, identity, "audio")
        if not tokenizer.facts.has_decoder:
            raise NoDecoder(
                f"{tokenizer.facts.name} only encodes: there is no sound to train it on; "
                "train a tokenizer with a decoder, or fit its quantizer by itself"
            )
        super().__init__(
            tokenizer,
            audio_objectives(losses, tokenizer),
            adversary=adversary and audio_adversary(adversary, tokenizer.facts.channels or 1),
            balance=balance,
            lengths=lengths,
            optimizer=optimizer,
            ema_decay=ema_decay,
            freeze=freeze,
            initialise_items=initialise_items,
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
                "freeze": list(self.freeze_parts),
                "initialise_items": initialise_items,
                "seed": seed,
            }
        )

    def signal_of(self, batch: Any) -> Tensor:
        """int16 becomes floats in the step, so that half of the memory travels to the device."""
        if not isinstance(batch, Tensor) or batch.ndim != 3:
            told = f"tensor {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            raise TypeError(f"a batch is a {told}: expected one tensor of sounds (B, C, S)")
        return batch.float().div_(FULL_SCALE) if batch.dtype == torch.int16 else batch

    def training_figures(self, step: Step) -> dict[str, Tensor]:
        return {"si_sdr": si_sdr(step.rebuilt.detach().float(), step.signal.float()).mean()}

    def validation_figures(self, signal: Tensor) -> dict[str, Tensor]:
        """SI-SDR and spectral distance in dB, and the mel loss: with all codebooks and with fewer."""
        tokens = self.encode(signal)
        found: dict[str, Tensor] = {}
        for count in self._validated_counts():
            sound = self.decode(tokens.keep(count))
            found[f"spectrum_{count}"] = spectral_distance(sound, signal).mean()
        sound, weights = self.decode(tokens), self.loss_weights
        scales = tuple(zip(weights.mel_windows, weights.mel_bands, strict=True))
        found["mel"] = mel_distance(
            sound, signal, scales, self.facts.sample_rate_hz or 0, weights.mel_distance
        )
        found["spectrum"] = spectral_distance(sound, signal).mean()
        return found | {"si_sdr": si_sdr(sound, signal).mean()}

    def _validated_counts(self) -> list[int]:
        """Powers of two below all codebooks, those that decode."""
        facts, most = self.facts, nested_length(self.facts) or 0
        return [n for n in (1, 2, 4, 8, 16) if n < most and (not facts.keeps or n in facts.keeps)]
