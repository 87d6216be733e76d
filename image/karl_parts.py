"""The two networks of KARL: plain tensors in, plain tensors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.transformer import NORM_EPS, Transformer
from .distilled import DistilledDecoder, DistilledEncoder, free_vectors, initialise

if TYPE_CHECKING:
    from .karl import KarlConfig

# Mean absolute errors that the encoder knows how to aim at; the official code hard-codes them.
ERRORS = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.09, 0.1),
    *(0.12, 0.14, 0.16, 0.18, 0.2, 0.24, 0.28, 0.32, 0.38),
)
HALTING_WIDTH = 512


class KarlEncoder(DistilledEncoder):
    """Images to latents, and a vote of each latent on whether it is needed.

    images   (B, 3, H, W) float in [0, 1]
    error    which of ERRORS to aim at, by its place there; one, or (B,) int64
    budget   N, how many latents to try with
    noise    see `DistilledEncoder.features`
    returns  (B, N, D) float latents, and (B, N) float logits of halting
    """

    def __init__(self, config: KarlConfig) -> None:
        super().__init__(config)
        width = config.encoder.width
        self.side = config.side
        self.patch_positions = position_table(width, config.table_side)
        self.latent_tokens = free_vectors(config.max_tokens, width)
        self.error_tokens = nn.Parameter(torch.tensor(ERRORS)[:, None].repeat(1, width))
        self.transformer = Transformer(config.encoder)
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS)
        self.latent_out = nn.Linear(width, config.latent_dim)
        self.norm_halt = nn.LayerNorm(width, eps=NORM_EPS)
        self.halting = nn.Sequential(nn.Linear(width, HALTING_WIDTH), nn.Tanh(), nn.Linear(HALTING_WIDTH, 1))
        for part in (self.patch_embed, self.transformer, self.latent_out, self.halting):
            part.apply(initialise)

    def forward(
        self, images: Tensor, error: int | Tensor, budget: int, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        patches = self.patches(images, noise)
        batch, count, _ = patches.shape
        aims = self.error_tokens[error]
        aim = aims[:, None] if aims.ndim > 1 else aims.expand(batch, 1, -1)
        latents = self.latent_tokens[:budget].expand(batch, -1, -1)
        patches = patches + positions_of(self.patch_positions, self.side)
        latents = self.transformer(torch.cat([aim, patches, latents], dim=1))[:, 1 + count :]
        return self.latent_out(self.norm_out(latents)), self.halting(self.norm_halt(latents)).squeeze(-1)

    def patches(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Embedded pixels and the autoencoder's features side by side: (B, h w, width), row by row."""
        both = torch.cat([self.patch_embed(images), self.features(images, noise)], dim=1)
        return both.flatten(2).transpose(1, 2)


class KarlDecoder(DistilledDecoder):
    """See `DistilledDecoder`; latents that halted are left out, as if they had never been there.

    The official decoder keeps their places and masks them, as queries and as keys: nobody reads them either.
    """

    def __init__(self, config: KarlConfig) -> None:
        super().__init__(config, config.max_tokens)
        self.patch_positions = position_table(config.decoder.width, config.table_side)

    def places(self) -> Tensor:
        return self.mask_token[0] + positions_of(self.patch_positions, self.side)


def error_index(max_error: float) -> int:
    """The first of ERRORS that is no less than `max_error`, or else the last."""
    return next((index for index, known in enumerate(ERRORS) if known >= max_error), len(ERRORS) - 1)


def position_table(width: int, side: int) -> nn.Parameter:
    """A position for each place of a grid larger than any in use: (width, side, side)."""
    return nn.Parameter(width**-0.5 * torch.randn(width, side, side))


def positions_of(table: Tensor, side: int) -> Tensor:
    """The entries (width, S, S) nearest to the places of a grid, row by row: (side * side, width)."""
    return F.interpolate(table[None], size=(side, side), mode="nearest")[0].flatten(1).T
