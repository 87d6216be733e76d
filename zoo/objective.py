"""What training asks of a tokenizer: terms of a loss, each with a weight, each in a class of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from .chance import Chance
    from .neural import NeuralTokenizer
    from .quantizer import Quantized


@dataclass(frozen=True, eq=False)
class Step:
    """One batch of training, as an objective sees it.

    signal     the batch, as the tokenizer takes it
    rebuilt    what the tokenizer made of it, unclamped, with gradient
    quantized  the quantizer's result on the way
    tokenizer  the one that learns, in training mode
    lengths    (B,) int64 how much of each item was kept, or None
    captions   one text an item, or None
    generator  for what an objective draws
    """

    signal: Tensor
    rebuilt: Tensor
    quantized: Quantized
    tokenizer: NeuralTokenizer
    lengths: Tensor | None = None
    captions: tuple[str, ...] | None = None
    generator: Chance = None


class Objective(nn.Module, ABC):
    """One term of the loss; parameters of its own learn with the tokenizer and are not saved with it.

    name          under which it is logged
    weight        factor in the sum
    is_of_signal  it reaches the tokenizer through `Step.rebuilt` alone, so that a balancer can weigh it there
    teaches       parts of the tokenizer, of its `untaught` ones, that learn from this term

    Frozen networks are read in `prepare` and kept in a tuple, out of checkpoints.
    """

    name: str
    is_of_signal: bool = True
    teaches: tuple[str, ...] = ()

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"weight of {self.name} is {weight}: expected at least 0")
        self.weight = weight

    def prepare(self, module: Any) -> None:
        """Called before the first step, when the training module is on its device."""

    def release(self) -> None:
        """Called after the last step: what watched the tokenizer lets it go."""

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """() float, unweighted."""


class QuantizerLoss(Objective):
    """What the quantizer itself asks for: commitment, codebook, entropy, divergence."""

    name = "quantizer"
    is_of_signal = False

    def forward(self, step: Step) -> Tensor:
        return step.quantized.loss
