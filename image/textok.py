"""TexTok (Zha et al. 2024, arXiv 2412.05796): a caption conditions the encoder and the decoder.

What the caption says, the tokens need not hold; so few tokens show more. Written from the paper's account of
the method; no code or weights were released. Where ours differs: the transformers are TiTok's, the text tower
is a CLIP and not a T5 (features of any other may be given), and the floats have a Gaussian posterior, or give
way to ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..zoo.chance import Chance
from ..zoo.stamping import check_captions
from ..zoo.tokens import Tokens
from ..zoo.transformer import TransformerSize
from .ta_titok import TaTiTok, TaTiTokConfig, TextEmbed
from .titok_parts import TiTokEncoder

BASE = TransformerSize(width=768, layers=12, heads=12)


@dataclass(frozen=True)
class TexTokConfig(TaTiTokConfig):
    """One TexTok; the defaults are the paper's for 256 x 256 pixels and 32 tokens."""

    tokenizer_type: ClassVar[str] = "textok"

    num_tokens: int = 32
    latent_dim: int = 8
    encoder: TransformerSize = BASE
    decoder: TransformerSize = BASE
    encoder_patch_size: int = 8
    decoder_patch_size: int = 8
    quantizer: Literal["vq", "gaussian"] = "gaussian"
    num_codes: int | None = None


class TextGuidedEncoder(TiTokEncoder):
    """Images and text to latents.

    images   (B, 3, H, W) float in [0, 1]
    text     (B, T, E) float, features of the caption; they stand in the row after the queries, unmasked
    returns  (B, N, D) float, D as the quantizer wants it
    """

    def __init__(self, config: TexTokConfig, dim: int) -> None:
        super().__init__(config, dim)
        self.text_embed = TextEmbed(config.text_tower, config.encoder.width)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._read(images, self.text_embed(text))


class TexTok(TaTiTok):
    """Images of one size as a short row of tokens that hold what the caption does not say.

    The caption is given to `encode`, which reads it, and travels with the tokens to `decode`. An image
    without one has the empty caption.
    """

    config_type = TexTokConfig
    config: TexTokConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def build_encoder(self, dim: int) -> TextGuidedEncoder:
        return TextGuidedEncoder(self.config, dim)

    @torch.no_grad()
    def encode(
        self,
        signal: Tensor | Sequence[Any],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
        captions: Sequence[str] | None = None,
    ) -> Tokens:
        """See `Tokenizer.encode`.

        captions  one string an item, for encoder and decoder
        """
        if captions is not None and not isinstance(signal, Tensor):
            # A group of one size would not know which captions are its own; there is but one size.
            for item in signal:
                self.check_signal(self.item_tensor(item)[None])

        def latents_of(images: Tensor, _chance: Chance) -> Tokens:
            return self.encode_latents(images, captions=captions)

        return self._encode_with(signal, extents, keep, generator, latents_of)

    def encode_latents(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        captions: Sequence[str] | None = None,
        text_features: Tensor | None = None,
    ) -> Tokens:
        """See `TiTok.encode_latents`.

        captions       one string an item; the tokens carry them on
        text_features  (B, T, E) float instead of what the text tower makes of the captions
        """
        latents = self._read(signal, self._text(captions, len(signal), text_features))
        lengths = torch.full(latents.shape[:1], self.config.num_tokens, device=latents.device)
        extents = self.default_extents(lengths) if extents is None else extents
        tokens = Tokens(latents, lengths, extents, self.facts)
        return tokens if captions is None else replace(tokens, captions=check_captions(captions, self.facts))

    def _read(self, signal: Tensor, text: Tensor) -> Tensor:
        """Latents of the images, as the text leaves them to be told."""
        return self.encoder(signal, text)
