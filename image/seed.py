"""SEED-2 (Ge et al. 2023, arXiv 2310.01218): 32 codes that say in order what a picture is about.

A vision transformer looks, a causal Q-Former asks it 32 questions, the answers are quantized. A small
transformer turns the codes into the CLIP embedding of the picture, and Stable unCLIP paints a picture of that
embedding: of the same things, not of the same pixels.

Source: AILab-CVC/SEED 93b3cf4, models/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..zoo.chance import Chance, check_generators
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.neural import Reconstruction
from ..zoo.stamping import check_lengths, check_values
from ..zoo.tokens import Tokens
from ..zoo.vector_quantizer import VectorQuantizer
from .image_tokenizer import ImageTokenizer
from .preprocess import ImagePreprocess
from .seed_parts import SeedDecoder, SeedEncoder
from .unclip import UnclipConfig, UnclipPainter
from .visual_tokenizer import CLIP_MEAN, CLIP_STD

# The official ones.
STEPS = 20
GUIDANCE = 10.0


@dataclass(frozen=True)
class VisionSize:
    """Size of the vision transformer; by default EVA-CLIP's ViT-g/14 without its last layer, as in BLIP-2."""

    width: int = 1408
    layers: int = 39
    heads: int = 16
    hidden: int = 6144
    patch_size: int = 14

    def __post_init__(self) -> None:
        _check_sizes(self.width, self.layers, self.heads, self.hidden)
        check_range("patch_size", self.patch_size, 1, 1024)


