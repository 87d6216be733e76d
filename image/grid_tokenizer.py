"""What convolutional image tokenizers share: a token for each place of a latent map, images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.chance import Chance
from ..zoo.neural import Reconstruction
from ..zoo.tokens import Tokens
from .image_tokenizer import ImageTokenizer, check_range


class GridTokenizer(ImageTokenizer):
    """Images whose sides are multiples of `config.stride`, as a grid of tokens row by row.

    A family brings its configuration, with `stride`, and the parts: an encoder from images to latents
    (B, D, h, w), a quantizer of (..., D), and a decoder from latents to images.
    """

    # Whether the networks know images in [-1, 1], otherwise in [0, 1].
    symmetric: ClassVar[bool] = True

    def check_signal(self, signal: Tensor) -> None:
        """float (B, 3, H, W) in [0, 1], finite; H and W multiples of the stride."""
        if signal.ndim != 4 or signal.shape[1] != 3:
            raise ValueError(
                f"images have shape {tuple(signal.shape)}: {self.facts.name} takes (B, 3, H, W); "
                "pass each picture through tokenizer.preprocess"
            )
        self.num_tokens(signal.shape[2:])
        check_range(signal)

    def num_tokens(self, extent: Sequence[int]) -> int:
        """One for every square of stride x stride pixels."""
        stride = self.config.stride
        if len(extent) != 2 or any(size < stride or size % stride for size in extent):
            raise ValueError(
                f"extent {tuple(extent)}: {self.facts.name} takes sides that are multiples of {stride}, e.g. "
                f"({16 * stride}, {16 * stride})"
            )
        return (extent[0] // stride) * (extent[1] // stride)

    def default_extents(self, lengths: Tensor) -> Tensor:
        """(B, 2): the smallest square that holds so many tokens."""
        sides = lengths.double().sqrt().ceil().long().clamp(min=1) * self.config.stride
        return sides[:, None].expand(-1, 2).clone()

    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """See `NeuralTokenizer`; values (B, h w, D). Padding counts as image: `encode` takes it off."""
        latents = self.encoder(2 * signal - 1 if self.symmetric else signal).flatten(2).transpose(1, 2)
        batch, count, _ = latents.shape
        lengths = torch.full((batch,), count, dtype=torch.int64, device=latents.device)
        whole = torch.tensor(signal.shape[2:], device=latents.device).expand(batch, 2).clone()
        return Tokens(latents, lengths, whole, self.facts)

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W), smaller images with black around them. Those of one size are
        decoded together."""
        sizes = tokens.extents.tolist()
        highest, widest = tokens.extents.amax(dim=0).tolist()
        images: dict[int, Tensor] = {}
        for high, wide in {(high, wide): None for high, wide in sizes}:
            members = [index for index, size in enumerate(sizes) if size == [high, wide]]
            painted = self._paint(tokens.values[members], high, wide)
            painted = F.pad(painted, (0, widest - wide, 0, highest - high))
            images.update(zip(members, painted, strict=True))
        return torch.stack([images[index] for index in range(len(sizes))])

    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """((K, D),), what the decoder reads for each id; () when continuous."""
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
        """See `NeuralTokenizer`; every token is kept."""
        if captions is not None:
            raise ValueError(f"{self.facts.name} takes no captions: leave them out")
        if lengths is not None:
            raise ValueError(f"{self.facts.name} is not nested and keeps all tokens: leave lengths out")
        latents = self.encode_latents(signal)
        quantized = self.quantizer(latents.values, generator=generator)
        return Reconstruction(self.decode_latents(replace(latents, values=quantized.latents)), quantized)

    def _paint(self, latents: Tensor, high: int, wide: int) -> Tensor:
        """Latents (B, N, D), N at least h w, to images (B, 3, high, wide)."""
        rows, columns = high // self.config.stride, wide // self.config.stride
        grid = latents[:, : rows * columns].transpose(1, 2).unflatten(2, (rows, columns))
        images = self.decoder(grid.to(self.dtype))
        return (images + 1) / 2 if self.symmetric else images
