"""Split quantization: meaning in the first codebooks, sound in the rest (Mimi, arXiv 2410.00037)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.precision import without_autocast
from .chance import Chance
from .codebook_axis import add_axis, check_discrete, drop_axis, stack_usage
from .quantizer import Quantized, Quantizer
from .quantizer_dropout import check_lengths


@dataclass(frozen=True, eq=False)
class SplitQuantized(Quantized):
    """What a split quantizer made of latents.

    first  (..., dim_out) float, the part of `latents` that the first quantizer gave, with gradient
    """

    first: Tensor


class SplitQuantizer(Quantizer):
    """Two quantizers that read the same latents and whose outputs are added; values of `first` come first.

    first  carries one thing ("semantic"): it does not leave a residual, so `rest` sees the whole latent too
    rest   carries the other ("acoustic"), usually residual stages; its first q codebooks must decode
    roles  one name for each of the two; the attribute `roles` has one per codebook, as `Facts.roles` wants

    Source: kyutai-labs/moshi, quantization/vq.py (SplitResidualVectorQuantizer).
    """

    def __init__(
        self, first: Quantizer, rest: Quantizer, *, roles: tuple[str, str] = ("semantic", "acoustic")
    ) -> None:
        super().__init__()
        if (first.dim_in, first.dim_out) != (rest.dim_in, rest.dim_out):
            raise ValueError(
                f"first of width {first.dim_in} -> {first.dim_out}, rest of width {rest.dim_in} -> "
                f"{rest.dim_out}; expected the same: project both"
            )
        for part in (first, rest):
            check_discrete(part)
        self.first = first
        self.rest = rest
        self.dim_in, self.dim_out = first.dim_in, first.dim_out
        self.codebook_sizes = first.codebook_sizes + rest.codebook_sizes
        self.roles = roles[:1] * len(first.codebook_sizes) + roles[1:] * len(rest.codebook_sizes)

    def forward(
        self, latents: Tensor, *, lengths: Tensor | None = None, generator: Chance = None
    ) -> SplitQuantized:
        """Loss: the sum of the two.

        latents  (B, ..., D) float
        lengths  (B,) int64 on the CPU, codebooks kept of each item; at least those of `first`, which is never
                 dropped. `rest` is told what remains, so it must take lengths too
        """
        self._check_latents(latents)
        check_lengths(lengths, latents, len(self.codebook_sizes), least=len(self.first.codebook_sizes))
        with without_autocast(latents.device):
            first = self.first(self._for_first(latents), generator=generator)
            keywords = {} if lengths is None else {"lengths": lengths - len(self.first.codebook_sizes)}
            left = self._for_rest(latents, lambda: first.latents)
            rest = self.rest(left, generator=generator, **keywords)
            values = add_axis(first.values, self.first), add_axis(rest.values, self.rest)
            return SplitQuantized(
                latents=first.latents + rest.latents,
                values=torch.cat(values, dim=-1),
                loss=first.loss + rest.loss,
                usage=stack_usage([first.usage, rest.usage]),
                first=first.latents,
            )

    def encode(self, latents: Tensor, *, keep: int | None = None, generator: Chance = None) -> Tensor:
        """keep: how many codebooks to compute, at least those of `first`; None: all. Returns (..., keep)."""
        self._check_latents(latents)
        remaining = self._check_count(len(self.codebook_sizes) if keep is None else keep)
        values = self.first.encode(self._for_first(latents), generator=generator)
        first = add_axis(values, self.first)
        if not remaining:
            return first
        keywords = {} if keep is None else {"keep": remaining}
        with torch.no_grad(), without_autocast(latents.device):
            left = self._for_rest(latents, lambda: self.first.decode(values))
        rest = self.rest.encode(left, generator=generator, **keywords)
        return torch.cat([first, add_axis(rest, self.rest)], dim=-1)

    def decode(self, values: Tensor) -> Tensor:
        """Sum of both: (..., q) int64, of the first q codebooks, at least those of `first` -> (..., D).

        Codebooks of `rest` that are missing are -1 to it, and add nothing.
        """
        self._check_count(values.shape[-1])
        leading, missing = len(self.first.codebook_sizes), len(self.codebook_sizes) - values.shape[-1]
        with without_autocast(values.device):
            # The same sum, whether a codebook is missing or -1.
            rest = F.pad(values[..., leading:], (0, missing), value=-1)
            first = self.first.decode(drop_axis(values[..., :leading], self.first))
            return first + self.rest.decode(drop_axis(rest, self.rest))

    def _for_first(self, latents: Tensor) -> Tensor:
        """What `first` sees of the latents."""
        return latents

    def _for_rest(self, latents: Tensor, decoded: Callable[[], Tensor]) -> Tensor:
        """What `rest` sees of the latents; `decoded` gives what `first` made of them."""
        return latents

    def _check_count(self, count: int) -> int:
        """How many of the first `count` codebooks are in `rest`."""
        leading, most = len(self.first.codebook_sizes), len(self.codebook_sizes)
        if not leading <= count <= most:
            raise ValueError(
                f"{count} codebooks: expected {leading} ... {most}, at least all of the first part"
            )
        return count - leading
