"""Product quantization: groups of features, each with a quantizer of its own (Jegou et al. 2011)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..kernels.precision import without_autocast
from .chance import Chance
from .codebook_axis import add_axis, check_discrete, drop_axis, stack_usage
from .quantizer import Quantized, Quantizer


class GroupedQuantizer(Quantizer):
    """Quantizers of any kind side by side; the first takes the first features. Values go group by group.

    groups   quantizers, which share the features out by their `dim_in`
    repeats  how often the row of groups is laid out: one quantizer repeated is shared by all groups

    Groups of residual stages (HiFi-Codec, arXiv 2305.02765) have no prefix that decodes, and drop no stages.
    Residual stages of groups, `ResidualQuantizer([GroupedQuantizer(...), ...])`, do, with the same codes.
    """

    def __init__(self, groups: Sequence[Quantizer], *, repeats: int = 1) -> None:
        super().__init__()
        if not groups or repeats < 1:
            raise ValueError(f"{len(groups)} groups, laid out {repeats} times; expected at least one of each")
        for group in groups:
            check_discrete(group)
        self.groups = nn.ModuleList(groups)
        self.repeats = repeats
        self.dim_in = sum(group.dim_in for group in self._row())
        self.dim_out = sum(group.dim_out for group in self._row())
        self.codebook_sizes = tuple(size for group in self._row() for size in group.codebook_sizes)

    def forward(self, latents: Tensor, *, generator: Chance = None) -> Quantized:
        """Loss: the mean over groups, weighted by their features: a mean over all elements."""
        self._check_latents(latents)
        with without_autocast(latents.device):
            parts = [group(part, generator=generator) for group, part in self._share_out(latents)]
            shares = [group.dim_in / self.dim_in for group in self._row()]
            return Quantized(
                latents=torch.cat([part.latents for part in parts], dim=-1),
                values=self._join([part.values for part in parts]),
                loss=torch.stack(
                    [part.loss * share for part, share in zip(parts, shares, strict=True)]
                ).sum(),
                usage=stack_usage([part.usage for part in parts]),
            )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        return self._join(
            [group.encode(part, generator=generator) for group, part in self._share_out(latents)]
        )

    def decode(self, values: Tensor) -> Tensor:
        """Codes side by side: (...) or (..., Q) int64 -> (..., D)."""
        columns = add_axis(values, self).split([len(group.codebook_sizes) for group in self._row()], dim=-1)
        codes = [group.decode(drop_axis(ids, group)) for group, ids in zip(self._row(), columns, strict=True)]
        return torch.cat(codes, dim=-1)

    def _row(self) -> list[Quantizer]:
        return list(self.groups) * self.repeats  # pyright: ignore[reportReturnType]

    def _share_out(self, latents: Tensor) -> list[tuple[Quantizer, Tensor]]:
        parts = latents.split([group.dim_in for group in self._row()], dim=-1)
        return list(zip(self._row(), parts, strict=True))

    def _join(self, values: list[Tensor]) -> Tensor:
        columns = [add_axis(part, group) for part, group in zip(values, self._row(), strict=True)]
        return drop_axis(torch.cat(columns, dim=-1), self)
