"""Hierarchical semantic regularization of ReTok (Fu et al. 2026, arXiv 2601.01535), as a term of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, Step
from .retok import ReTok
from .teacher import DINOV2_BASE, FrozenFeatures


@dataclass(frozen=True)
class SemanticSettings:
    """What teaches ReTok's decoder.

    weight    of the term
    backbone  model of timm, with features as wide as the configuration's `semantic_dim`
    weights   file of its state dict; without it timm asks the Hub
    """

    weight: float = 1.0
    backbone: str = DINOV2_BASE
    weights: str | None = None


class Semantics(Objective):
    """`ReTok.semantic_loss` against the features of a frozen vision model."""

    name = "semantic"
    is_of_signal = False
    settings_type = SemanticSettings
    teaches = ("decoder.semantic",)

    def __init__(self, settings: SemanticSettings, tokenizer: NeuralTokenizer) -> None:
        super().__init__(settings.weight)
        if not isinstance(tokenizer, ReTok):
            raise TypeError(f"the term semantic is for ReTok: {tokenizer.facts.name} has no such head")
        self.settings = settings
        self._wanted = tokenizer.config.semantic_dim, tokenizer.config.side
        # No submodule: in no checkpoint.
        self._teacher: tuple[FrozenFeatures, ...] = ()

    def prepare(self, module: Any) -> None:
        width, side = self._wanted
        teacher = FrozenFeatures(self.settings.backbone, self.settings.weights, side)
        if teacher.width != width:
            raise ValueError(
                f"{self.settings.backbone} has features of width {teacher.width}: semantic_dim is {width}"
            )
        self._teacher = (teacher.to(module.device),)

    def forward(self, step: Step) -> Tensor:
        tokenizer = step.tokenizer
        assert isinstance(tokenizer, ReTok)
        lengths = step.lengths
        if lengths is None:
            lengths = torch.full((len(step.signal),), tokenizer.config.num_tokens)
        (teacher,) = self._teacher
        with torch.autocast(step.signal.device.type, enabled=False):
            wanted = teacher(step.signal.float())
        lengths = lengths.to(step.signal.device)
        return tokenizer.semantic_loss(step.quantized.latents, wanted, lengths)
