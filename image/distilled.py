"""What KARL and ALIT share: tokens distilled from the grid of an image autoencoder, and the way back.

Below lies an autoencoder with one vector for each patch, MAGE's VQGAN or MAR's KL-16 VAE. A transformer
reads its features beside embedded pixels and a row of latent queries; what the queries become is quantized.
A second transformer predicts the grid from that, as logits over the codes of the VQGAN or as latents of the
VAE, and the autoencoder's own decoder paints it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..zoo.chance import Chance, draw_noise
from ..zoo.config import Config, check_range
from ..zoo.gaussian import LOGVAR_RANGE
from ..zoo.quantizer import Quantizer
from ..zoo.transformer import NORM_EPS, Transformer, TransformerSize
from ..zoo.unquantized import Unquantized
from ..zoo.vector_quantizer import VectorQuantizer
from .conv_parts import ConvConfig, ConvDecoder, ConvEncoder
from .image_tokenizer import ImageTokenizer
from .maskgit import PixelDecoderConfig
from .maskgit_encoder import PixelEncoder
from .preprocess import ImagePreprocess
from .titok_parts import SoftCodeDecoder

# MAGE's VQGAN has two blocks in the middle, whatever the number of blocks a level.
VQGAN_MIDDLE = 2
# The encoder reads latents of the VAE times this; the decoder predicts them as they are.
VAE_SCALE = 0.2325


@dataclass(frozen=True)
class VqganBase:
    """The VQGAN below: how many codes it has, and the shape of its networks."""

    codes: int = 1024
    network: PixelDecoderConfig = field(default_factory=PixelDecoderConfig)

    def __post_init__(self) -> None:
        check_range("codes", self.codes, 1, 1 << 20)

    @property
    def stride(self) -> int:
        """Pixels along one side of a place."""
        return self.network.upscaling

    @property
    def feature_dim(self) -> int:
        """Width of the features that the encoder reads."""
        return self.network.latent_dim

    @property
    def prediction_dim(self) -> int:
        """What the decoder predicts for a place: a logit for each code."""
        return self.codes


@dataclass(frozen=True)
class VaeBase:
    """The VAE below: width of its latents, and the shape of its networks."""

    latent_dim: int = 16
    network: ConvConfig = field(default_factory=lambda: ConvConfig(encoder_attention=(4,)))

    def __post_init__(self) -> None:
        check_range("vae.latent_dim", self.latent_dim, 1, 65536)

    @property
    def stride(self) -> int:
        """Pixels along one side of a place."""
        return self.network.stride

    @property
    def feature_dim(self) -> int:
        """Width of the features that the encoder reads."""
        return self.latent_dim

    @property
    def prediction_dim(self) -> int:
        """What the decoder predicts for a place: its latent."""
        return self.latent_dim


@dataclass(frozen=True, kw_only=True)
class DistilledConfig(Config):
    """The fields that KARL and ALIT share.

    encoder, decoder   sizes of the two transformers
    latent_dim         D, width of a token's vector
    num_codes          K, size of the codebook; None when tokens are continuous
    vqgan, vae         the autoencoder below: one of the two
    image_size         pixels along one side
    patch_size         pixels along one side of a patch, which is one place of the grid
    preprocess         how a picture gets that size
    l2                 the codebook compares directions only, and its entries are used at length 1
    commitment_weight  weight of the commitment loss
    """

    encoder: TransformerSize
    decoder: TransformerSize
    latent_dim: int = 12
    num_codes: int | None = 4096
    vqgan: VqganBase | None = None
    vae: VaeBase | None = None
    image_size: int = 256
    patch_size: int = 16
    preprocess: ImagePreprocess = field(default_factory=ImagePreprocess)
    l2: bool = True
    commitment_weight: float = 0.25

    def __post_init__(self) -> None:
        check_range("latent_dim", self.latent_dim, 1, 16384)
        if self.num_codes is not None:
            check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("image_size", self.image_size, 1, 8192)
        check_range("patch_size", self.patch_size, 1, self.image_size)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        if (self.vqgan is None) == (self.vae is None):
            raise ValueError("vqgan and vae: expected one of the two, the other None")
        if self.base.stride != self.patch_size:
            raise ValueError(
                f"patch_size={self.patch_size}: the autoencoder has {self.base.stride}, expected the same"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} with patch_size={self.patch_size}: expected a multiple"
            )
        if self.preprocess.size != self.image_size:
            raise ValueError(
                f"preprocess.size={self.preprocess.size} with image_size={self.image_size}: expected the same"
            )
        check_range("width of the autoencoder's features", self.base.feature_dim, 1, self.encoder.width - 1)

    @property
    def side(self) -> int:
        """Places along one side of the grid."""
        return self.image_size // self.patch_size

    @property
    def base(self) -> VqganBase | VaeBase:
        """The autoencoder below."""
        base = self.vqgan or self.vae
        assert base is not None
        return base

    def build_quantizer(self) -> Quantizer:
        """The quantizer of this configuration, with new weights."""
        if self.num_codes is None:
            return Unquantized(self.latent_dim)
        return VectorQuantizer(
            self.num_codes,
            self.latent_dim,
            l2=self.l2,
            normalise_lookup=self.l2,
            commitment_weight=self.commitment_weight,
        )


def posterior_noise(config: DistilledConfig, batch: int, generator: Chance) -> Tensor | None:
    """(B, feature_dim, h, w) standard normal, to sample the VAE's posterior; None where none is drawn."""
    if config.vae is None or generator is None:
        return None
    return draw_noise((batch, config.base.feature_dim, config.side, config.side), generator)


