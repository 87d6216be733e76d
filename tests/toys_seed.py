"""SEED-2 at a size for the contract test, without a pipeline to paint with."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.seed import QFormerSize, Seed, SeedConfig, VisionSize
from tokenzoo.image.unclip import UnclipConfig


@dataclass(frozen=True, kw_only=True)
class SmallSeedConfig(SeedConfig):
    num_tokens: int = 6
    num_codes: int = 40
    latent_dim: int = 4
    vision: VisionSize = field(default_factory=lambda: VisionSize(16, 2, 2, 24, 8))
    qformer: QFormerSize = field(default_factory=lambda: QFormerSize(12, 3, 2, 24))
    decoder_layers: int = 1
    narrowing: tuple[int, int, int] = (8, 6, 4)
    embedding_dim: int = 32
    unclip: UnclipConfig | None = None
    image_size: int = 16
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(size=16, resize="squash"))


class SmallSeed(Seed):
    """With codes as wide apart as the latents."""

    config_type = SmallSeedConfig

    def __init__(self, config: SmallSeedConfig) -> None:
        super().__init__(config)
        with torch.no_grad():
            self.quantizer.codebook.normal_(std=0.3)
