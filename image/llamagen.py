"""LlamaGen's VQ (Sun et al. 2024, arXiv 2406.06525): a grid of ids from a codebook of 8 dimensions.

Source: FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.vector_quantizer import VectorQuantizer
from .conv_parts import ConvConfig, ConvDecoder, ConvEncoder
from .grid_tokenizer import GridTokenizer
from .preprocess import ImagePreprocess


@dataclass(frozen=True)
class LlamaGenConfig(Config):
    """One VQ of LlamaGen.

    num_codes          K, size of the codebook
    latent_dim         D, width of a code
    features           width at the bottleneck before and after the codes
    l2                 the codebook compares directions only, and its entries are used at length 1
    commitment_weight  weight of the commitment loss
    conv               sizes of the networks
    preprocess         how a picture gets the size the model was trained at
    """

    tokenizer_type: ClassVar[str] = "llamagen"

    num_codes: int = 16384
    latent_dim: int = 8
    features: int = 256
    l2: bool = True
    commitment_weight: float = 0.25
    conv: ConvConfig = field(
        default_factory=lambda: ConvConfig(encoder_attention=(4,), decoder_attention=(4,))
    )
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(resize="halving"))

    def __post_init__(self) -> None:
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("latent_dim", self.latent_dim, 1, 4096)
        check_range("features", self.features, 1, 4096)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)

    @property
    def stride(self) -> int:
        return self.conv.stride

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="llamagen",
            modality="image",
            channels=3,
            codebook_sizes=(self.num_codes,),
            latent_dim=self.latent_dim,
        )


class LlamaGenVq(GridTokenizer):
    """Images as a grid of ids, row by row."""

    config_type = LlamaGenConfig
    config: LlamaGenConfig

    def __init__(self, config: LlamaGenConfig) -> None:
        super().__init__(config)
        self.encoder = ConvEncoder(config.conv, config.features, config.latent_dim)
        self.quantizer = VectorQuantizer(
            config.num_codes,
            config.latent_dim,
            l2=config.l2,
            normalise_lookup=config.l2,
            commitment_weight=config.commitment_weight,
        )
        self.decoder = ConvDecoder(config.conv, config.features, config.latent_dim, finest_first=False)
