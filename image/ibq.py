"""IBQ (Shi et al. 2024, arXiv 2412.02692): a VQGAN whose whole codebook learns at every step.

A token is the code with the largest dot product, neither the nearest nor the most aligned.
Source: TencentARC/SEED-Voken, src/IBQ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.ibq import IndexBackpropagationQuantizer
from .conv_parts import ConvConfig, ConvDecoder, ConvEncoder
from .grid_tokenizer import GridTokenizer
from .preprocess import ImagePreprocess


@dataclass(frozen=True)
class IbqConfig(Config):
    """One IBQ tokenizer; the weights are those of `IndexBackpropagationQuantizer`.

    num_codes            K, size of the codebook
    latent_dim           D, width of a code
    features             width at the bottleneck before and after the codes
    entropy_temperature  sharpness of the probabilities that the entropy terms measure
    conv                 sizes of the networks
    preprocess           how a picture gets the size the model was trained at
    """

    tokenizer_type: ClassVar[str] = "ibq"

    num_codes: int = 16384
    latent_dim: int = 256
    features: int = 256
    commitment_weight: float = 0.25
    sample_entropy_weight: float = 0.05
    code_entropy_weight: float = 0.05
    entropy_temperature: float = 0.01
    conv: ConvConfig = field(
        default_factory=lambda: ConvConfig(blocks=4, encoder_attention=(4,), decoder_attention=(4,))
    )
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(interpolation="bilinear"))

    def __post_init__(self) -> None:
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("latent_dim", self.latent_dim, 1, 4096)
        check_range("features", self.features, 1, 4096)
        for name in ("commitment_weight", "sample_entropy_weight", "code_entropy_weight"):
            check_range(name, getattr(self, name), 0, 1e6)
        check_range("entropy_temperature", self.entropy_temperature, 1e-6, 1e6)

    @property
    def stride(self) -> int:
        return self.conv.stride

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="ibq",
            modality="image",
            channels=3,
            codebook_sizes=(self.num_codes,),
            latent_dim=self.latent_dim,
        )


class Ibq(GridTokenizer):
    """Images as a grid of ids, row by row."""

    config_type = IbqConfig
    config: IbqConfig

    def __init__(self, config: IbqConfig) -> None:
        super().__init__(config)
        self.encoder = ConvEncoder(config.conv, config.features, config.latent_dim)
        self.quantizer = IndexBackpropagationQuantizer(
            config.num_codes,
            config.latent_dim,
            commitment_weight=config.commitment_weight,
            sample_entropy_weight=config.sample_entropy_weight,
            code_entropy_weight=config.code_entropy_weight,
            entropy_temperature=config.entropy_temperature,
        )
        self.decoder = ConvDecoder(config.conv, config.features, config.latent_dim)
