"""ReTok (Fu et al. 2026, arXiv 2601.01535): a row of ordered tokens, any prefix of which decodes.

A convolutional encoder makes a map of features; queries gather it into a row, which is quantized. Queries for
the places of the map read the row, and a convolutional decoder paints them (after GigaTok, arXiv 2504.08736).

Written anew after the paper and the layout of zfu006/ReTok ffaa8a7, which has no licence; none of its code is
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.chance import Chance
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.neural import Reconstruction
from ..zoo.tokens import Tokens
from ..zoo.transformer import TransformerSize
from ..zoo.vector_quantizer import VectorQuantizer
from .conv_parts import LevelsConfig
from .image_tokenizer import ImageTokenizer
from .preprocess import ImagePreprocess
from .retok_parts import ReTokDecoder, ReTokEncoder


@dataclass(frozen=True)
class ReTokConfig(Config):
    """One ReTok.

    encoder, decoder   sizes of the two transformers
    num_tokens         N, tokens an image at most; a power of two
    num_spare          how many of the last of them the encoder doubles
    num_codes          K, size of the codebook, which compares directions
    latent_dim         D, width of a code
    commitment_weight  weight of the commitment loss
    rotation           the quantizer's gradient is rotated, not copied
    features           width of the feature map between convolutions and transformers
    conv               sizes of the convolutions; the decoder has one more block a level
    image_size         pixels along one side
    preprocess         how a picture gets that size
    semantic_depth     decoder blocks before the features that a vision model teaches
    semantic_dim       width of that model's features
    """

    tokenizer_type: ClassVar[str] = "retok"

    encoder: TransformerSize
    decoder: TransformerSize
    num_tokens: int = 256
    num_spare: int = 224
    num_codes: int = 16384
    latent_dim: int = 8
    commitment_weight: float = 0.25
    rotation: bool = True
    features: int = 256
    conv: LevelsConfig = field(default_factory=LevelsConfig)
    image_size: int = 256
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(resize="halving"))
    semantic_depth: int = 3
    semantic_dim: int = 768

    def __post_init__(self) -> None:
        check_range("num_tokens", self.num_tokens, 1, 16384)
        check_range("num_spare", self.num_spare, 0, self.num_tokens)
        check_range("num_codes", self.num_codes, 1, 1 << 24)
        check_range("latent_dim", self.latent_dim, 1, 4096)
        check_range("features", self.features, 1, 4096)
        check_range("image_size", self.image_size, 1, 8192)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        check_range("semantic_depth", self.semantic_depth, 1, self.decoder.layers)
        check_range("semantic_dim", self.semantic_dim, 1, 16384)
        levels = self.num_tokens.bit_length() - 1
        if 2**levels != self.num_tokens or self.side % 2 ** (levels // 2):
            raise ValueError(
                f"num_tokens={self.num_tokens} of a map {self.side} x {self.side}: expected a power of two "
                "whose cells divide the map"
            )
        if self.image_size % self.conv.stride or self.preprocess.size != self.image_size:
            raise ValueError(
                f"image_size={self.image_size}, preprocess.size={self.preprocess.size}: expected the same, a "
                f"multiple of {self.conv.stride}"
            )

    @property
    def side(self) -> int:
        """Places of the feature map along one side."""
        return self.image_size // self.conv.stride

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="retok",
            modality="image",
            channels=3,
            max_tokens=self.num_tokens,
            codebook_sizes=(self.num_codes,),
            latent_dim=self.latent_dim,
            nested="tokens",
        )


class ReTok(ImageTokenizer):
    """Images of one size as a row of tokens; any prefix of it decodes.

    The encoder's spare latents never leave it, but in training, where the quantizer sees them all.
    """

    config_type = ReTokConfig
    config: ReTokConfig
    untaught = ("decoder.semantic",)

    def __init__(self, config: ReTokConfig) -> None:
        super().__init__(config)
        self.encoder = ReTokEncoder(config)
        self.quantizer = VectorQuantizer(
            config.num_codes,
            config.latent_dim,
            l2=True,
            normalise_lookup=True,
            commitment_weight=config.commitment_weight,
            rotation=config.rotation,
        )
        self.decoder = ReTokDecoder(config)

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D)."""
        latents = self.encoder(2 * signal - 1)[:, : self.config.num_tokens]
        lengths = torch.full(latents.shape[:1], self.config.num_tokens, device=latents.device)
        return Tokens(
            latents, lengths, self.default_extents(lengths) if extents is None else extents, self.facts
        )

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W). Items of different lengths come out as they would alone."""
        return (self.decoder(*self._prefixes(tokens.values, tokens.lengths)) + 1) / 2

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """((K, D),), at length 1."""
        return (self.quantizer.decode(torch.arange(self.config.num_codes, device=self.device)),)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; `quantized` holds and counts the spare latents too, (B, N + spare, D)."""
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        quantized = self.quantizer(self.encoder(2 * signal - 1))
        if lengths is None:
            lengths = torch.full((len(signal),), self.config.num_tokens)
        painted = self.decoder(*self._prefixes(quantized.latents, lengths))
        return Reconstruction((painted + 1) / 2, quantized)

    def semantic_loss(self, latents: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """Hierarchical semantic regularization: what few tokens decode to should mean what the image means.

        latents  (B, N or more, D) float, quantized, as `forward` gives them
        targets  (B, h w, F) float, patch features of a frozen vision model (the authors': DINOv2 B)
        lengths  (B,) int64, how many tokens each item is decoded from
        returns  () float, -cos of features and targets, averaged over places

        An item's weight falls linearly from 1 at one token to 0 at all: the paper asks for a strength that
        fades toward the tail, and this is our choice of it. Source of the cosine: REPA (arXiv 2410.06940).
        """
        found = self.decoder.semantics(*self._prefixes(latents, lengths))
        if found.shape != targets.shape:
            raise ValueError(f"targets have shape {tuple(targets.shape)}: expected {tuple(found.shape)}")
        alike = F.cosine_similarity(found, targets, dim=-1).mean(dim=1)
        weight = (self.config.num_tokens - lengths) / max(1, self.config.num_tokens - 1)
        return -(weight.to(alike) * alike).mean()

    def _prefixes(self, latents: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents (B, N, D) cut to the longest length, and the lengths where they differ."""
        counts = set(lengths.tolist()) or {self.config.num_tokens}
        if not 1 <= min(counts) <= max(counts) <= self.config.num_tokens:
            raise ValueError(
                f"lengths {sorted(counts)[:8]}: {self.facts.name} decodes 1 ... {self.config.num_tokens}"
            )
        return latents[:, : max(counts)], lengths.to(latents.device) if len(counts) > 1 else None
