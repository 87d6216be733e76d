"""Stage 1 of TiTok: the decoder learns to predict the ids of another tokenizer's grid.

Source: bytedance/1d-tokenizer 942a96f, ReconstructionLoss_Stage1: cross-entropy to the ids of MaskGIT's
VQGAN. Any tokenizer with one codebook and as many places will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.loading import load
from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, Step
from .titok import TiTok


@dataclass(frozen=True)
class CodeSettings:
    """Whose ids are to be predicted.

    weight     of the term
    teacher    name, Hub id or folder of a tokenizer with one codebook: `pixel_codes` ids, one a patch
    smoothing  share of the target that is spread over all ids
    """

    weight: float = 1.0
    teacher: str = "maskgit-vqgan"
    smoothing: float = 0.0


class CodeDistillation(Objective):
    """Cross-entropy of the decoder's logits to the teacher's ids, averaged over places."""

    name = "codes"
    settings_type = CodeSettings

    def __init__(self, settings: CodeSettings, tokenizer: NeuralTokenizer) -> None:
        super().__init__(settings.weight)
        if not isinstance(tokenizer, TiTok) or tokenizer.rebuilds_pixels:
            raise TypeError(
                f"the term codes is for stage 1 of TiTok (legacy, without a pixel_decoder): "
                f"{tokenizer.facts.name} paints pixels"
            )
        self.settings = settings
        self._codes = tokenizer.config.pixel_codes
        # No submodule: in no checkpoint.
        self._teacher: tuple[NeuralTokenizer, ...] = ()

    def prepare(self, module: Any) -> None:
        teacher = load(self.settings.teacher)
        if not isinstance(teacher, NeuralTokenizer) or teacher.facts.codebook_sizes != (self._codes,):
            raise ValueError(
                f"teacher {teacher.facts.name} has codebooks of {list(teacher.facts.codebook_sizes)} codes: "
                f"expected one of {self._codes}, the student's pixel_codes"
            )
        self._teacher = (teacher.requires_grad_(False).to(module.device),)

    def forward(self, step: Step) -> Tensor:
        (teacher,) = self._teacher
        with torch.autocast(step.signal.device.type, enabled=False):
            ids = teacher.encode(step.signal.float()).ids
        logits = step.rebuilt.float().flatten(2)
        if ids.shape[1] != logits.shape[2]:
            raise ValueError(
                f"teacher {teacher.facts.name} gives {ids.shape[1]} ids an image: the student predicts "
                f"{logits.shape[2]}"
            )
        return F.cross_entropy(logits, ids, label_smoothing=self.settings.smoothing)
