"""Weights of losses that mean what they say: the share of the gradient that each one gives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .collective import mean_over_ranks, num_ranks

_TINY = 1e-12


class Balancer(nn.Module):
    """Scales the gradient of each loss at the decoded signal, so that its size is its share of the weights.

    weights     of the losses by name
    total_norm  length of the whole gradient an item, when all losses point the same way
    decay       of the running mean of each gradient's length

    `forward(losses, signal)` is a scalar whose gradient at the signal is
        total_norm * sum_i  weight_i / (sum of weights) * g_i / mean |g_i|,
    whatever the losses' own scales are. Source: EnCodec (arXiv 2210.13438), equation 5.
    """

    norms: Tensor
    seen: Tensor

    def __init__(
        self, weights: Mapping[str, float], *, total_norm: float = 1.0, decay: float = 0.999
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: expected from 0 to below 1")
        if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ValueError(f"weights {dict(weights)}: expected numbers from 0, one of them above")
        total = sum(weights.values())
        self.shares = {name: weight / total for name, weight in weights.items()}
        self.total_norm = total_norm
        self.decay = decay
        # Sums that fade, and how much weight they hold: their quotient is unbiased from the first step on.
        self.register_buffer("norms", torch.zeros(len(weights), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(len(weights), dtype=torch.float64))

    def forward(self, losses: Mapping[str, Tensor], signal: Tensor) -> Tensor:
        """() float: the balanced sum of these losses, which must be scalars that depend on `signal`."""
        if unknown := set(losses) - set(self.shares):
            raise ValueError(f"losses {sorted(unknown)} have no weight; known: {', '.join(self.shares)}")
        total = torch.zeros_like(signal)
        for place, (name, share) in enumerate(self.shares.items()):
            if name not in losses:
                continue
            (gradient,) = torch.autograd.grad(losses[name], signal, retain_graph=True)
            # Of the mean over the items of all ranks.
            gradient = gradient / num_ranks()
            norm = self._running_norm(place, gradient)
            total += self.total_norm * share / norm.clamp(min=_TINY) * gradient
        # A sum over items, where DistributedDataParallel takes the mean over ranks.
        return (total.detach() * signal).sum() * num_ranks()

    @torch.no_grad()
    def _running_norm(self, place: int, gradient: Tensor) -> Tensor:
        norm = mean_over_ranks(gradient.float().flatten(1).norm(dim=1).mean().double())
        self.norms[place] = self.decay * self.norms[place] + (1 - self.decay) * norm
        self.seen[place] = self.decay * self.seen[place] + (1 - self.decay)
        return (self.norms[place] / self.seen[place]).float()
