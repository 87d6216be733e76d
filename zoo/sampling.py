"""Steps on the logits of `transformers.generate`: legal ids alone, and draws from torch generators."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from .chance import Chance
from .optional import require

LogitsProcessor = require("transformers", "transformers").LogitsProcessor


class LegalTurns(LogitsProcessor):
    """Leaves only the ids of the codebook whose turn it is; the others get -inf.

    turns   the range of each codebook, in the order of a token's ids
    prompt  ids before the first turn
    """

    def __init__(self, turns: tuple[range, ...], prompt: int) -> None:
        self.turns = turns
        self.prompt = prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        turn = self.turns[(input_ids.shape[1] - self.prompt) % len(self.turns)]
        legal = torch.full_like(scores, -torch.inf)
        legal[:, turn.start : turn.stop] = scores[:, turn.start : turn.stop]
        return legal


class GumbelChoice(LogitsProcessor):
    """Adds Gumbel noise, after which the largest score is a draw from softmax(scores).

    `generate` draws from torch's own generator alone; this way a draw comes from the one that is passed in.
    A list has one an item.
    """

    def __init__(self, generator: Chance) -> None:
        self.generator = generator

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.generator is None or isinstance(self.generator, Generator):
            noise = _exponential(scores.shape, self.generator)
        else:
            noise = torch.stack([_exponential(scores.shape[1:], each) for each in self.generator])
        return scores - noise.log().to(scores.device)


def _exponential(shape: torch.Size, generator: Generator | None) -> Tensor:
    """Standard exponential variates; minus their logarithm is Gumbel. Never 0 in torch."""
    device = None if generator is None else generator.device
    return torch.empty(shape, device=device).exponential_(generator=generator)