class DistilledTokenizer(ImageTokenizer):
    """What is the same in both: tokens that find their own number, and the table of their codes."""

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """((K, D),), at length 1 where the codebook compares directions; () when continuous."""
        ids = (torch.arange(size, device=self.device) for size in self.quantizer.codebook_sizes)
        return tuple(self.quantizer.decode(each) for each in ids)

    def _budget(self, keep: int | None) -> int | None:
        """How many tokens an image may get, from the `keep` of `encode`."""
        return None if keep is None else min(self.facts.check_keep(keep), self.facts.keeps[-1])

    def _refuse(self, lengths: Tensor | None, captions: Sequence[str] | None) -> None:
        """ValueError if `forward` is given either."""
        if lengths is not None or captions is not None:
            raise ValueError(f"{self.facts.name} finds its own lengths and takes no captions: leave them out")


class DistilledEncoder(nn.Module):
    """What both encoders read: the autoencoder's features and embedded pixels."""

    def __init__(self, config: DistilledConfig) -> None:
        super().__init__()
        width, dim = config.encoder.width, config.base.feature_dim
        self.vqgan = PixelEncoder(config.vqgan.network, middle=VQGAN_MIDDLE) if config.vqgan else None
        self.vae = ConvEncoder(config.vae.network, 2 * dim, 2 * dim) if config.vae else None
        self.patch_embed = nn.Conv2d(3, width - dim, config.patch_size, stride=config.patch_size)

    def features(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """What the autoencoder sees: the VQGAN's features before quantizing, or scaled latents of the VAE.

        images   (B, 3, H, W) float in [0, 1]
        noise    (B, feature_dim, h, w) float: a sample of the VAE's posterior; None: its mean
        returns  (B, feature_dim, h, w) float
        """
        if self.vqgan is not None:
            return self.vqgan(images)
        assert self.vae is not None
        mean, logvar = self.vae(images).chunk(2, dim=1)
        if noise is None:
            return VAE_SCALE * mean
        return VAE_SCALE * (mean + torch.exp(0.5 * logvar.clamp(*LOGVAR_RANGE)) * noise.to(mean))


class DistilledDecoder(nn.Module, ABC):
    """Latents to a prediction of the grid, and that to images; subclasses say what the places start from.

    latents    (B, N, D) float
    positions  (B, N) int64, the slots in which the latents stand; None: the first N in order
    keep       (B, N) bool, True where a latent is there; None when all are
    returns    (B, 3, H, W) float, not clamped
    """

    def __init__(self, config: DistilledConfig, slots: int) -> None:
        super().__init__()
        width, dim = config.decoder.width, config.base.prediction_dim
        self.side = config.side
        self.latent_embed = nn.Linear(config.latent_dim, width)
        self.latent_positions = free_vectors(slots, width)
        self.mask_token = free_vectors(1, 1, width)
        self.transformer = Transformer(config.decoder)
        self.norm_out = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, dim))
        self.apply(initialise)
        self.vqgan = (
            SoftCodeDecoder(config.vqgan.codes, config.vqgan.network, middle=VQGAN_MIDDLE)
            if config.vqgan
            else None
        )
        self.vae = ConvDecoder(config.vae.network, dim, dim) if config.vae else None

    @abstractmethod
    def places(self) -> Tensor:
        """What the places start from, after a class token if there is one: (h w or 1 + h w, width)."""

    def predict(self, latents: Tensor, positions: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """(B, prediction_dim, h, w): logits over the codes of the VQGAN, or latents of the VAE."""
        batch, count, _ = latents.shape
        slots = self.latent_positions[:count] if positions is None else self.latent_positions[positions]
        places = self.places()
        latents = self.latent_embed(latents.to(self.latent_embed.weight.dtype)) + slots
        x = torch.cat([places.expand(batch, -1, -1), latents], dim=1)
        if keep is not None:
            keep = torch.cat([keep.new_ones(batch, len(places)), keep], dim=1)
        x = self.transformer(x, keep)[:, len(places) - self.side**2 : len(places)]
        return self.head(self.norm_out(x)).transpose(1, 2).unflatten(2, (self.side, self.side))

    def paint(self, prediction: Tensor) -> Tensor:
        """(B, prediction_dim, h, w) to images (B, 3, H, W)."""
        painter = self.vqgan or self.vae
        assert painter is not None
        return painter(prediction)

    def forward(self, latents: Tensor, positions: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        return self.paint(self.predict(latents, positions, keep))


def free_vectors(*shape: int) -> nn.Parameter:
    """Learned vectors (..., width), of length about 1 at the start."""
    return nn.Parameter(torch.randn(shape) * shape[-1] ** -0.5)


def initialise(module: nn.Module) -> None:
    """Small weights and no bias, as the official models start; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
