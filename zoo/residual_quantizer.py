"""Residual quantization: each stage quantizes what the stages before it left over (arXiv 2107.03312)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..kernels.precision import without_autocast, working_dtype
from ..kernels.residual import residual_codes
from .chance import Chance
from .codebook_axis import add_axis, check_discrete, drop_axis, stack_usage
from .quantizer import Quantized, Quantizer, straight_through
from .quantizer_dropout import check_lengths, decode_kept, quantize_items


@dataclass(frozen=True, eq=False)
class ResidualQuantized(Quantized):
    """What residual stages made of latents.

    first  (..., dim_out) float, the codes of the first stage, with gradient as `latents`
    """

    first: Tensor


class ResidualQuantizer(Quantizer):
    """Stages of any kind in a row; the latent is the sum of their codes, so the first q codebooks decode too.

    stages    quantizers of one width D, coarse first; they may have several codebooks each
    repeats   how often the row of stages is walked through: one stage repeated is a codebook shared by all.
              A shared codebook that learns by statistics moves at each visit.
    detached  True: codes are held fixed, in the next residual and in the output, whose gradient passes
              straight to the latents, once. Each stage learns from its own loss alone and pulls the latents
              by it (audiocraft, Mimi). False: gradients run through the codes of each stage, as it passes
              them on, into the output and the next residual: stages with projections of their own must
              have it so, to learn them (DAC, SNAC)
    keeps     attribute: the counts of codebooks that end with a stage, which `decode` takes

    Source: facebookresearch/encodec, quantization/core_vq.py, where however the residual is not detached.
    """

    def __init__(self, stages: Sequence[Quantizer], *, repeats: int = 1, detached: bool = True) -> None:
        super().__init__()
        widths = {width for stage in stages for width in (stage.dim_in, stage.dim_out)}
        if len(widths) != 1 or repeats < 1:
            raise ValueError(
                f"{len(stages)} stages of widths {sorted(widths)}, walked through {repeats} times; expected "
                "at least one stage, all of one width in and out, and one walk: project those that differ"
            )
        for stage in stages:
            check_discrete(stage)
        self.stages = nn.ModuleList(stages)
        self.repeats = repeats
        self.detached = detached
        self.dim_in = self.dim_out = widths.pop()
        self.codebook_sizes = tuple(size for stage in self._walk() for size in stage.codebook_sizes)
        self.keeps = tuple(accumulate(len(stage.codebook_sizes) for stage in self._walk()))

    def forward(
        self, latents: Tensor, *, lengths: Tensor | None = None, generator: Chance = None
    ) -> ResidualQuantized:
        """Loss: the sum over stages, each a mean over all items, to which items that dropped the stage add 0.

        That is DAC's; EnCodec takes the mean over stages.

        latents  (..., D) float, (B, ..., D) with lengths
        lengths  (B,) int64 in 0 ... Q on the CPU: codebooks kept of each item (quantizer dropout), as
                 `LengthPolicy.sample` draws them. A stage that does not fit in whole is dropped: ids -1
        """
        self._check_latents(latents)
        check_lengths(lengths, latents, len(self.codebook_sizes))
        with without_autocast(latents.device):
            latents = latents.to(working_dtype(latents))
            residual, parts, codes = latents, [], []
            for stage, end in zip(self._walk(), self.keeps, strict=True):
                parts.append(quantize_items(stage, residual, lengths, end, generator))
                codes.append(parts[-1].latents.detach() if self.detached else parts[-1].latents)
                residual = residual - codes[-1]
            total = _add_up(codes)
            return ResidualQuantized(
                latents=straight_through(latents, total) if self.detached else total,
                values=self._join([part.values for part in parts]),
                loss=torch.stack([part.loss for part in parts]).sum(),
                usage=stack_usage([part.usage for part in parts]),
                first=straight_through(latents, codes[0]) if self.detached else codes[0],
            )

    def encode(self, latents: Tensor, *, keep: int | None = None, generator: Chance = None) -> Tensor:
        """keep: how many codebooks to compute, one of `keeps`; None: all. Returns (...) or (..., keep)."""
        self._check_latents(latents)
        walk = self._walk(keep)
        with torch.no_grad(), without_autocast(latents.device):
            residual = latents.to(working_dtype(latents))
            codebooks = _plain_codebooks(walk)
            if codebooks:
                return drop_axis(residual_codes(residual, codebooks).ids, self)
            values = []
            for stage in walk:
                values.append(stage.encode(residual, generator=generator))
                residual = residual - stage.decode(values[-1])
            return self._join(values)

    def decode(self, values: Tensor) -> Tensor:
        """Sum of the codes: (...) or (..., q) int64, the first q codebooks, one of `keeps` -> (..., D).

        A stage whose id is -1 adds nothing.
        """
        columns = add_axis(values, self)
        walk = self._walk(columns.shape[-1])
        with without_autocast(values.device):
            parts = columns.split([len(stage.codebook_sizes) for stage in walk], dim=-1)
            return _add_up(decode_kept(*each) for each in zip(walk, parts, strict=True))

    def _walk(self, count: int | None = None) -> list[Quantizer]:
        """The stages in the order of their visits, as far as the first `count` codebooks go."""
        walk: list[Quantizer] = list(self.stages) * self.repeats  # pyright: ignore[reportAssignmentType]
        if count is None:
            return walk
        if count not in self.keeps:
            raise ValueError(
                f"{count} codebooks: expected one of {self.keeps}, whole stages from the first on"
            )
        return walk[: self.keeps.index(count) + 1]

    def _join(self, values: list[Tensor]) -> Tensor:
        columns = [add_axis(part, stage) for part, stage in zip(values, self._walk(), strict=False)]
        return drop_axis(torch.cat(columns, dim=-1), self)


def _add_up(codes: Iterable[Tensor]) -> Tensor:
    """The sum, first stage first. From zero, for 0 + -0 is 0: stages that add nothing then move no bit."""
    return sum(codes, torch.zeros(()))


@runtime_checkable
class PlainSearch(Protocol):
    """A stage that may be nothing but a search, and so be fused with others."""

    def plain_codebook(self) -> Tensor | None:
        """(K, D) codes, if `encode` finds the nearest one and `decode` looks it up, and nothing else."""
        ...


def _plain_codebooks(stages: Sequence[Quantizer]) -> list[Tensor]:
    """The codebook of each stage if all are plain searches among as many codes, or else none."""
    found = [stage.plain_codebook() for stage in stages if isinstance(stage, PlainSearch)]
    codebooks = [codebook for codebook in found if codebook is not None]
    alike = len(codebooks) == len(stages) and len({codebook.shape for codebook in codebooks}) == 1
    return codebooks if alike else []
