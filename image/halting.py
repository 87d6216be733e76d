"""How KARL learns to halt (Duggal et al. 2025, arXiv 2507.07995): two passes, the first sets the task.

Pass 1, which is the tokenizer's own `forward`, tries with a random budget T and sees which error it reaches.
Pass 2 tries with the full budget and is told that error: the latents beyond T turned out not to be needed for
it, and are to halt; the first T are to stay. What it paints without those that halted is trained as well.

Source: ShivamDuggal4/karl eb327ad, kolmogorov_tokenizers/karl_vqgan.py. There the odds of the error that
pass 1 is told, at most 0.04, change as training goes; here they are even.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, Step
from ..zoo.watch import Watch
from .distillation import grid_loss, grid_of
from .karl import Karl, halted
from .karl_parts import ERRORS


@dataclass(frozen=True)
class HaltingSettings:
    """How KARL is taught to halt.

    weight     of the term
    rebuild    weight, in it, of what pass 2 paints: mean absolute error
    grid       weight, in it, of the autoencoder's grid in both passes (stage 1); see `grid_loss`
    smoothing  of that grid's codes
    """

    weight: float = 1.0
    rebuild: float = 1.0
    grid: float = 0.0
    smoothing: float = 0.1


class Halting(Objective):
    """Cross-entropies of the votes in both passes, and what pass 2 paints."""

    name = "halting"
    is_of_signal = False
    settings_type = HaltingSettings
    teaches = ("encoder.norm_halt", "encoder.halting")

    def __init__(self, settings: HaltingSettings, tokenizer: NeuralTokenizer) -> None:
        super().__init__(settings.weight)
        if not isinstance(tokenizer, Karl):
            raise TypeError(f"the term halting is for KARL: no latent of {tokenizer.facts.name} votes")
        self.settings = settings
        self._watch: Watch | None = None

    def prepare(self, module: Any) -> None:
        self.release()
        self._watch = Watch(module.tokenizer.encoder)

    def release(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = None

    def forward(self, step: Step) -> Tensor:
        assert self._watch is not None, "prepare comes first"
        tokenizer, settings = step.tokenizer, self.settings
        assert isinstance(tokenizer, Karl)
        first_votes = self._watch.take()[1]
        reached = (step.rebuilt.detach() - step.signal).abs().float().flatten(1).mean(dim=1)
        latents, votes = tokenizer.encoder(step.signal, next_errors(reached), tokenizer.config.budget)
        quantized = tokenizer.quantizer(latents, generator=step.generator)
        prediction = tokenizer.decoder.predict(quantized.latents, keep=~halted(votes))
        loss = _vote_loss(first_votes, first_votes.shape[1]) + _vote_loss(votes, first_votes.shape[1])
        loss = loss + quantized.loss
        if settings.rebuild:
            painted = tokenizer.decoder.paint(prediction)
            loss = loss + settings.rebuild * (painted.float() - step.signal.float()).abs().mean()
        if settings.grid:
            features = grid_of(tokenizer, step.signal)
            for each in (prediction, tokenizer.decoder.predict(step.quantized.latents)):
                loss = loss + settings.grid * grid_loss(tokenizer, each, features, settings.smoothing)
        return loss


def next_errors(reached: Tensor) -> Tensor:
    """The first of ERRORS that is no less, or else the last: (B,) float -> (B,) int64 places there."""
    known = torch.tensor(ERRORS, device=reached.device)
    return torch.searchsorted(known, reached).clamp(max=len(ERRORS) - 1)


def _vote_loss(votes: Tensor, needed: int) -> Tensor:
    """Of logits (B, N): the first `needed` are to stay, the others to halt; each side's mean counts alike."""
    stay, halt = votes[:, :needed].float(), votes[:, needed:].float()
    loss = F.binary_cross_entropy_with_logits(stay, torch.zeros_like(stay))
    if halt.shape[1]:
        loss = loss + F.binary_cross_entropy_with_logits(halt, torch.ones_like(halt))
    return loss
