"""What ALIT learns from (Duggal et al. 2025, arXiv 2411.02393): the grid below, predicted after every round.

Source: ShivamDuggal4/adaptive-length-tokenizer e52e8f7, adaptive_tokenizers/adaptive_vqgan.py, stage 1. The
rounds are rolled out a second time, beside the tokenizer's `forward`, which gives the last one alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..zoo.chance import draw_noise
from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, Step
from .alit import Alit
from .distillation import grid_loss, grid_of


@dataclass(frozen=True)
class RoundsSettings:
    """How ALIT is taught at every length.

    weight         of the term
    round_weights  of the codes of the rounds in turn; later rounds have 1
    smoothing      share of the target that is spread over all codes
    """

    weight: float = 1.0
    round_weights: tuple[float, ...] = (2.5, 2.0, 1.5, 1.25)
    smoothing: float = 0.1


class Rounds(Objective):
    """The sum over rounds of `grid_loss` and of the quantizer's loss."""

    name = "rounds"
    is_of_signal = False
    settings_type = RoundsSettings

    def __init__(self, settings: RoundsSettings, tokenizer: NeuralTokenizer) -> None:
        super().__init__(settings.weight)
        if not isinstance(tokenizer, Alit):
            raise TypeError(f"the term rounds is for ALIT: {tokenizer.facts.name} has none")
        self.settings = settings

    def forward(self, step: Step) -> Tensor:
        tokenizer, settings = step.tokenizer, self.settings
        assert isinstance(tokenizer, Alit)
        encoder, features = tokenizer.encoder, grid_of(tokenizer, step.signal)
        x, losses = encoder.first(step.signal, features), []
        for index in range(tokenizer.config.rounds):
            x = encoder(x)
            quantized = tokenizer.quantizer(encoder.latents(x), generator=step.generator)
            prediction = tokenizer.decoder.predict(quantized.latents)
            weight = settings.round_weights[index] if index < len(settings.round_weights) else 1.0
            losses += [weight * grid_loss(tokenizer, prediction, features, settings.smoothing)]
            losses += [quantized.loss]
            if index < tokenizer.config.rounds - 1:
                drop = None
                if tokenizer.config.mask_threshold is not None:
                    noise = draw_noise((len(x), encoder.places), step.generator)
                    uniform = torch.special.ndtr(noise).to(x.device)
                    drop = tokenizer.masked_patches(prediction.detach(), features, uniform)
                x = encoder.grow(x, index + 1, drop)
        return torch.stack(losses).sum()
