"""TiTok (Yu et al. 2024, arXiv 2406.07550) and One-D-Piece (Miwa et al. 2025, arXiv 2501.10064).

A vision transformer reads the patches of an image beside a row of latent queries; what the queries become is
quantized. A second transformer reads the quantized row beside mask tokens and paints the patches.

Source: bytedance/1d-tokenizer and turingmotors/One-D-Piece, the official implementations. TiTok's models of
2024-08 and all of One-D-Piece are `legacy`: they scramble the latents and paint with the codes of a VQGAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..zoo.chance import Chance
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.gaussian import GaussianPosterior
from ..zoo.neural import Reconstruction
from ..zoo.quantizer import Quantizer
from ..zoo.tokens import Tokens
from ..zoo.transformer import TransformerSize
from ..zoo.vector_quantizer import VectorQuantizer
from .image_tokenizer import KL_WEIGHT, ImageTokenizer
from .maskgit import PixelDecoderConfig
from .preprocess import ImagePreprocess
from .titok_parts import TiTokDecoder, TiTokEncoder


@dataclass(frozen=True)
class TiTokConfig(Config):
    """One TiTok or One-D-Piece.

    num_tokens         N, tokens an image
    latent_dim         D, width of a token's vector
    encoder, decoder   sizes of the two transformers
    image_size         pixels along one side
    preprocess         how a picture gets that size
    encoder_patch_size, decoder_patch_size   pixels along one side of a patch
    quantizer          "vq", or "gaussian" for the continuous models
    num_codes          K, size of the codebook; None when continuous
    l2                 the codebook compares directions only, and its entries are used at length 1
    commitment_weight  weight of the commitment loss
    legacy             latents are scrambled as in the first release, patches are logits over `pixel_codes`
    pixel_codes        codes of the VQGAN that a legacy decoder predicts
    pixel_decoder      its decoder; None in stage-1 models, which end at the logits, and in RGB models
    nested             One-D-Piece: any prefix of the tokens decodes
    """

    tokenizer_type: ClassVar[str] = "titok"

    num_tokens: int
    latent_dim: int
    encoder: TransformerSize
    decoder: TransformerSize
    image_size: int = 256
    preprocess: ImagePreprocess = field(default_factory=ImagePreprocess)
    encoder_patch_size: int = 16
    decoder_patch_size: int = 16
    quantizer: Literal["vq", "gaussian"] = "vq"
    num_codes: int | None = 4096
    l2: bool = True
    commitment_weight: float = 0.25
    legacy: bool = True
    pixel_codes: int = 1024
    pixel_decoder: PixelDecoderConfig | None = None
    nested: bool = False

    def __post_init__(self) -> None:
        check_range("num_tokens", self.num_tokens, 1, 16384)
        check_range("latent_dim", self.latent_dim, 1, 16384)
        check_range("image_size", self.image_size, 1, 8192)
        check_range("pixel_codes", self.pixel_codes, 1, 1 << 20)
        check_range("commitment_weight", self.commitment_weight, 0, 1e6)
        for name in ("encoder_patch_size", "decoder_patch_size"):
            patch = getattr(self, name)
            check_range(name, patch, 1, self.image_size)
            if self.image_size % patch:
                raise ValueError(
                    f"image_size={self.image_size} with {name}={patch}: expected a multiple of the patch"
                )
        if self.preprocess.size != self.image_size:
            raise ValueError(
                f"preprocess.size={self.preprocess.size} with image_size={self.image_size}: expected the same"
            )
        self._check_quantizer()
        self._check_pixel_decoder()

    def _check_quantizer(self) -> None:
        if self.quantizer == "gaussian":
            if self.num_codes is not None:
                raise ValueError(
                    f"num_codes={self.num_codes} with quantizer='gaussian': expected None, no codebook"
                )
        elif self.quantizer == "vq":
            check_range("num_codes", self.num_codes or 0, 1, 1 << 24)
        else:
            raise ValueError(f"quantizer={self.quantizer!r}: expected 'vq' or 'gaussian'")

    def _check_pixel_decoder(self) -> None:
        if self.pixel_decoder is None:
            return
        if not self.legacy or self.quantizer != "vq":
            raise ValueError(
                f"pixel_decoder with legacy={self.legacy} and quantizer={self.quantizer!r}: it belongs to "
                "legacy 'vq' models only; set it to None"
            )
        if self.pixel_decoder.upscaling != self.decoder_patch_size:
            raise ValueError(
                f"pixel_decoder enlarges {self.pixel_decoder.upscaling} times, decoder_patch_size is "
                f"{self.decoder_patch_size}: expected the same; change the number of multipliers"
            )

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="one-d-piece" if self.nested else "titok",
            modality="image",
            channels=3,
            max_tokens=self.num_tokens,
            codebook_sizes=() if self.num_codes is None else (self.num_codes,),
            latent_dim=self.latent_dim,
            nested="tokens" if self.nested else None,
            has_decoder=not self.legacy or self.pixel_decoder is not None,
            draws_noise=self.quantizer == "gaussian",
        )

    def build_quantizer(self) -> Quantizer:
        """The quantizer of this configuration, with new weights."""
        if self.num_codes is None:
            return GaussianPosterior(self.latent_dim)
        return VectorQuantizer(
            self.num_codes,
            self.latent_dim,
            l2=self.l2,
            normalise_lookup=self.l2,
            commitment_weight=self.commitment_weight,
        )


class TiTok(ImageTokenizer):
    """Images of one size as a short row of tokens; with `nested`, any prefix of the row decodes.

    A stage-1 model (legacy without a pixel decoder) ends at logits over the codes of a VQGAN, which is not
    part of its weights: it encodes, `decode` raises NoDecoder, and `forward` gives the logits.
    """

    config_type = TiTokConfig
    config: TiTokConfig

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__(config)
        self.quantizer = config.build_quantizer()
        self.encoder = self.build_encoder(self.quantizer.dim_in)
        self.decoder = self.build_decoder()

    @property
    def rebuilds_pixels(self) -> bool:
        return self.facts.has_decoder

    @property
    def loss_defaults(self) -> dict[str, float]:
        if not self.rebuilds_pixels:
            return {"mse": 0.0}
        return {"quantizer": KL_WEIGHT} if self.config.quantizer == "gaussian" else {}

    @property
    def term_defaults(self) -> tuple[str, ...]:
        return () if self.rebuilds_pixels else ("codes",)

    def build_encoder(self, dim: int) -> TiTokEncoder:
        """The encoder of this configuration, with new weights; latents of width `dim`."""
        return TiTokEncoder(self.config, dim)

    def build_decoder(self) -> TiTokDecoder:
        """The decoder of this configuration, with new weights."""
        return TiTokDecoder(self.config)

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D), or (B, N, 2 D) mean and log-variance when continuous."""
        latents = self.encoder(signal)
        lengths = torch.full(
            (len(latents),), self.config.num_tokens, dtype=torch.int64, device=latents.device
        )
        return Tokens(
            latents, lengths, self.default_extents(lengths) if extents is None else extents, self.facts
        )

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W). Items of different lengths come out as they would alone."""
        return self._paint(tokens.values, tokens.lengths)

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """((K, D),), at length 1 in the l2 models; () when continuous."""
        ids = (torch.arange(size, device=self.device) for size in self.quantizer.codebook_sizes)
        return tuple(self.quantizer.decode(each) for each in ids)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; `LengthPolicy(num_tokens, per="batch")` makes the lengths of One-D-Piece.

        The quantizer's loss counts all tokens, dropped or not. Continuous models draw from `generator`, or in
        training from torch's own.
        """
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        quantized = self.quantizer(self.encoder(signal), generator=generator)
        if lengths is None:
            lengths = torch.full((len(signal),), self.config.num_tokens)
        return Reconstruction(self._paint(quantized.latents, lengths), quantized)

    def _paint(self, latents: Tensor, lengths: Tensor) -> Tensor:
        """The decoder on the first `lengths` (B,) of latents (B, N, D); equal ones are cut, others packed."""
        counts = self._counts(lengths)
        latents = latents[:, : max(counts, default=0)]
        return self.decoder(latents, lengths.to(latents.device) if len(counts) > 1 else None)

    def _counts(self, lengths: Tensor) -> set[int]:
        """The different lengths there are; ValueError for one that does not decode."""
        counts = set(lengths.tolist())
        if max(counts, default=0) > self.config.num_tokens:
            raise ValueError(
                f"{max(counts)} tokens: {self.facts.name} decodes at most {self.config.num_tokens}"
            )
        if not self.config.nested and counts - {self.config.num_tokens}:
            raise ValueError(
                f"lengths {sorted(counts)[:8]}: {self.facts.name} decodes {self.config.num_tokens} tokens; "
                "a nested tokenizer (One-D-Piece) decodes prefixes"
            )
        return counts
