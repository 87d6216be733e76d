"""Resynthesis distillation (LM-SPT, arXiv 2506.16738): meaning is what a speech recognizer still hears.

Speech is decoded from the semantic codebook alone, and the features that a frozen recognizer has of it are
drawn to those it has of the original. Source of the method: kakao/lmspt, model_codec/teacher/whisper.py,
which takes the mean squared error after the last layer of Whisper large-v3, at weight 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.precision import without_autocast
from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, Step
from ..zoo.quantizer import Quantized
from ..zoo.split_quantizer import SplitQuantized
from .asr_encoder import SAMPLE_RATE_HZ, AsrEncoder
from .audio_tokenizer import AudioTokenizer
from .preprocess import resample

FeatureDistance = Literal["l2", "l1", "cosine"]


class ResynthesisDistillation(Objective):
    """Distance of a frozen recognizer's features of the original and of its semantic ids, decoded.

    asr_encoder  where it is read when training starts: see `AsrEncoder.from_whisper`
    layers       which features, counted from 1; () for those after the last layer
    distance     see `feature_distance`

    For tokenizers whose quantizer splits (`SplitQuantized`): LM-SPT and Mimi. A second decoding a step.
    """

    name = "resynthesis"
    is_of_signal = False

    def __init__(
        self, weight: float, asr_encoder: str | None, layers: Sequence[int], distance: FeatureDistance
    ) -> None:
        super().__init__(weight)
        if weight and asr_encoder is None:
            raise ValueError(
                "resynthesis needs asr_encoder: a folder or Hub id of a Whisper, e.g. openai/whisper-tiny"
            )
        self.source = asr_encoder
        self.layers = tuple(layers)
        self.distance: FeatureDistance = distance
        # In a tuple it is no submodule: its weights stay out of checkpoints and out of `parameters()`.
        self._encoder: tuple[AsrEncoder, ...] = ()

    def prepare(self, module: Any) -> None:
        """Reads the recognizer; CheckpointError where it is not."""
        if self.source is not None:
            self._encoder = (AsrEncoder.from_whisper(self.source).to(module.device),)

    def release(self) -> None:
        """Lets the recognizer go."""
        self._encoder = ()

    def forward(self, step: Step) -> Tensor:
        (encoder,) = self._encoder
        sound = resynthesis(step.tokenizer, step.quantized, step.signal.shape[-1])
        rate_hz = step.tokenizer.facts.sample_rate_hz or SAMPLE_RATE_HZ
        # In full precision, as officially: rounded features would be a distance of their own.
        with without_autocast(sound.device):
            with torch.no_grad():
                wanted = encoder(as_heard(step.signal, rate_hz), self.layers)
            made = encoder(as_heard(sound, rate_hz), self.layers)
        return feature_distance(made, wanted, self.distance).mean()


def resynthesis(tokenizer: NeuralTokenizer, quantized: Quantized, samples: int) -> Tensor:
    """(B, C, samples) what the decoder makes of the semantic codes alone, unclamped, with gradient.

    quantized  of a training pass on a stacked batch; TypeError unless its quantizer splits
    """
    if not isinstance(quantized, SplitQuantized) or not isinstance(tokenizer, AudioTokenizer):
        raise TypeError(
            f"{tokenizer.facts.name} has no semantic codebooks of its own: resynthesis distillation takes a "
            "tokenizer whose quantizer splits, such as LM-SPT or Mimi"
        )
    return tokenizer.decode_latents(tokenizer.tokens_of(quantized.first, samples))


def as_heard(sound: Tensor, rate_hz: int) -> Tensor:
    """(B, S) float32 at 16 kHz, the mean of the channels of (B, C, S)."""
    return resample(sound.float().mean(dim=1), rate_hz, SAMPLE_RATE_HZ)


def feature_distance(
    made: Sequence[Tensor], wanted: Sequence[Tensor], distance: FeatureDistance = "l2"
) -> Tensor:
    """(B,) distance of features (B, N, D), mean over layers.

    distance  "l2": mean squared difference; "l1": mean absolute one; "cosine": 1 less the mean cosine of the
              vectors
    """
    if distance not in get_args(FeatureDistance):
        raise ValueError(f"distance {distance!r}: expected {', '.join(get_args(FeatureDistance))}")
    terms = []
    for mine, other in zip(made, wanted, strict=True):
        if distance == "cosine":
            terms.append(1 - F.cosine_similarity(mine, other, dim=-1).mean(dim=1))
        else:
            difference = (mine - other).flatten(1)
            terms.append((difference.square() if distance == "l2" else difference.abs()).mean(dim=1))
    return torch.stack(terms).mean(dim=0)
