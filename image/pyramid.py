"""The embedded default: a small nested tokenizer, a transform codec at heart with a learned decoder on top.

The image is cut into patches and each patch is projected on its principal components (encoder). The latent
map is quantized as a residual pyramid, coarse cells first (`pyramid_quantizer`). The tokens form one row, and
any prefix decodes, as in One-D-Piece (arXiv 2501.10064): places without a token yet keep what coarser ones
said, and a ConvNeXt decoder (Liu et al. 2022, arXiv 2201.03545), told how much each stage says of each place,
makes the best of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..zoo.chance import Chance
from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.fitting import principal_axes
from ..zoo.neural import Reconstruction
from ..zoo.tokens import Tokens
from .image_tokenizer import ImageTokenizer
from .preprocess import ImagePreprocess
from .pyramid_quantizer import PyramidQuantizer, PyramidStage

_PREPROCESS = ImagePreprocess(size=128, interpolation="lanczos")
# Patches of more images than this add nothing to the principal components.
_MAX_AXES_IMAGES = 2000


@dataclass(frozen=True)
class PyramidConfig(Config):
    """A residual pyramid.

    image_size  pixels a side, a multiple of patch_size
    channels    principal components of a patch that are kept
    stages      coarse to fine
    codes       codes of each of the two codebooks; a token is a pair, so its codebook has codes**2 entries
    width, depth, expand  of the decoder's ConvNeXt blocks
    """

    tokenizer_type: ClassVar[str] = "pyramid"

    image_size: int = 128
    patch_size: int = 8
    channels: int = 32
    stages: tuple[PyramidStage, ...] = (
        PyramidStage(grid=1, steps=8, channels=4, dim=96),
        PyramidStage(grid=4, steps=3, channels=12, dim=64),
        PyramidStage(grid=8, steps=1, channels=20, dim=32),
        PyramidStage(grid=16, steps=1, channels=32, dim=20, tree=True),
    )
    codes: int = 256
    width: int = 128
    depth: int = 6
    expand: int = 3
    preprocess: ImagePreprocess = _PREPROCESS

    def __post_init__(self) -> None:
        for name, high in (("image_size", 4096), ("patch_size", 64), ("codes", 4096), ("width", 4096),
                           ("depth", 64), ("expand", 8)):  # fmt: skip
            check_range(name, getattr(self, name), 1, high)
        check_range("channels", self.channels, 1, 3 * self.patch_size**2)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size}: expected a multiple of patch_size={self.patch_size}"
            )
        if self.preprocess.size != self.image_size:
            raise ValueError(
                f"preprocess makes {self.preprocess.size} pixels: expected image_size={self.image_size}"
            )
        if not 1 <= len(self.stages) <= 16:
            raise ValueError(f"{len(self.stages)} stages: expected 1 ... 16")
        for stage in self.stages:
            if self.side % stage.grid or stage.channels > self.channels:
                raise ValueError(
                    f"{stage}: expected a grid that divides {self.side} and at most {self.channels} channels"
                )
            if stage.dim > stage.channels * (self.side // stage.grid) ** 2:
                raise ValueError(f"{stage}: a cell has fewer than dim={stage.dim} values")

    @property
    def side(self) -> int:
        """Cells of the latent map a side."""
        return self.image_size // self.patch_size

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="pyramid",
            modality="image",
            channels=3,
            max_tokens=sum(stage.tokens for stage in self.stages),
            codebook_sizes=(self.codes**2,),
            nested="tokens",
        )


class PatchEncoder(nn.Module):
    """Principal components of patches: (B, 3, H, W) in [0, 1] -> (B, S*S, C + stages), the last ones 1."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        size = 3 * config.patch_size**2
        self.patch_size, self.stages = config.patch_size, len(config.stages)
        self.mean = nn.Parameter(torch.zeros(size))
        self.axes = nn.Parameter(torch.zeros(size, config.channels))

    def initialise(self, images: Tensor) -> None:
        rows = self._patches(images[:: max(1, len(images) // _MAX_AXES_IMAGES)]).flatten(0, 1)
        self.mean.copy_(rows.mean(0))
        self.axes.copy_(principal_axes(rows - self.mean, self.axes.shape[1]))

    def forward(self, images: Tensor) -> Tensor:
        latents = (self._patches(images) - self.mean) @ self.axes
        # Before quantizing every stage is there in full: see PyramidQuantizer.
        return F.pad(latents, (0, self.stages), value=1.0)

    def _patches(self, images: Tensor) -> Tensor:
        # Not pixel_unshuffle, which does nothing to an empty batch.
        return rearrange(
            images, "b c (gy y) (gx x) -> b (gy gx) (c y x)", y=self.patch_size, x=self.patch_size
        )


class ConvNeXtBlock(nn.Module):
    """(B, D, S, S) -> the same, told the coverage (B, stages, S, S); the identity at first."""

    def __init__(self, width: int, expand: int, stages: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.told = nn.Conv2d(stages, width, 1)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expand * width)
        self.down = nn.Linear(expand * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, hidden: Tensor, coverage: Tensor) -> Tensor:
        rows = (self.depthwise(hidden) + self.told(coverage)).permute(0, 2, 3, 1)
        return hidden + self.down(F.gelu(self.up(self.norm(rows)))).permute(0, 3, 1, 2)


class PatchDecoder(nn.Module):
    """Latents (B, S*S, C + stages) -> (B, 3, H, W), not clamped.

    The encoder's transpose, plus a learned correction that starts at zero.
    """

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        size, stages = 3 * config.patch_size**2, len(config.stages)
        self.patch_size, self.side, self.channels = config.patch_size, config.side, config.channels
        self.mean = nn.Parameter(torch.zeros(size))
        self.axes = nn.Parameter(torch.zeros(config.channels, size))
        self.scale = nn.Parameter(torch.ones(config.channels))
        self.stem = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.width, config.expand, stages) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def initialise(self, encoder: PatchEncoder, latents: Tensor) -> None:
        self.mean.copy_(encoder.mean)
        self.axes.copy_(encoder.axes.T)
        self.scale.copy_(1 / latents[..., : self.channels].std((0, 1)).clamp(min=1e-6))

    def forward(self, latents: Tensor) -> Tensor:
        transform, coverage = latents[..., : self.channels], latents[..., self.channels :]
        coverage = self._as_map(coverage)
        hidden = self.stem(self._as_map(transform * self.scale))
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            hidden = block(hidden, coverage)
        correction = self.head(self.norm(hidden.flatten(2).transpose(1, 2)))
        return rearrange(
            transform @ self.axes + self.mean + correction,
            "b (gy gx) (c y x) -> b c (gy y) (gx x)",
            gy=self.side, y=self.patch_size, x=self.patch_size,
        )  # fmt: skip

    def _as_map(self, rows: Tensor) -> Tensor:
        """(B, S*S, D) -> (B, D, S, S)"""
        return rows.transpose(1, 2).unflatten(2, (self.side, self.side))


class PyramidTokenizer(ImageTokenizer):
    """Images of one size as a row of code pairs, coarse to fine; any prefix decodes.

    Latent tokens are places of the latent map, (B, S*S, C + stages); see PyramidQuantizer. `quantize` makes
    one row of N tokens of them.
    """

    config_type = PyramidConfig
    config: PyramidConfig

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__(config)
        self.encoder = PatchEncoder(config)
        self.quantizer = PyramidQuantizer(config.stages, config.side, config.channels, config.codes)
        self.decoder = PatchDecoder(config)

    @torch.no_grad()
    def initialise(self, images: Tensor) -> None:
        """Fit the transform codec to images (M, 3, H, W) in [0, 1]: principal components and k-means, seed 0.

        The decoder's correction starts at zero, so the tokenizer works from here on; training improves it.
        """
        self.check_signal(images)
        self.encoder.initialise(images)
        latents = torch.cat([self.encoder(block) for block in images.split(256)])
        self.decoder.initialise(self.encoder, latents)
        self.quantizer.initialise(latents, torch.Generator().manual_seed(0))

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; the values are places of the latent map."""
        latents = self.encoder(signal)
        lengths = torch.full((len(latents),), latents.shape[1], device=latents.device)
        return Tokens(
            latents, lengths, self.default_extents(lengths) if extents is None else extents, self.facts
        )

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W)."""
        return self.decoder(tokens.values)

    def quantize(self, latents: Tokens, generator: Chance = None, *, keep: int | None = None) -> Tokens:
        ids = self.quantizer.encode(latents.values)
        lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        return replace(latents, values=ids, lengths=lengths)

    def dequantize(self, tokens: Tokens) -> Tokens:
        latents = self.quantizer.decode(tokens.values, tokens.lengths)
        lengths = torch.full((len(latents),), latents.shape[1], device=latents.device)
        return replace(tokens, values=latents, lengths=lengths)

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """There are none: what an id means depends on its place in the row. Raises NotImplementedError."""
        raise NotImplementedError(
            f"{self.facts.name} has no table of embeddings: an id means something else in each stage; "
            "start the embeddings of a language model at random"
        )

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`."""
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        if lengths is not None:
            lengths = lengths.to(signal.device)
        quantized = self.quantizer(self.encoder(signal), lengths=lengths)
        return Reconstruction(self.decoder(quantized.latents), quantized)
