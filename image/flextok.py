"""FlexTok (Bachmann et al. 2025, arXiv 2502.13967): images as 1 to 256 ordered tokens, decoded by a flow.

A frozen autoencoder turns the image into a latent map. A transformer reads its patches beside a row of
registers, which are quantized; since a register sees only those before it, any prefix of the row can be
encoded alone. A second transformer, told the tokens there are, moves noise along a rectified flow to a latent
map that fits them: few tokens give a plausible image, many the image itself.

Written anew after the paper and the layout of apple/ml-flextok 87d00cc. That code is under a non-commercial
licence and none of it is here; the weights are under apple-amlr, for research only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..kernels.digits import check_sizes
from ..kernels.precision import working_dtype
from ..zoo.chance import Chance, draw_noise
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.fsq import FiniteScalarQuantizer
from ..zoo.neural import Reconstruction
from ..zoo.tokens import Tokens
from ..zoo.transformer import TransformerSize
from .diffusers_vae import AutoencoderSize, FrozenAutoencoder
from .flextok_parts import FlexTokDecoder, FlexTokEncoder
from .flow import sample_flow
from .image_tokenizer import ImageTokenizer
from .preprocess import ImagePreprocess

# What the authors decode with.
STEPS = 20
GUIDANCE = 7.5


@dataclass(frozen=True)
class FlexTokConfig(Config):
    """One FlexTok.

    encoder, decoder     sizes of the two transformers
    num_tokens           N, tokens an image at most
    levels               of the finite scalar quantizer, one per feature of a token
    image_size           pixels along one side
    preprocess           how a picture gets that size
    vae                  shape of the autoencoder
    vae_scale            what its latents are multiplied by
    sample_posterior     given a generator, encode a sample of the autoencoder's posterior, as the official
                         code does; without one it is always the mean
    patch_size           places of the latent map along one side of a patch
    position_grid        patches along one side of the table of places, as many as the image has or more
    separate_modulation  the time modulates patches and registers each in their own way
    time_waves           frequencies at which the time is embedded
    time_scale           the highest of them, in radians
    null_share           of the items in training, how many are decoded without their tokens, for guidance
    """

    tokenizer_type: ClassVar[str] = "flextok"

    encoder: TransformerSize
    decoder: TransformerSize
    num_tokens: int = 256
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    image_size: int = 256
    preprocess: ImagePreprocess = field(default_factory=lambda: ImagePreprocess(interpolation="bilinear"))
    vae: AutoencoderSize = field(default_factory=AutoencoderSize)
    vae_scale: float = 0.88
    sample_posterior: bool = True
    patch_size: int = 2
    position_grid: int = 16
    separate_modulation: bool = True
    time_waves: int = 128
    time_scale: float = 1000.0
    null_share: float = 0.2

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_tokens", 1, 16384),
            ("image_size", 1, 8192),
            ("vae_scale", 1e-6, 1e6),
            ("patch_size", 1, 64),
            ("position_grid", 1, 1024),
            ("time_waves", 1, 65536),
            ("time_scale", 1e-6, 1e6),
            ("null_share", 0, 1),
        ):
            check_range(name, getattr(self, name), low, high)
        check_sizes(self.levels)
        patch = self.patch_size * self.vae.downscaling
        if self.image_size % patch or self.image_size // patch > self.position_grid:
            raise ValueError(
                f"image_size={self.image_size}: expected a multiple of {patch}, the pixels of a patch, "
                f"and at most position_grid={self.position_grid} of them"
            )
        if self.preprocess.size != self.image_size:
            raise ValueError(
                f"preprocess.size={self.preprocess.size} with image_size={self.image_size}: expected the same"
            )
        for size in (self.encoder, self.decoder):
            if size.width % 4:
                raise ValueError(f"width={size.width}: expected a multiple of 4, for the sines of the places")

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="flextok",
            modality="image",
            channels=3,
            max_tokens=self.num_tokens,
            codebook_sizes=(math.prod(self.levels),),
            latent_dim=len(self.levels),
            nested="tokens",
            draws_noise=True,
        )


class FlexTok(ImageTokenizer):
    """Images of one size as a row of tokens; any prefix of the row decodes, by sampling from a flow.

    Decoding is repeatable: every item starts from the noise of seed 0. Generators give other images that fit
    the same tokens.
    """

    config_type = FlexTokConfig
    config: FlexTokConfig

    def __init__(self, config: FlexTokConfig) -> None:
        super().__init__(config)
        self.vae = FrozenAutoencoder(config.vae)
        self.encoder = FlexTokEncoder(config)
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.decoder = FlexTokDecoder(config)

    @property
    def loss_defaults(self) -> dict[str, float]:
        """The flow's own loss, which stands where the quantizer's does, and no pixels."""
        return {"mse": 0.0}

    @torch.no_grad()
    def encode(
        self,
        signal: Tensor | Sequence[Any],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
    ) -> Tokens:
        """See `Tokenizer.encode`. `keep` registers alone are computed, and give the ids that all would."""

        def latents_of(images: Tensor, chance: Chance) -> Tokens:
            noise = None if chance is None else self._noise(len(images), chance)
            return self.encode_latents(images, keep=keep, noise=noise)

        return self._encode_with(signal, extents, keep, generator, latents_of)

    @torch.no_grad()
    def decode(
        self,
        tokens: Tokens,
        *,
        generator: Chance = None,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        norm_guidance: bool = True,
    ) -> Tensor:
        """See `Tokenizer.decode`; the keywords are those of `sample_flow`."""

        def signal_of(latents: Tokens) -> Tensor:
            noise = self._noise(len(latents), generator)
            return self.decode_latents(
                latents, noise=noise, steps=steps, guidance=guidance, norm_guidance=norm_guidance
            )

        return self._decode_with(tokens, generator, signal_of)

    def encode_latents(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        noise: Tensor | None = None,
    ) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D), one feature per level.

        keep   at most so many registers
        noise  (B, C, h, w) standard normal, to sample the autoencoder's posterior if `sample_posterior`
        """
        latents = self.encoder(self._map_of(signal, noise), keep)
        lengths = torch.full((len(latents),), latents.shape[1], dtype=torch.int64, device=latents.device)
        return Tokens(
            latents, lengths, self.default_extents(lengths) if extents is None else extents, self.facts
        )

    def decode_latents(
        self,
        tokens: Tokens,
        *,
        noise: Tensor | None = None,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        norm_guidance: bool = True,
    ) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W). Items of different lengths come out as they would alone.

        noise  (B, C, h, w) standard normal, where the flow starts; that of seed 0 by default
        The other keywords are those of `sample_flow`.
        """
        registers = self.decoder.embed(tokens.values, tokens.lengths)
        if guidance != 1:
            registers = torch.cat([registers, self.decoder.unconditional(registers)])

        def velocity(maps: Tensor, times: Tensor) -> Tensor:
            return self.decoder(maps.to(registers.dtype), times, registers)

        noise = self._noise(len(tokens), None) if noise is None else noise
        # The sampler adds up many small steps: in float32 at least.
        start = noise.to(registers.device, working_dtype(registers))
        maps = sample_flow(velocity, start, steps=steps, guidance=guidance, norm_guidance=norm_guidance)
        return self._image_of(maps)

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """((K, D),): the level centres that the decoder reads."""
        return (self.quantizer.decode(torch.arange(self.quantizer.codebook_sizes[0], device=self.device)),)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`; `LengthPolicy(num_tokens)` makes the lengths.

        In train mode the flow is asked once, at a random time: `signal` is where its velocity points, and
        `quantized.loss` the flow's own loss, since this quantizer has none. All noise comes from `generator`,
        or from torch's own. In eval mode `signal` is what `decode_latents` gives.
        """
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        if self.training and generator is None:
            generator = torch.default_generator
        noise = None if generator is None else self._noise(len(signal), generator)
        maps = self._map_of(signal, noise)
        quantized = self.quantizer(self.encoder(maps))
        if lengths is None:
            lengths = torch.full((len(signal),), self.config.num_tokens)
        lengths = lengths.to(signal.device)
        if not self.training:
            tokens = Tokens(quantized.latents, lengths, self.default_extents(lengths), self.facts)
            start = self._noise(len(signal), generator)
            return Reconstruction(self.decode_latents(tokens, noise=start), quantized)
        registers = self.decoder.embed(quantized.latents, lengths)
        estimate, loss = self._flow_step(maps, registers, generator)
        return Reconstruction(self._image_of(estimate), replace(quantized, loss=quantized.loss + loss))

    def _flow_step(self, maps: Tensor, registers: Tensor, generator: Chance) -> tuple[Tensor, Tensor]:
        """Clean maps as the velocity at one random time has them, and that velocity's mean squared error.

        Times are logit-normal (Esser et al. 2024, arXiv 2403.03206); some items get no tokens, for guidance.
        """
        batch = len(maps)
        noise = self._noise(batch, generator).to(maps)
        times = draw_noise((batch, 1), generator).sigmoid().to(maps)
        uniform = torch.special.ndtr(draw_noise((batch, 1), generator)).to(maps)
        dropped = uniform < self.config.null_share
        registers = torch.where(dropped[..., None], self.decoder.unconditional(registers), registers)
        time = times[..., None, None]
        noised = (1 - time) * maps + time * noise
        velocity = self.decoder(noised, times[:, 0], registers)
        loss = (velocity - (noise - maps)).float().square().mean()
        return noised - time * velocity, loss

    def _map_of(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """The scaled latent map of images (B, 3, H, W): (B, C, h, w)."""
        if not len(images):  # which diffusers cannot reshape
            return self._noise(0, None).to(images)
        return self.config.vae_scale * self.vae.encode(
            images, noise if self.config.sample_posterior else None
        )

    def _image_of(self, maps: Tensor) -> Tensor:
        return self.vae.decode(maps.to(self.dtype) / self.config.vae_scale)

    def _noise(self, batch: int, generator: Chance) -> Tensor:
        side = self.config.image_size // self.config.vae.downscaling
        return draw_noise((batch, self.config.vae.latent_dim, side, side), generator)
