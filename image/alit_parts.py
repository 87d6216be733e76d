"""The two networks of ALIT: plain tensors in, plain tensors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.transformer import NORM_EPS, Block
from .distilled import DistilledDecoder, DistilledEncoder, free_vectors, initialise

if TYPE_CHECKING:
    from .alit import AlitConfig


class AlitEncoder(DistilledEncoder):
    """The rounds, one step at a time: each refines patches and latents, then latents are added.

    The state of a roll-out is x (B, 1 + h w + N, width): a class token, the patches, the N latents so far.

        x = encoder.first(images, encoder.features(images))
        x = encoder(x)
        x = encoder.grow(x, 1)
        x = encoder(x)
        latents = encoder.latents(x)
    """

    def __init__(self, config: AlitConfig) -> None:
        super().__init__(config)
        width, count = config.encoder.width, config.tokens_per_round
        self.places = config.side**2
        self.class_token = free_vectors(1, width)
        self.mask_token = free_vectors(1, 1, width)
        self.patch_positions = free_vectors(1 + self.places, width)
        self.latent_tokens = free_vectors(count, width)
        self.latent_positions = free_vectors(count, width)
        self.round_embedding = free_vectors(config.rounds, count, width)
        self.norm_in = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_round = nn.LayerNorm(width, eps=NORM_EPS)
        self.blocks = nn.ModuleList(Block(width, config.encoder.heads) for _ in range(config.encoder.layers))
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS)
        self.latent_out = nn.Linear(width, config.latent_dim)
        for part in (self.patch_embed, self.blocks, self.latent_out):
            part.apply(initialise)

    def first(self, images: Tensor, features: Tensor) -> Tensor:
        """The state before the first round, of images (B, 3, H, W) and their features (B, C, h, w)."""
        both = torch.cat([features, self.patch_embed(images)], dim=1).flatten(2).transpose(1, 2)
        class_token = self.class_token.expand(len(images), 1, -1)
        patches = torch.cat([class_token, F.normalize(both, dim=-1)], dim=1) + self.patch_positions
        return self.norm_in(torch.cat([patches, self._new_latents(0, len(images))], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """One round on the state."""
        for block in self.blocks:
            x = block(x)
        return x

    def latents(self, x: Tensor) -> Tensor:
        """What the latents of a state are by now: (B, N, D)."""
        return self.latent_out(self.norm_out(x[:, 1 + self.places :]))

    def grow(self, x: Tensor, index: int, drop: Tensor | None = None) -> Tensor:
        """The state before round `index`, from 1 on, with new latents.

        drop  (B, h w) bool, patches that nobody needs to look at any more: a mask token takes their place
        """
        patches = x[:, 1 : 1 + self.places]
        if drop is not None:
            patches = torch.where(drop[..., None], self.patch_positions[1:] + self.mask_token, patches)
        latents = [x[:, 1 + self.places :], self._new_latents(index, len(x))]
        return self.norm_round(torch.cat([x[:, :1], patches, *latents], dim=1))

    def _new_latents(self, index: int, batch: int) -> Tensor:
        latents = self.latent_tokens + self.latent_positions + self.round_embedding[index]
        return latents.expand(batch, -1, -1)


class AlitDecoder(DistilledDecoder):
    """See `DistilledDecoder`; a class token stands before the places."""

    def __init__(self, config: AlitConfig) -> None:
        super().__init__(config, config.slots)
        self.class_token = free_vectors(1, config.decoder.width)
        self.patch_positions = free_vectors(1 + config.side**2, config.decoder.width)

    def places(self) -> Tensor:
        masks = self.mask_token[0].expand(self.side**2, -1)
        return torch.cat([self.class_token, masks]) + self.patch_positions
