"""KARL and ALIT at a size for the contract test, over a VQGAN and over a VAE, discrete and continuous.

Their weights are spread wide enough for latents to halt, patches to be masked and lengths to differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from tokenzoo.image.alit import Alit, AlitConfig
from tokenzoo.image.conv_parts import ConvConfig
from tokenzoo.image.distilled import VaeBase, VqganBase
from tokenzoo.image.karl import Karl, KarlConfig
from tokenzoo.image.maskgit import PixelDecoderConfig
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.zoo.transformer import TransformerSize

SIZE = TransformerSize(width=32, layers=2, heads=2)
SIXTEEN = ImagePreprocess(size=16)
VQGAN = VqganBase(
    codes=3, network=PixelDecoderConfig(channels=32, multipliers=(1, 2, 1), blocks=1, latent_dim=6)
)
VAE = VaeBase(latent_dim=5, network=ConvConfig(channels=32, multipliers=(1, 1, 1), blocks=1))


@dataclass(frozen=True, kw_only=True)
class SmallKarlConfig(KarlConfig):
    encoder: TransformerSize = SIZE
    decoder: TransformerSize = SIZE
    latent_dim: int = 4
    num_codes: int | None = 40
    vqgan: VqganBase | None = VQGAN
    image_size: int = 16
    patch_size: int = 4
    preprocess: ImagePreprocess = SIXTEEN
    max_tokens: int = 14
    budget: int = 10
    budget_step: int = 2
    table_side: int = 6


class SmallKarl(Karl):
    config_type = SmallKarlConfig

    def __init__(self, config: SmallKarlConfig) -> None:
        super().__init__(config)
        spread(self)
        with torch.no_grad():
            self.encoder.halting[2].weight.mul_(16)
            self.encoder.halting[2].bias.fill_(-1)


@dataclass(frozen=True, kw_only=True)
class SmallKarlVaeConfig(SmallKarlConfig):
    tokenizer_type: ClassVar[str] = "small-karl-vae"

    num_codes: int | None = None
    vqgan: VqganBase | None = None
    vae: VaeBase | None = VAE


class SmallKarlVae(SmallKarl):
    config_type = SmallKarlVaeConfig


@dataclass(frozen=True, kw_only=True)
class SmallAlitConfig(AlitConfig):
    encoder: TransformerSize = SIZE
    decoder: TransformerSize = SIZE
    latent_dim: int = 4
    num_codes: int | None = 40
    vqgan: VqganBase | None = VQGAN
    image_size: int = 16
    patch_size: int = 4
    preprocess: ImagePreprocess = SIXTEEN
    tokens_per_round: int = 3
    rounds: int = 4
    slots: int = 16
    mask_threshold: float | None = 0.35


class SmallAlit(Alit):
    config_type = SmallAlitConfig

    def __init__(self, config: SmallAlitConfig) -> None:
        super().__init__(config)
        spread(self)


@dataclass(frozen=True, kw_only=True)
class SmallAlitVaeConfig(SmallAlitConfig):
    tokenizer_type: ClassVar[str] = "small-alit-vae"

    num_codes: int | None = None
    vqgan: VqganBase | None = None
    vae: VaeBase | None = VAE
    mask_threshold: float | None = None


class SmallAlitVae(SmallAlit):
    config_type = SmallAlitVaeConfig


def spread(model: nn.Module) -> None:
    """Random weights that make every output depend visibly on every input."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "quantizer" not in name:
                fan = parameter[0].numel() if parameter.ndim > 1 else 25
                parameter.add_(torch.randn_like(parameter) * fan**-0.5)
