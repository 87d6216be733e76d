"""TA-TiTok (Kim et al. 2025, arXiv 2501.07730): TiTok whose decoder also reads the caption of the image.

Source: bytedance/1d-tokenizer 942a96f, modeling/tatitok.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..zoo.chance import Chance
from ..zoo.facts import Facts
from ..zoo.neural import Reconstruction
from ..zoo.stamping import check_captions
from ..zoo.tokens import Tokens
from .captions import CaptionEncoder, TextTowerConfig
from .titok import TiTok, TiTokConfig
from .titok_parts import TiTokDecoder, free_vectors, initialise


@dataclass(frozen=True)
class TaTiTokConfig(TiTokConfig):
    """One TA-TiTok: a TiTok that paints pixels, of one length.

    text_tower  what reads the captions
    """

    tokenizer_type: ClassVar[str] = "ta-titok"

    l2: bool = False
    legacy: bool = False
    text_tower: TextTowerConfig = field(default_factory=TextTowerConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.legacy or self.nested:
            raise ValueError(
                f"legacy={self.legacy} nested={self.nested}: {self.tokenizer_type} is neither, leave them out"
            )

    def facts(self) -> Facts:
        """All but identity."""
        return replace(super().facts(), name=self.tokenizer_type, takes_captions=True)


class TextGuidedDecoder(TiTokDecoder):
    """Quantized latents and text to pixels.

    latents  (B, N, D) float
    text     (B, T, E) float, features of the caption; they stand in the row after the latents, unmasked
    returns  (B, 3, H, W) float, not clamped
    """

    def __init__(self, config: TaTiTokConfig) -> None:
        super().__init__(config)
        self.text_embed = TextEmbed(config.text_tower, config.decoder.width)

    def forward(self, latents: Tensor, text: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._paint(torch.cat([self._embed(latents), self.text_embed(text)], dim=1))


class TextEmbed(nn.Module):
    """Features of a text tower as rows of a transformer: (B, T, E) float -> (B, T, width) float."""

    def __init__(self, config: TextTowerConfig, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(config.dim, width)
        self.positions = free_vectors(config.length, width)
        self.apply(initialise)

    def forward(self, text: Tensor) -> Tensor:
        return self.project(text.to(self.project.weight)) + self.positions


class TaTiTok(TiTok):
    """Images of one size as a short row of tokens; a caption says what they need not hold.

    The caption is given to `encode`, travels with the tokens, and is read by `decode`; the tokens' values do
    not depend on it. An image without one has the empty caption.
    """

    config_type = TaTiTokConfig
    config: TaTiTokConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: TaTiTokConfig) -> None:
        super().__init__(config)
        self.caption_encoder = CaptionEncoder(config.text_tower)

    def build_decoder(self) -> TextGuidedDecoder:
        return TextGuidedDecoder(self.config)

    def mock_companions(self) -> None:
        """See `NeuralTokenizer`."""
        self.caption_encoder.mock()

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

        captions  one string an item, for the decoder
        """
        if captions is not None:
            captions = check_captions(captions, self.facts)
        tokens = super().encode(signal, extents=extents, keep=keep, generator=generator)
        return replace(tokens, captions=captions)

    def decode_latents(self, tokens: Tokens, *, text_features: Tensor | None = None) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W).

        text_features  (B, T, E) float, as `CaptionEncoder` makes them, instead of the captions of the tokens
        """
        self._counts(tokens.lengths)
        text = self._text(tokens.captions, len(tokens), text_features)
        return self.decoder(tokens.values, text)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
        text_features: Tensor | None = None,
    ) -> Reconstruction:
        """See `TiTok.forward`; text_features as in `decode_latents`."""
        if lengths is not None:
            self._counts(lengths)
        text = self._text(captions, len(signal), text_features)
        quantized = self.quantizer(self._read(signal, text), generator=generator)
        return Reconstruction(self.decoder(quantized.latents, text), quantized)

    def _read(self, signal: Tensor, text: Tensor) -> Tensor:
        """Latents of the images; the encoder does not see the text."""
        return self.encoder(signal)

    def _text(self, captions: Sequence[str] | None, count: int, features: Tensor | None) -> Tensor:
        """(B, T, E): the features given, or else those of the captions."""
        if features is None:
            captions = ("",) * count if captions is None else check_captions(captions, self.facts)
            if len(captions) != count:
                raise ValueError(f"{len(captions)} captions for {count} items: give one each")
            return self.caption_encoder(captions, device=self.device, dtype=self.dtype)
        expected = (count, self.config.text_tower.length, self.config.text_tower.dim)
        if features.shape != expected:
            raise ValueError(f"text_features have shape {tuple(features.shape)}: expected {expected}")
        return features