@dataclass(frozen=True)
class QFormerSize:
    """Size of the Q-Former; by default BERT-base. Every `look_every`-th layer looks at the picture."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    look_every: int = 2

    def __post_init__(self) -> None:
        _check_sizes(self.width, self.layers, self.heads, self.hidden)
        check_range("look_every", self.look_every, 1, 256)


def _check_sizes(width: int, layers: int, heads: int, hidden: int) -> None:
    for name, value, high in (("width", width, 16384), ("layers", layers, 256), ("heads", heads, 256)):
        check_range(name, value, 1, high)
    check_range("hidden", hidden, 1, 65536)
    if width % heads:
        raise ValueError(f"width={width} with heads={heads}: expected a multiple of the heads")


@dataclass(frozen=True, kw_only=True)
class SeedConfig(Config):
    """One SEED-2.

    num_tokens      N, questions of the Q-Former
    num_codes       K, size of the codebook
    latent_dim      D, width of a code
    vision, qformer sizes of the two networks that look
    decoder_layers  blocks between the codes and the embedding
    narrowing       widths that each token is narrowed to on the way
    embedding_dim   E, width of the CLIP embedding
    unclip          the pipeline that paints it; None makes a tokenizer without a decoder
    image_size      pixels along one side
    mean, std       statistics of RGB by which the vision transformer normalises
    preprocess      how a picture gets its size: the official one squashes it
    """

    tokenizer_type: ClassVar[str] = "seed"

    num_tokens: int = 32
    num_codes: int = 8192
    latent_dim: int = 32
    vision: VisionSize = field(default_factory=VisionSize)
    qformer: QFormerSize = field(default_factory=QFormerSize)
    decoder_layers: int = 4
    narrowing: tuple[int, int, int] = (256, 128, 32)
    embedding_dim: int = 1024
    unclip: UnclipConfig | None = field(default_factory=UnclipConfig)
    image_size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    preprocess: ImagePreprocess = field(
        default_factory=lambda: ImagePreprocess(size=224, resize="squash", interpolation="bicubic")
    )

    def __post_init__(self) -> None:
        for name in ("num_tokens", "decoder_layers", "image_size"):
            check_range(name, getattr(self, name), 1, 8192)
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        for width in (self.latent_dim, self.embedding_dim, *self.narrowing):
            check_range("latent_dim, embedding_dim and narrowing", width, 1, 65536)
        for share in self.mean:
            check_range("mean", share, 0, 1)
        for share in self.std:
            check_range("std", share, 1e-6, 1)
        if self.image_size % self.vision.patch_size:
            raise ValueError(
                f"image_size={self.image_size} with patch_size={self.vision.patch_size}: expected a multiple"
            )
        if self.preprocess.size != self.image_size:
            raise ValueError(
                f"preprocess.size={self.preprocess.size} with image_size={self.image_size}: expected the same"
            )

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="seed",
            modality="image",
            channels=3,
            max_tokens=self.num_tokens,
            codebook_sizes=(self.num_codes,),
            latent_dim=self.latent_dim,
            has_decoder=self.unclip is not None,
            draws_noise=self.unclip is not None,
        )


class Seed(ImageTokenizer):
    """Images of one size as a row of codes, each of which may rest on those before it.

    What is learned ends at a CLIP embedding, and so do `decode_latents` and `forward`. `decode` paints it, at
    the size of the pictures that were encoded; `paint` gives what the pipeline painted.
    """

    config_type = SeedConfig
    config: SeedConfig

    def __init__(self, config: SeedConfig) -> None:
        super().__init__(config)
        self.encoder = SeedEncoder(config)
        self.quantizer = VectorQuantizer(config.num_codes, config.latent_dim)
        self.decoder = SeedDecoder(config)
        self.painter = None if config.unclip is None else UnclipPainter(config.unclip)

    @property
    def rebuilds_pixels(self) -> bool:
        return False

    @property
    def loss_defaults(self) -> dict[str, float]:
        return {"mse": 0.0}

    @property
    def term_defaults(self) -> tuple[str, ...]:
        return ("embedding",)

    def mock_companions(self) -> None:
        """See `NeuralTokenizer`."""
        if self.painter is not None:
            self.painter.mock()

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D)."""
        latents = self.encoder(signal)
        lengths = torch.full((len(latents),), latents.shape[1], dtype=torch.int64, device=latents.device)
        extents = self.default_extents(lengths) if extents is None else extents
        return Tokens(latents, lengths, extents, self.facts)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """The CLIP embedding that the values stand for, with gradient: (B, E)."""
        return self.decoder(tokens.values.to(self.dtype))

    @torch.no_grad()
    def decode(
        self,
        tokens: Tokens,
        *,
        generator: Chance = None,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
    ) -> Tensor:
        """See `Tokenizer.decode`; what `paint` gives, at the size of the extents."""
        if self.painter is None:
            return super().decode(tokens, generator=generator)
        painted = self.paint(tokens, generator=generator, steps=steps, guidance=guidance)
        size = (self.config.image_size, self.config.image_size)
        return F.interpolate(painted, size, mode="bilinear", antialias=True).clamp(0, 1)

    @torch.no_grad()
    def paint(
        self,
        tokens: Tokens,
        *,
        generator: Chance = None,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
    ) -> Tensor:
        """Pictures of what the tokens say, at the pipeline's own size: (B, 3, size, size) float in [0, 1].

        generator  one per item, or one whose draws seed the items'; without one every item starts from seed 0
        steps      of the sampler
        guidance   how much more the embedding counts than none; 1 takes it as it is
        """
        if self.painter is None:
            raise ValueError(f"{self.facts.name} has no pipeline to paint with: name one in config.unclip")
        self.check_tokens(tokens)
        check_values(tokens)
        check_lengths(self, tokens)
        check_range("steps", steps, 1, 1000)
        check_generators(generator, len(tokens))
        with self._evaluating():
            embeddings = self.decode_latents(self.dequantize(tokens.to(self.device)))
            painted = self.painter(embeddings, _each(generator, len(tokens)), steps=steps, guidance=guidance)
        return painted.float()

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """((K, D),)"""
        return (self.quantizer.codebook,)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; `signal` is the CLIP embedding (B, E), to hold against that of the image."""
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        if lengths is not None and bool((lengths != self.config.num_tokens).any()):
            raise ValueError(
                f"lengths {lengths.tolist()[:8]}: {self.facts.name} reads all {self.config.num_tokens} tokens"
            )
        quantized = self.quantizer(self.encoder(signal))
        return Reconstruction(self.decoder(quantized.latents), quantized)


def _each(generator: Chance, batch: int) -> list[Generator]:
    """A generator on the CPU for every item."""
    if generator is None:
        return [Generator().manual_seed(0) for _ in range(batch)]
    if isinstance(generator, Generator):
        seeds = torch.randint(2**62, (batch,), generator=generator, device=generator.device).tolist()
        return [Generator().manual_seed(seed) for seed in seeds]
    return list(generator)
