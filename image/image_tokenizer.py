"""What image tokenizers share: the signal's range, extents in pixels, and clamping at the end of decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..zoo.neural import NeuralTokenizer
from ..zoo.optional import require
from ..zoo.tokens import Tokens
from .preprocess import ImagePreprocess

if TYPE_CHECKING:
    from .training import ImageTraining

# How far resampling may overshoot the range before it is taken for a mistake.
RANGE_SLACK = 1e-3
# Of the divergence of continuous tokenizers, a sum over tokens and features: what TiTok and LDM train with.
KL_WEIGHT = 1e-6


class ImageTokenizer(NeuralTokenizer):
    """Images of one square size; the configuration has `preprocess: ImagePreprocess` and `image_size`."""

    @property
    def preprocess(self) -> ImagePreprocess:
        return self.config.preprocess

    @property
    def rebuilds_pixels(self) -> bool:
        """Whether `forward` gives images; the others train on terms of their own."""
        return True

    @property
    def loss_defaults(self) -> dict[str, float]:
        """Weights of `LossWeights` that this family trains with unless told otherwise; others are 1."""
        return {}

    @property
    def term_defaults(self) -> tuple[str, ...]:
        """Further terms that this family trains with unless told otherwise; see image/objectives.py."""
        return ()

    def check_signal(self, signal: Tensor) -> None:
        """float (B, 3, size, size) in [0, 1], finite."""
        size = self.config.image_size
        if signal.ndim != 4 or tuple(signal.shape[1:]) != (3, size, size):
            raise ValueError(
                f"images have shape {tuple(signal.shape)}: {self.facts.name} takes (B, 3, {size}, {size}); "
                "pass each picture through tokenizer.preprocess"
            )
        check_range(signal)

    def num_tokens(self, extent: Sequence[int]) -> int:
        """The model's own length: every image is `image_size` pixels square."""
        size = self.config.image_size
        if tuple(extent) != (size, size):
            raise ValueError(f"extent {tuple(extent)}: {self.facts.name} takes ({size}, {size})")
        return self.facts.max_tokens or 0

    def default_extents(self, lengths: Tensor) -> Tensor:
        """(B, 2): the model's image size."""
        return torch.full((len(lengths), 2), self.config.image_size, dtype=torch.int64, device=lengths.device)

    def finish_signal(self, signal: Tensor, tokens: Tokens) -> Tensor:
        """float32 in [0, 1]; ValueError for NaN or infinity, which no clamp mends."""
        if not bool(signal.isfinite().all()):
            raise ValueError(
                f"{self.facts.name} decodes these tokens to NaN or infinity; give values such as encode "
                "makes, or load it with dtype=torch.float32 where half precision overflows"
            )
        return signal.float().clamp(0, 1)

    def finetune(self, **hyperparameters: Any) -> ImageTraining:
        """An `ImageTraining` with these hyperparameters, started from a float32 copy of the weights."""
        require("lightning.pytorch", "train")
        from ..zoo.trainee import finetuned
        from .training import ImageTraining

        return finetuned(ImageTraining, self, hyperparameters)


def check_range(signal: Tensor) -> None:
    """TypeError or ValueError unless a float image batch is finite and in [0, 1]."""
    if not signal.is_floating_point():
        raise TypeError(
            f"images are {signal.dtype}: expected floats in [0, 1]; tokenizer.preprocess makes them"
        )
    if not signal.numel():
        return
    low, high = float(signal.detach().min()), float(signal.detach().max())
    # NaN fails every comparison, so it is caught here too.
    if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):
        raise ValueError(
            f"images hold {low:g} ... {high:g}: expected finite floats in [0, 1]; divide by 255 first"
        )
