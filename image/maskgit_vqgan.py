"""MaskGIT's VQGAN (Chang et al. 2022, arXiv 2202.04200): a grid of ids from 1024 codes.

It teaches the first stage of TiTok, and paints in the second. Source: bytedance/1d-tokenizer 942a96f,
modeling/modules/maskgit_vqgan.py, after open-muse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.vector_quantizer import VectorQuantizer
from .grid_tokenizer import GridTokenizer
from .maskgit import PixelDecoder, PixelDecoderConfig
from .maskgit_encoder import PixelEncoder
from .preprocess import ImagePreprocess


@dataclass(frozen=True)
class MaskgitVqganConfig(Config):
    """One VQGAN of MaskGIT.

    num_codes          K, size of the codebook
    commitment_weight  weight of the commitment loss
    network            sizes of both networks; its `latent_dim` is the width of a code
    preprocess         how a picture gets the size the model was trained at
    """

    tokenizer_type: ClassVar[str] = "maskgit-vqgan"

    num_codes: int = 1024
    commitment_weight: float = 0.25
    network: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)
    preprocess: ImagePreprocess = field(default_factory=ImagePreprocess)

    def __post_init__(self) -> None:
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)

    @property
    def stride(self) -> int:
        return self.network.upscaling

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="maskgit-vqgan",
            modality="image",
            channels=3,
            codebook_sizes=(self.num_codes,),
            latent_dim=self.network.latent_dim,
        )


class MaskgitVqgan(GridTokenizer):
    """Images as a grid of ids, row by row; the networks know pixels in [0, 1]."""

    config_type = MaskgitVqganConfig
    config: MaskgitVqganConfig
    symmetric = False

    def __init__(self, config: MaskgitVqganConfig) -> None:
        super().__init__(config)
        self.encoder = PixelEncoder(config.network)
        self.quantizer = VectorQuantizer(
            config.num_codes, config.network.latent_dim, commitment_weight=config.commitment_weight
        )
        self.decoder = PixelDecoder(config.network)
