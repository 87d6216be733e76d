"""Semantic distillation (SpeechTokenizer): the first codebook says what a frozen encoder of speech hears."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.precision import without_autocast
from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, Step
from ..zoo.residual_quantizer import ResidualQuantized
from ..zoo.split_quantizer import SplitQuantized
from .resynthesis import as_heard
from .speech_teacher import SpeechTeacher, read_teacher

SemanticDistance = Literal["d_axis", "cosine"]


class SemanticDistillation(Objective):
    """Distance of the first codebook, mapped to their space, from a frozen teacher's features.

    teacher    where it is read when training starts, see `read_teacher`
    layer      of the teacher
    width      of its features
    distance   see `semantic_distance`
    tokenizer  the one that learns. A family with a map of its own (SpeechTokenizer's `transform`) uses that;
               for others the map is here, and thrown away after training, as Mimi's is

    The teacher hears the same sound, at 16 kHz, and its features are brought to the rate of the latents: see
    `at_rate_of`.
    """

    name = "semantic"
    is_of_signal = False
    teaches = ("transform",)

    def __init__(
        self,
        weight: float,
        teacher: str | None,
        layer: int | None,
        width: int,
        distance: SemanticDistance,
        tokenizer: NeuralTokenizer,
    ) -> None:
        super().__init__(weight)
        if weight and teacher is None:
            raise ValueError(
                "semantic needs teacher: a folder or Hub id of a HuBERT, WavLM or Whisper, e.g. "
                "facebook/hubert-base-ls960"
            )
        self.source, self.layer, self.width = teacher or "", layer, width
        self.distance: SemanticDistance = distance
        self.map = None
        if not hasattr(tokenizer, "transform"):
            self.map = nn.Linear(tokenizer.quantizer.dim_out, width, bias=False)
        # In a tuple it is no submodule: its weights stay out of checkpoints and out of `parameters()`.
        self._teacher: tuple[SpeechTeacher, ...] = ()

    def prepare(self, module: Any) -> None:
        """Reads the teacher; CheckpointError where it is not, ValueError where its width is another."""
        teacher = read_teacher(self.source, self.layer)
        if teacher.width != self.width:
            raise ValueError(
                f"teacher_width={self.width}: {self.source} has features of width {teacher.width}"
            )
        self._teacher = (teacher.to(module.device),)

    def forward(self, step: Step) -> Tensor:
        (teacher,) = self._teacher
        rate_hz = step.tokenizer.facts.sample_rate_hz or 0
        first = first_codes(step)
        to_teacher: Any = getattr(step.tokenizer, "transform", self.map)
        with without_autocast(step.signal.device):
            with torch.no_grad():
                wanted = at_rate_of(teacher(as_heard(step.signal, rate_hz)), first.shape[1])
            made = to_teacher(first.float())
            if made.shape[-1] != wanted.shape[-1]:
                raise ValueError(
                    f"the first codebook is mapped to width {made.shape[-1]}, the teacher has "
                    f"{wanted.shape[-1]}: take a tokenizer with this semantic_dim, or another teacher"
                )
            return semantic_distance(made, wanted, self.distance)


def first_codes(step: Step) -> Tensor:
    """(B, N, D) what the first codebook gave, with gradient to the encoder: of one codebook, of the first of
    residual ones, or of the semantic ones of a split quantizer."""
    quantized = step.quantized
    is_in_parts = isinstance(quantized, SplitQuantized | ResidualQuantized)
    return quantized.first if is_in_parts else quantized.latents  # pyright: ignore


def at_rate_of(features: Tensor, count: int) -> Tensor:
    """(B, M, D) of some seconds as (B, count, D) of the same seconds.

    Fewer: each is the mean of the features in its span. More: neighbours are interpolated.
    """
    if features.shape[1] == count:
        return features
    rows = features.transpose(1, 2)
    if features.shape[1] > count:
        return F.adaptive_avg_pool1d(rows, count).transpose(1, 2)
    return F.interpolate(rows, size=count, mode="linear", align_corners=False).transpose(1, 2)


def semantic_distance(made: Tensor, wanted: Tensor, distance: SemanticDistance = "d_axis") -> Tensor:
    """() distance of features (B, N, D).

    distance  "d_axis": mean of -log sigmoid(cosine) of each feature's course in time (SpeechTokenizer, Zhang
              et al. 2023, arXiv 2308.16692). "cosine": 1 less the mean cosine of the vectors (Mimi, Défossez
              et al. 2024, arXiv 2410.00037)
    """
    if distance not in get_args(SemanticDistance):
        raise ValueError(f"distance {distance!r}: expected {' or '.join(get_args(SemanticDistance))}")
    if distance == "d_axis":
        return -F.logsigmoid(F.cosine_similarity(made, wanted, dim=1)).mean()
    return 1 - F.cosine_similarity(made, wanted, dim=-1).mean()
