"""Stands in for a language model: reads a square of visual tokens, and says the colour of 16 cells."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F


class PictureReader(nn.Module):
    """What lies at each of 4 x 4 cells: (B, n * n, D) float -> (B, 16)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cells = nn.Parameter(torch.randn(16, dim))
        self.answer = nn.Sequential(nn.Linear(2 * dim, 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, values: Tensor) -> Tensor:
        side = round(values.shape[1] ** 0.5)
        seen = F.interpolate(values.mT.unflatten(2, (side, side)), size=(4, 4)).flatten(2).mT
        return self.answer(torch.cat([seen, self.cells.expand_as(seen)], dim=-1))[..., 0]


def draw_cells(generator: Generator, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 16, 16) of cells, black or white by the toss of a coin, and the tosses (B, 16)."""
    cells = torch.randint(2, (batch, 1, 4, 4), generator=generator).float()
    return F.interpolate(cells, scale_factor=4).repeat(1, 3, 1, 1), cells.flatten(1)
