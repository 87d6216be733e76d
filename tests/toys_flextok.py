"""FlexTok at a size for the contract test: 6 tokens an image of 16 x 16 pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tokenzoo.image.diffusers_vae import AutoencoderSize
from tokenzoo.image.flextok import FlexTok, FlexTokConfig
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.zoo.transformer import TransformerSize

SIZE = TransformerSize(width=32, layers=2, heads=2)
VAE = AutoencoderSize(latent_dim=4, channels=(16, 16), blocks=1, groups=8)


@dataclass(frozen=True)
class SmallFlexTokConfig(FlexTokConfig):
    encoder: TransformerSize = SIZE
    decoder: TransformerSize = SIZE
    num_tokens: int = 6
    levels: tuple[int, ...] = (5, 4, 3)
    image_size: int = 16
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(size=16))
    vae: AutoencoderSize = VAE
    position_grid: int = 5
    time_waves: int = 8


class SmallFlexTok(FlexTok):
    """Random weights that let every token be seen: official ones start from zero where the time modulates."""

    config_type = SmallFlexTokConfig
    config: SmallFlexTokConfig

    def __init__(self, config: SmallFlexTokConfig) -> None:
        super().__init__(config)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2 and not name.startswith("vae."):
                    parameter.normal_(std=parameter.shape[1] ** -0.5)
