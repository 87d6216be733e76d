"""The KL autoencoder of latent diffusion (Rombach et al. 2021, arXiv 2112.10752), as MAR trained it: KL-16.

MAR (Li et al. 2024, arXiv 2406.11838) generates in its latents times 0.2325, TokenBridge quantizes them, KARL
and ALIT build on it. Source: YuqingWang1029/TokenBridge, models/vae.py (after LTH14/mar).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.gaussian import GaussianPosterior
from .conv_parts import ConvConfig, ConvDecoder, ConvEncoder
from .grid_tokenizer import GridTokenizer
from .image_tokenizer import KL_WEIGHT
from .preprocess import ImagePreprocess


@dataclass(frozen=True)
class LdmVaeConfig(Config):
    """One KL autoencoder.

    latent_dim  D, width of a token
    conv        sizes of the networks
    preprocess  how a picture gets the size the model was trained at
    """

    tokenizer_type: ClassVar[str] = "ldm-vae"

    latent_dim: int = 16
    conv: ConvConfig = field(default_factory=lambda: ConvConfig(encoder_attention=(4,)))
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(resize="halving"))

    def __post_init__(self) -> None:
        check_range("latent_dim", self.latent_dim, 1, 4096)

    @property
    def stride(self) -> int:
        return self.conv.stride

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="ldm-vae",
            modality="image",
            channels=3,
            latent_dim=self.latent_dim,
            draws_noise=True,
        )


class LdmVae(GridTokenizer):
    """Images as a grid of float tokens: the mean of the posterior, or with a generator a sample of it."""

    config_type = LdmVaeConfig
    config: LdmVaeConfig

    def __init__(self, config: LdmVaeConfig) -> None:
        super().__init__(config)
        self.quantizer = GaussianPosterior(config.latent_dim)
        moments = self.quantizer.dim_in
        self.encoder = ConvEncoder(config.conv, moments, moments)
        self.decoder = ConvDecoder(config.conv, config.latent_dim, config.latent_dim)

    @property
    def loss_defaults(self) -> dict[str, float]:
        return {"quantizer": KL_WEIGHT}
