"""Representation alignment: the flow decoder of FlexTok learns to see what a vision model sees.

Source: REPA (Yu et al. 2024, arXiv 2410.06940), which FlexTok (arXiv 2502.13967) trains with, on DINOv2. The
projection, its width and the depth, a third of the blocks, are REPA's; the official training code of FlexTok
is not published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.config import check_range
from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, Step
from ..zoo.watch import Watch
from .flextok import FlexTok
from .teacher import DINOV2_BASE, FrozenFeatures


@dataclass(frozen=True)
class AlignmentSettings:
    """How FlexTok's decoder is aligned.

    weight    of the term
    backbone  model of timm whose features are aimed at
    weights   file of its state dict; without it timm asks the Hub
    features  width of its features
    depth     blocks of the decoder before the place that is aligned; None: a third of them
    hidden    width of the projection
    """

    weight: float = 0.5
    backbone: str = DINOV2_BASE
    weights: str | None = None
    features: int = 768
    depth: int | None = None
    hidden: int = 2048


class Alignment(Objective):
    """Minus the cosine between projected patches of the decoder and the features, averaged over places."""

    name = "alignment"
    is_of_signal = False
    settings_type = AlignmentSettings

    def __init__(self, settings: AlignmentSettings, tokenizer: NeuralTokenizer) -> None:
        super().__init__(settings.weight)
        if not isinstance(tokenizer, FlexTok):
            raise TypeError(f"the term alignment is for FlexTok: {tokenizer.facts.name} has no flow decoder")
        sizes = tokenizer.config.decoder
        self.settings = settings
        self.depth = max(1, sizes.layers // 3) if settings.depth is None else settings.depth
        check_range("depth", self.depth, 1, sizes.layers)
        config = tokenizer.config
        self.side = config.image_size // (config.patch_size * config.vae.downscaling)
        self.project = nn.Sequential(
            nn.Linear(sizes.width, settings.hidden),
            nn.SiLU(),
            nn.Linear(settings.hidden, settings.hidden),
            nn.SiLU(),
            nn.Linear(settings.hidden, settings.features),
        )
        # No submodule: in no checkpoint.
        self._teacher: tuple[FrozenFeatures, ...] = ()
        self._watch: Watch | None = None

    def prepare(self, module: Any) -> None:
        self.release()
        teacher = FrozenFeatures(self.settings.backbone, self.settings.weights, self.side)
        if teacher.width != self.settings.features:
            raise ValueError(
                f"features={self.settings.features}: {self.settings.backbone} has {teacher.width}"
            )
        self._teacher = (teacher.to(module.device),)
        self._watch = Watch(module.tokenizer.decoder.blocks[self.depth - 1])

    def release(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = None

    def forward(self, step: Step) -> Tensor:
        assert self._watch is not None, "prepare comes first"
        # Patches stand before the registers.
        patches: Tensor = self._watch.take()[:, : self.side**2]
        (teacher,) = self._teacher
        with torch.autocast(step.signal.device.type, enabled=False):
            wanted = teacher(step.signal.float())
        return -F.cosine_similarity(self.project(patches).float(), wanted, dim=-1).mean()
