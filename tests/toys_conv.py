"""The convolutional families at a size for the contract test: 4 pixels a token, images of any size."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tokenzoo.image.conv_parts import ConvConfig, LevelsConfig
from tokenzoo.image.elm_bae import ElmBae, ElmBaeConfig
from tokenzoo.image.ibq import Ibq, IbqConfig
from tokenzoo.image.ldm_vae import LdmVae, LdmVaeConfig
from tokenzoo.image.llamagen import LlamaGenConfig, LlamaGenVq
from tokenzoo.image.maskgit import PixelDecoderConfig
from tokenzoo.image.maskgit_vqgan import MaskgitVqgan, MaskgitVqganConfig
from tokenzoo.image.open_magvit2 import OpenMagvit2, OpenMagvit2Config
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.tokenbridge import TokenBridge, TokenBridgeConfig

AS_IS = ImagePreprocess(size=None)
LEVELS = LevelsConfig(channels=32, multipliers=(1, 1, 2), blocks=1)
CONV = ConvConfig(
    channels=32, multipliers=(1, 1, 2), blocks=1, encoder_attention=(2,), decoder_attention=(2,)
)


@dataclass(frozen=True)
class SmallLdmVaeConfig(LdmVaeConfig):
    latent_dim: int = 3
    conv: ConvConfig = CONV
    preprocess: ImagePreprocess = AS_IS


class SmallLdmVae(LdmVae):
    config_type = SmallLdmVaeConfig


@dataclass(frozen=True)
class SmallTokenBridgeConfig(TokenBridgeConfig):
    base_type: str = "ldm-vae"
    base: dict = field(default_factory=lambda: SmallLdmVaeConfig().to_dict())
    levels: int = 16


class SmallTokenBridge(TokenBridge):
    config_type = SmallTokenBridgeConfig


@dataclass(frozen=True)
class SmallLlamaGenConfig(LlamaGenConfig):
    num_codes: int = 32
    latent_dim: int = 3
    features: int = 8
    conv: ConvConfig = CONV
    preprocess: ImagePreprocess = AS_IS


class SmallLlamaGen(LlamaGenVq):
    config_type = SmallLlamaGenConfig


SMALL_NETWORK = PixelDecoderConfig(channels=32, multipliers=(1, 1, 2), blocks=1, latent_dim=4)


@dataclass(frozen=True)
class SmallMaskgitVqganConfig(MaskgitVqganConfig):
    num_codes: int = 32
    network: PixelDecoderConfig = SMALL_NETWORK
    preprocess: ImagePreprocess = AS_IS


class SmallMaskgitVqgan(MaskgitVqgan):
    """With codes as wide apart as the latents."""

    config_type = SmallMaskgitVqganConfig

    def __init__(self, config: SmallMaskgitVqganConfig) -> None:
        super().__init__(config)
        with torch.no_grad():
            self.quantizer.codebook.normal_(std=0.3)


@dataclass(frozen=True)
class SmallIbqConfig(IbqConfig):
    num_codes: int = 32
    latent_dim: int = 4
    features: int = 8
    conv: ConvConfig = CONV
    preprocess: ImagePreprocess = AS_IS


class SmallIbq(Ibq):
    config_type = SmallIbqConfig


@dataclass(frozen=True)
class SmallOpenMagvit2Config(OpenMagvit2Config):
    bits: int = 5
    conv: LevelsConfig = LEVELS
    preprocess: ImagePreprocess = AS_IS


class SmallOpenMagvit2(OpenMagvit2):
    config_type = SmallOpenMagvit2Config


@dataclass(frozen=True)
class SmallElmBaeConfig(ElmBaeConfig):
    bits: int = 6
    features: int = 32
    conv: LevelsConfig = LEVELS
    attention: tuple[int, ...] = (2,)
    preprocess: ImagePreprocess = AS_IS


class SmallElmBae(ElmBae):
    config_type = SmallElmBaeConfig
