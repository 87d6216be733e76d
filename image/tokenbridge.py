"""TokenBridge (Wang et al. 2025, arXiv 2503.16430): a trained continuous tokenizer made discrete as it is.

Each feature of each latent goes to one of a few bins, equally likely under a normal distribution, and is an
id of its own. The authors do it to MAR's KL-16; here any continuous image tokenizer may lie below.

Source: YuqingWang1029/TokenBridge, reconstruction.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..zoo import catalogue
from ..zoo.chance import Chance
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.neural import Reconstruction
from ..zoo.post_training import PostTrainingQuantizer
from ..zoo.quantizer import Quantized, Quantizer
from ..zoo.tokens import Tokens
from .image_tokenizer import ImageTokenizer
from .preprocess import ImagePreprocess


@dataclass(frozen=True)
class TokenBridgeConfig(Config):
    """A continuous image tokenizer, and the bins of its latents; see `PostTrainingQuantizer`.

    base_type     tokenizer_type of the continuous tokenizer
    base          its configuration, as plain values
    levels        bins of a feature; 64 are 6 bits
    clip          latents (z - shift) * scale are cut to [-clip, clip]
    deviations    as many standard deviations are taken for `clip`
    scale, shift  one number, or one a feature
    """

    tokenizer_type: ClassVar[str] = "tokenbridge"

    base_type: str
    base: dict = field(hash=False)
    levels: int = 64
    clip: float = 5.0
    deviations: float = 3.0
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        check_range("levels", self.levels, 2, 65536)
        check_range("clip", self.clip, 1e-6, 1e6)
        check_range("deviations", self.deviations, 0.1, 8)
        # Complete, defaults too, so that equal configurations compare equal.
        object.__setattr__(self, "base", self.base_config.to_dict())
        below = self.base_config.facts()
        if below.modality != "image" or below.is_discrete or not below.has_decoder:
            raise ValueError(
                f"base_type={self.base_type!r}: expected a continuous image tokenizer with a decoder"
            )
        for name, values in (("scale", self.scale), ("shift", self.shift)):
            if len(values) not in (1, below.latent_dim):
                raise ValueError(f"{name} has {len(values)} entries: expected 1 or {below.latent_dim}")

    @property
    def base_config(self) -> Any:
        """The configuration of the continuous tokenizer, checked."""
        family: Any = catalogue.family(self.base_type)
        return family.config_type.from_dict(self.base)

    def facts(self) -> Facts:
        """All but identity: those of the tokenizer below, but for the codebooks."""
        below = self.base_config.facts()
        return replace(below, name="tokenbridge", codebook_sizes=(self.levels,) * below.latent_dim)

    def build_bins(self) -> PostTrainingQuantizer:
        """The bins of this configuration; they have no weights."""
        dim = self.base_config.facts().latent_dim
        return PostTrainingQuantizer(
            dim,
            self.levels,
            clip=self.clip,
            deviations=self.deviations,
            scale=self.scale if len(self.scale) == dim else self.scale[0],
            shift=self.shift if len(self.shift) == dim else self.shift[0],
        )


class TokenBridge(ImageTokenizer):
    """The tokens of a continuous tokenizer, each feature an id: (B, N, D) int64. Weights are those below.

    With a generator a sample of the posterior is binned, as officially; without one its mean.
    """

    config_type = TokenBridgeConfig
    config: TokenBridgeConfig

    def __init__(self, config: TokenBridgeConfig) -> None:
        super().__init__(config)
        family: Any = catalogue.family(config.base_type)
        base: ImageTokenizer = family(config.base_config)
        self.encoder, self.decoder = base.encoder, base.decoder
        self.quantizer = BinnedLatents(base.quantizer, config.build_bins())
        # In a tuple, so that its parts are not registered a second time.
        self._base = (base,)

    @classmethod
    def over(
        cls, tokenizer: ImageTokenizer, images: Tensor, *, levels: int = 64, deviations: float = 3.0
    ) -> Self:
        """A discrete tokenizer with a copy of the weights of this continuous one.

        images  (B, 3, H, W) float in [0, 1]: their latents tell scale and shift of each feature
        """
        tokens = tokenizer.encode(images)
        if tokens.is_discrete:
            raise ValueError(f"{tokenizer.facts.name} is discrete already: expected a continuous tokenizer")
        fitted = PostTrainingQuantizer.fitted(tokens.values[tokens.mask], levels, deviations=deviations)
        made = cls(
            TokenBridgeConfig(
                base_type=tokenizer.config_type.tokenizer_type,
                base=tokenizer.config.to_dict(),
                levels=levels,
                clip=fitted.clip,
                deviations=deviations,
                scale=fitted.scale,
                shift=fitted.shift,
            )
        )
        made.load_state_dict(tokenizer.state_dict())
        made.identify(
            name=f"{tokenizer.facts.name}-{levels}-levels",
            revision=None,
            fingerprint=None,
            licence=tokenizer.facts.licence,
        )
        made.provenance = tokenizer.provenance
        return made.eval().to(tokenizer.device, tokenizer.dtype)

    @property
    def base(self) -> ImageTokenizer:
        """The continuous tokenizer, sharing these weights."""
        return self._base[0]

    @property
    def preprocess(self) -> ImagePreprocess:
        return self.base.preprocess

    @property
    def loss_defaults(self) -> dict[str, float]:
        """As the tokenizer below; the bins have no weights and pass gradients straight through."""
        return self.base.loss_defaults

    def check_signal(self, signal: Tensor) -> None:
        """As the tokenizer below."""
        self.base.check_signal(signal)

    def num_tokens(self, extent: Sequence[int]) -> int:
        """As the tokenizer below."""
        return self.base.num_tokens(extent)

    def default_extents(self, lengths: Tensor) -> Tensor:
        """As the tokenizer below."""
        return self.base.default_extents(lengths)

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; the values of the tokenizer below, mostly (B, N, 2 D)."""
        return replace(self.base.encode_latents(signal, extents=extents), facts=self.facts)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W)."""
        return self.base.decode_latents(tokens)

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """D tables (levels, D), each zero but for its own feature: what the decoder reads is their sum."""
        dim, levels = self.quantizer.dim_out, self.config.levels
        values = self.quantizer.decode(torch.arange(levels, device=self.device)[:, None].expand(-1, dim))
        return values.diag_embed().unbind(1)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; the loss is that of the posterior, which the bins do not change."""
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        latents = self.encode_latents(signal, extents=extents)
        quantized = self.quantizer(latents.values, generator=generator)
        kept = replace(
            latents, values=quantized.latents, lengths=latents.lengths if lengths is None else lengths
        )
        return Reconstruction(self.decode_latents(kept), quantized)


class BinnedLatents(Quantizer):
    """The values of a continuous quantizer, then the bins of their features."""

    def __init__(self, continuous: Quantizer, bins: PostTrainingQuantizer) -> None:
        super().__init__()
        self.continuous = continuous
        self.bins = bins
        self.codebook_sizes = bins.codebook_sizes
        self.dim_in = continuous.dim_in
        self.dim_out = bins.dim_out

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """Loss: that of the continuous quantizer."""
        drawn = self.continuous(latents, generator=generator)
        return replace(self.bins(drawn.latents), loss=drawn.loss)

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        return self.bins.encode(self.continuous.encode(latents, generator=generator))

    def decode(self, values: Tensor) -> Tensor:
        return self.bins.decode(values)
