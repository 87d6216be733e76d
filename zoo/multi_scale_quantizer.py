"""Multi-scale residual quantization: coarse levels tick more slowly (SNAC, arXiv 2410.14411)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..kernels.precision import working_dtype
from .chance import Chance
from .codebook_axis import check_discrete, drop_axis
from .quantizer import Quantized, Quantizer
from .residual_quantizer import ResidualQuantized, ResidualQuantizer


class MultiScaleQuantizer(Quantizer):
    """Residual levels on one time axis: a code is found for the mean of `stride` frames and stands for them.

    levels   quantizers of one width D with one codebook each, coarse first
    strides  frames per code of each level; the first is the longest and a multiple of all others
    keeps    the counts of ids that end with a level: 1, 3, 7 for strides 4, 2, 1

    A token is one code of the first level and all that lies under it: 1 + 2 + 4 ids for strides 4, 2, 1, each
    level in order of time. The number of frames must be a multiple of the first stride: pad the signal.

    Source: hubertsiuzdak/snac, snac/vq.py. Gradients run through the codes, as there; `detached` as in
    `ResidualQuantizer`.
    """

    def __init__(
        self, levels: Sequence[Quantizer], strides: Sequence[int], *, detached: bool = False
    ) -> None:
        super().__init__()
        if len(levels) != len(strides) or not strides or any(s < 1 or strides[0] % s for s in strides):
            raise ValueError(
                f"{len(levels)} levels with strides {tuple(strides)}: expected one stride per level, each a "
                "divisor of the first"
            )
        self.frames = strides[0]
        self.residual = ResidualQuantizer(
            [_Level(level, self.frames, stride) for level, stride in zip(levels, strides, strict=True)],
            detached=detached,
        )
        self.codebook_sizes, self.keeps = self.residual.codebook_sizes, self.residual.keeps
        self.dim_in = self.dim_out = levels[0].dim_in

    def forward(
        self, latents: Tensor, *, lengths: Tensor | None = None, generator: Chance = None
    ) -> ResidualQuantized:
        """As `ResidualQuantizer.forward`; usage has a row per level.

        latents  (B, ..., T, D) float -> latents (B, ..., T, D), values (B, ..., T / strides[0], Q)
        lengths  (B,) int64 on the CPU, ids kept of each token; a level that does not fit in whole is dropped
        """
        quantized = self.residual(self._fold(latents), lengths=lengths, generator=generator)
        return replace(
            quantized, latents=self._unfold(quantized.latents), first=self._unfold(quantized.first)
        )

    def encode(self, latents: Tensor, *, keep: int | None = None, generator: Chance = None) -> Tensor:
        """keep: how many ids per token to compute, one of `keeps`. Returns (..., T / strides[0], keep)."""
        return self.residual.encode(self._fold(latents), keep=keep, generator=generator)

    def decode(self, values: Tensor) -> Tensor:
        """(..., N, q) int64, the first q ids of each token, q one of `keeps` -> (..., N * strides[0], D)."""
        return self._unfold(self.residual.decode(values))

    def _fold(self, latents: Tensor) -> Tensor:
        """(..., T, D) -> (..., N, strides[0] * D): a row holds the frames of one token."""
        self._check_latents(latents)
        if latents.ndim < 2 or latents.shape[-2] % self.frames:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)}: expected (..., T, {self.dim_in}), T a multiple of "
                f"{self.frames}: pad the signal"
            )
        return latents.unflatten(-2, (-1, self.frames)).flatten(-2)

    def _unfold(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.frames, self.dim_out)).flatten(-3, -2)


class _Level(Quantizer):
    """A quantizer on rows of `frames` frames at a time, of which it sees means of `stride`."""

    def __init__(self, inner: Quantizer, frames: int, stride: int) -> None:
        super().__init__()
        check_discrete(inner)
        if len(inner.codebook_sizes) != 1:
            raise ValueError(f"level with codebooks {inner.codebook_sizes}: expected one")
        self.inner = inner
        self.stride = stride
        self.codebook_sizes = inner.codebook_sizes * (frames // stride)
        self.dim_in = self.dim_out = frames * inner.dim_in

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        quantized = self.inner(self._pool(latents), generator=generator)
        return replace(
            quantized, latents=self._repeat(quantized.latents), values=drop_axis(quantized.values, self)
        )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        return drop_axis(self.inner.encode(self._pool(latents), generator=generator), self)

    def decode(self, values: Tensor) -> Tensor:
        if len(self.codebook_sizes) == 1:
            values = values.unsqueeze(-1)
        return self._repeat(self.inner.decode(values))

    def _pool(self, rows: Tensor) -> Tensor:
        """(..., frames * D) -> (..., frames / stride, D)."""
        rows = rows.to(working_dtype(rows))
        return rows.unflatten(-1, (-1, self.stride, self.inner.dim_in)).mean(dim=-2)

    def _repeat(self, codes: Tensor) -> Tensor:
        return codes.repeat_interleave(self.stride, dim=-2).flatten(-2)
