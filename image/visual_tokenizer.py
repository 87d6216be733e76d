"""What the visual-token modules of language models share: pictures in, a row of vectors out, and no way back.

A vision encoder makes a feature map; each family makes tokens of the map in its own way. No weights are on
the Hub: these are parts to build a language model with, and are trained by its loss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from ..zoo.chance import Chance
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.neural import Reconstruction
from ..zoo.tokens import Tokens
from ..zoo.transformer import TransformerSize
from ..zoo.unquantized import Unquantized
from .image_tokenizer import ImageTokenizer
from .preprocess import ImagePreprocess
from .vision_encoder import VisionEncoder

# CLIP's statistics of RGB (OpenAI 2021), and the size of its ViT-L/14, from which LLaVA and M3 start.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_LARGE = TransformerSize(width=1024, layers=24, heads=16)


@dataclass(frozen=True, kw_only=True)
class VisualConfig(Config):
    """A vision encoder, and what a language model wants of it.

    dim         D, width of a token: that of the language model
    image_size  pixels along one side
    patch_size  pixels along one side of a place of the feature map
    vision      size of our vision transformer; None with `timm`
    timm        name of a model of timm that sees in its place
    mean, std   statistics of RGB by which the vision encoder normalises
    preprocess  how a picture gets its size
    """

    dim: int = 4096
    image_size: int = 336
    patch_size: int = 14
    vision: TransformerSize | None = CLIP_LARGE
    timm: str | None = None
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(size=336))

    def __post_init__(self) -> None:
        check_range("dim", self.dim, 1, 65536)
        check_range("image_size", self.image_size, 1, 8192)
        check_range("patch_size", self.patch_size, 1, self.image_size)
        for share in (*self.mean, *self.std):
            check_range("mean and std", share, 0, 1)
        if not all(self.std):
            raise ValueError(f"std={self.std}: expected more than 0")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} with patch_size={self.patch_size}: expected a multiple"
            )
        if self.preprocess.size != self.image_size:
            raise ValueError(
                f"preprocess.size={self.preprocess.size} with image_size={self.image_size}: expected the same"
            )
        if (self.vision is None) == (self.timm is None):
            raise ValueError(
                f"vision={self.vision} and timm={self.timm!r}: expected one of them, the other None"
            )

    @property
    def side(self) -> int:
        """Places of the feature map along one side."""
        return self.image_size // self.patch_size

    def _facts(self, name: str, max_tokens: int, keeps: tuple[int, ...] = ()) -> Facts:
        return Facts(
            name=name,
            modality="image",
            channels=3,
            max_tokens=max_tokens,
            latent_dim=self.dim,
            keeps=keeps,
            has_decoder=False,
        )


class VisualTokenizer(ImageTokenizer):
    """Images of one size as vectors for a language model.

    The configuration is a `VisualConfig`; a family writes `tokens_of`. There are no pixels to paint: `decode`
    raises NoDecoder, and where others give a picture, `decode_latents` and `forward` give what the language
    model reads, with gradient.
    """

    def __init__(self, config: VisualConfig) -> None:
        super().__init__(config)
        self.encoder = VisionEncoder(config)
        self.quantizer = Unquantized(config.dim)

    @abstractmethod
    def tokens_of(self, features: Tensor) -> Tensor:
        """Tokens of a feature map: (B, side, side, C) float -> (B, N, D)."""

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D)."""
        return self._stamped(self.tokens_of(self.encoder(signal)), extents=extents)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """What the language model reads: the values themselves, (B, N, D)."""
        return tokens.values

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """(): the tokens are continuous."""
        return ()

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; `signal` is what the language model reads, 0 beyond an item's length."""
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        quantized = self.quantizer(self._values(self.encoder(signal), lengths))
        tokens = self._stamped(quantized.latents, lengths, extents)
        return Reconstruction(self.decode_latents(tokens), quantized)

    def finetune(self, **hyperparameters: Any) -> Any:
        """Raises NotImplementedError: what to learn, the language model says."""
        raise NotImplementedError(
            f"{self.facts.name} has no picture to learn from: call it inside your language model, "
            "whose loss trains it"
        )

    def _values(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, N, D) values of so many tokens each."""
        if lengths is not None and bool((lengths != self.facts.max_tokens).any()):
            raise ValueError(
                f"lengths {lengths.tolist()[:8]}: {self.facts.name} makes {self.facts.max_tokens} tokens"
            )
        return self.tokens_of(features)

    def _stamped(
        self, values: Tensor, lengths: Tensor | None = None, extents: Tensor | None = None
    ) -> Tokens:
        if lengths is None:
            lengths = torch.full((len(values),), values.shape[1], dtype=torch.int64)
        lengths = lengths.to(values.device)
        extents = self.default_extents(lengths) if extents is None else extents
        return Tokens(values, lengths, extents, self.facts)


@dataclass(frozen=True, kw_only=True)
class PooledConfig(VisualConfig):
    """A vision encoder whose map is pooled to fewer tokens.

    sides  rising; the map is pooled to squares of so many tokens a side, which makes the legal counts
    """

    sides: tuple[int, ...] = (1, 3, 6, 12, 24)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sides or list(self.sides) != sorted(set(self.sides)) or self.sides[0] < 1:
            raise ValueError(f"sides={self.sides}: expected rising numbers from 1")
        if self.sides[-1] > self.side:
            raise ValueError(f"sides={self.sides} on a feature map of {self.side} a side: expected no more")

    def _pooled_facts(self, name: str) -> Facts:
        counts = tuple(side**2 for side in self.sides)
        return self._facts(name, counts[-1], counts)


class PooledTokenizer(VisualTokenizer):
    """A square of tokens, of a side that is chosen at each call: `encode(images, keep=count)`.

    Fewer tokens are a coarser look at all of the picture, no prefix of the row: `tokens.keep` does not apply.
    The configuration is a `PooledConfig`; a family writes `pooled`.
    """

    @abstractmethod
    def pooled(self, features: Tensor, side: int) -> Tensor:
        """Tokens of a feature map (B, h, w, C) pooled to side x side, row by row: (B, side**2, D)."""

    def tokens_of(self, features: Tensor) -> Tensor:
        return self.pooled(features, self.config.sides[-1])

    @torch.no_grad()
    def encode(
        self,
        signal: Tensor | Sequence[Any],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
    ) -> Tokens:
        """See `Tokenizer.encode`; `keep` is one of `facts.keeps`, the counts that the map is pooled to."""
        if keep is None:
            return super().encode(signal, extents=extents, generator=generator)
        count = min(self.facts.check_keep(keep), self.facts.keeps[-1])
        return self._encode_with(
            signal, extents, None, generator, lambda images, _: self.encode_latents(images, keep=count)
        )

    def encode_latents(
        self, signal: Tensor, *, extents: Tensor | None = None, keep: int | None = None
    ) -> Tokens:
        """See `NeuralTokenizer`; values (B, keep, D), by default of the most tokens."""
        features = self.encoder(signal)
        values = self.pooled(features, self._side(keep or self.facts.keeps[-1]))
        return self._stamped(values, extents=extents)

    def _values(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """As the base has it; items of one length are pooled together."""
        if lengths is None:
            return self.tokens_of(features)
        lengths = lengths.to(features.device)
        values = features.new_zeros(len(features), int(lengths.max()), self.config.dim)
        for count in lengths.unique().tolist():
            chosen = lengths == count
            values[chosen, :count] = self.pooled(features[chosen], self._side(count)).to(values.dtype)
        return values

    def _side(self, count: int) -> int:
        if count not in self.facts.keeps:
            raise ValueError(
                f"{count} tokens: {self.facts.name} pools to {', '.join(map(str, self.facts.keeps))}"
            )
        return isqrt(count)
