"""Tiny image tokenizers of no paper: a KL autoencoder, and a grid of residual codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenzoo.image.image_tokenizer import ImageTokenizer, check_range
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.zoo.chance import Chance
from tokenzoo.zoo.config import Config
from tokenzoo.zoo.config import check_range as check_number
from tokenzoo.zoo.facts import Facts
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.neural import NeuralTokenizer, Reconstruction
from tokenzoo.zoo.quantizer import Quantized, Quantizer
from tokenzoo.zoo.tokens import Tokens
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

_EIGHT, _AS_IS = ImagePreprocess(size=8), ImagePreprocess(size=None)


@dataclass(frozen=True)
class ToyKLConfig(Config):
    """Continuous tokens, one a patch, of images of one size."""

    tokenizer_type: ClassVar[str] = "toy-kl"

    image_size: int = 8
    patch_size: int = 4
    dim: int = 3
    preprocess: ImagePreprocess = _EIGHT

    def __post_init__(self) -> None:
        check_number("image_size", self.image_size, 1, 64)
        check_number("dim", self.dim, 1, 64)

    def facts(self) -> Facts:
        return Facts(
            name="toy-kl",
            modality="image",
            channels=3,
            max_tokens=(self.image_size // self.patch_size) ** 2,
            latent_dim=self.dim,
            draws_noise=True,
        )


class ToyKL(ImageTokenizer):
    """A KL autoencoder in miniature."""

    config_type = ToyKLConfig
    config: ToyKLConfig

    def __init__(self, config: ToyKLConfig) -> None:
        super().__init__(config)
        patch, dim = config.patch_size, config.dim
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 2 * dim, patch, stride=patch), nn.BatchNorm2d(2 * dim), nn.Dropout(0.5)
        )
        self.quantizer = GaussianPosterior(dim)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(dim, 3, patch, stride=patch), nn.Dropout(0.5))

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        latents = self.encoder(signal).flatten(2).transpose(1, 2)
        lengths = torch.full((len(latents),), latents.shape[1], device=latents.device)
        return Tokens(latents, lengths, self.default_extents(lengths), self.facts)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        side = self.config.image_size // self.config.patch_size
        return self.decoder(tokens.values.transpose(1, 2).unflatten(2, (side, side)))

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
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
        latents = self.encode_latents(signal)
        quantized = self.quantizer(latents.values, generator=generator)
        painted = Tokens(quantized.latents, latents.lengths, latents.extents, self.facts)
        return Reconstruction(self.decode_latents(painted), quantized)


@dataclass(frozen=True)
class ToyGridConfig(Config):
    """Images of any size in whole patches; the first patches alone decode, the rest stays black."""

    tokenizer_type: ClassVar[str] = "toy-grid"

    patch_size: int = 4
    num_codes: int = 16
    max_tokens: int = 64
    preprocess: ImagePreprocess = _AS_IS

    def __post_init__(self) -> None:
        check_number("patch_size", self.patch_size, 1, 16)
        check_number("num_codes", self.num_codes, 2, 1024)

    def facts(self) -> Facts:
        return Facts(
            name="toy-grid",
            modality="image",
            channels=3,
            max_tokens=self.max_tokens,
            codebook_sizes=(self.num_codes,),
            latent_dim=1,
            nested="tokens",
        )


class ToyGrid(NeuralTokenizer):
    """A token is the grey level of a patch, row by row: exact enough to assert what decodes."""

    config_type = ToyGridConfig
    config: ToyGridConfig

    def __init__(self, config: ToyGridConfig) -> None:
        super().__init__(config)
        patch = config.patch_size
        self.encoder = nn.Conv2d(3, 1, patch, stride=patch)
        self.quantizer = VectorQuantizer(config.num_codes, 1)
        self.decoder = nn.ConvTranspose2d(1, 3, patch, stride=patch, bias=False)
        with torch.no_grad():
            self.encoder.weight.fill_(1 / (3 * patch**2))
            self.encoder.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
            self.quantizer.codebook.copy_(torch.linspace(0, 1, config.num_codes)[:, None])
            self.decoder.weight.fill_(1)

    @property
    def preprocess(self) -> ImagePreprocess:
        return self.config.preprocess

    def check_signal(self, signal: Tensor) -> None:
        if signal.ndim != 4 or signal.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(signal.shape)}: {self.facts.name} takes (B, 3, H, W)")
        self.num_tokens(signal.shape[2:])
        check_range(signal)

    def num_tokens(self, extent: Sequence[int]) -> int:
        patch = self.config.patch_size
        if len(extent) != 2 or any(size < patch or size % patch for size in extent):
            raise ValueError(f"extent {tuple(extent)}: {self.facts.name} takes multiples of {patch}")
        count = (extent[0] // patch) * (extent[1] // patch)
        if count > self.config.max_tokens:
            raise ValueError(f"extent {tuple(extent)}: more than {self.config.max_tokens} tokens")
        return count

    def default_extents(self, lengths: Tensor) -> Tensor:
        """The smallest square that holds each string."""
        sides = lengths.double().sqrt().ceil().long().clamp(min=1) * self.config.patch_size
        return sides[:, None].expand(-1, 2).clone()

    def finish_signal(self, signal: Tensor, tokens: Tokens) -> Tensor:
        return signal.float().clamp(0, 1)

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        latents = self.encoder(signal)
        batch, _, high, wide = latents.shape
        extents = torch.tensor(signal.shape[2:], device=signal.device).expand(batch, 2).clone()
        lengths = torch.full((batch,), high * wide, device=signal.device)
        return Tokens(latents.flatten(2).transpose(1, 2), lengths, extents, self.facts)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        patch = self.config.patch_size
        high, wide = tokens.extents.amax(0).tolist()
        canvas = tokens.values.new_zeros(len(tokens), 3, high, wide)
        for item, (height, width) in enumerate(tokens.extents.tolist()):
            cells = height * width // patch**2
            count = int(tokens.lengths[item])
            row = F.pad(tokens.values[item, :count, 0], (0, cells - count))
            canvas[item, :, :height, :width] = self.decoder(row.view(1, 1, height // patch, width // patch))[
                0
            ]
        return canvas

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
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
        latents = self.encode_latents(signal)
        quantized = self.quantizer(latents.values)
        kept = latents.lengths if lengths is None else lengths
        return Reconstruction(
            self.decode_latents(Tokens(quantized.latents, kept, latents.extents, self.facts)), quantized
        )


class ToyResidual(Quantizer):
    """Each codebook codes what the ones before it left."""

    def __init__(self, sizes: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(VectorQuantizer(size, dim) for size in sizes)
        for depth, level in enumerate(self.levels):
            with torch.no_grad():
                level.codebook.normal_(std=0.5**depth)  # pyright: ignore[reportCallIssue]
        self.codebook_sizes = sizes
        self.dim_in = self.dim_out = dim

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        values = self.encode(latents)
        summed = self.decode(values)
        loss = (latents - summed).square().mean()
        return Quantized(latents + (summed - latents).detach(), values, loss, None)

    def encode(self, latents: Tensor, *, keep: int | None = None, generator: Chance = None) -> Tensor:
        ids = []
        for level in self.levels[:keep]:
            ids.append(level.encode(latents))  # pyright: ignore[reportCallIssue]
            latents = latents - level.decode(ids[-1])  # pyright: ignore[reportCallIssue]
        return torch.stack(ids, dim=-1)

    def decode(self, values: Tensor) -> Tensor:
        levels = zip(self.levels, values.unbind(-1), strict=False)
        return torch.stack([level.decode(ids) for level, ids in levels]).sum(0)  # pyright: ignore
