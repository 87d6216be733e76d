"""How well a codebook is used."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Usage:
    """Over all hits that were counted, mean over codebooks; float32 scalars.

    share       of the codes that were hit at all
    perplexity  how many equally likely codes would be as unpredictable, 1 ... K
    """

    share: Tensor
    perplexity: Tensor


class UsageCount:
    """Sums `Quantized.usage` over steps: one batch has too few tokens to hit a large codebook."""

    def __init__(self) -> None:
        self._hits: Tensor | None = None

    def add(self, usage: Tensor) -> None:
        """usage (K,) or (Q, K) int64 hits."""
        self._hits = usage if self._hits is None else self._hits + usage

    def take(self) -> Usage | None:
        """What was counted since the last time, None if nothing; counting starts anew."""
        if self._hits is None:
            return None
        shares = (self._hits / self._hits.sum(-1, keepdim=True).clamp(min=1)).double()
        self._hits = None
        perplexity = torch.special.entr(shares).sum(-1).exp().mean()
        return Usage((shares > 0).double().mean().float(), perplexity.float())


@dataclass(frozen=True)
class CodebookUsage:
    """What one codebook was seen to do.

    size            K, its codes
    count           ids that were seen
    used            codes that were seen at least once
    expected        codes that would have been seen, were all equally likely: far below K when ids are few
    perplexity      how many equally likely codes would be as unpredictable, 1 ... K; never more than `used`
    most_frequent   share of the ids that are the most frequent code
    """

    size: int
    count: int
    used: int
    expected: float
    perplexity: float
    most_frequent: float

    @property
    def unused(self) -> int:
        """Codes that were never seen. They are dead only if `expected` is near `size`."""
        return self.size - self.used

    @property
    def entropy_bits(self) -> float:
        """Bits an id of this codebook carries at most, by the frequencies alone."""
        return math.log2(self.perplexity) if self.count else 0.0


def codebook_usage(ids: Tensor, codebook_sizes: Sequence[int]) -> tuple[CodebookUsage, ...]:
    """The usage of each codebook in a batch of ids; see `CodebookCount` for many batches."""
    count = CodebookCount(codebook_sizes)
    count.add(ids)
    return count.summary()


class CodebookCount:
    """Counts the codes of any number of batches; memory grows with the codes seen, not with the codebooks.

    codebook_sizes  K of each codebook
    """

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        self.codebook_sizes = tuple(codebook_sizes)
        self._hits: list[Counter[int]] = [Counter() for _ in codebook_sizes]

    def add(self, ids: Tensor) -> None:
        """ids (..., Q) int64, or (...) when there is one codebook; -1, a dropped stage, is not counted.

        The first codebooks alone will do. Raises ValueError for more codebooks than there are, floats, or ids
        out of range.
        """
        columns = self._columns(ids)
        parts = [column[column != -1].unique(return_counts=True) for column in columns]
        for (codes, _), size in zip(parts, self.codebook_sizes, strict=False):
            if len(codes) and not 0 <= int(codes[0]) <= int(codes[-1]) < size:
                raise ValueError(f"ids {int(codes[0])} ... {int(codes[-1])}: expected 0 ... {size - 1}")
        for hits, (codes, counts) in zip(self._hits, parts, strict=False):
            hits.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))

    def summary(self) -> tuple[CodebookUsage, ...]:
        """The usage of each codebook so far."""
        return tuple(map(_summary, self._hits, self.codebook_sizes))

    def _columns(self, ids: Tensor) -> Tensor:
        """(Q, M) ids of each codebook."""
        if ids.is_floating_point():
            raise ValueError(f"values of dtype {ids.dtype}: a continuous tokenizer has no codes to count")
        codebooks = len(self.codebook_sizes)
        if codebooks == 1 and ids.shape[-1:] != (1,):
            ids = ids.unsqueeze(-1)
        if ids.ndim == 0 or not 1 <= ids.shape[-1] <= codebooks:
            raise ValueError(f"ids of shape {tuple(ids.shape)}: expected (..., {codebooks})")
        return ids.reshape(-1, ids.shape[-1]).T


def _summary(hits: Counter[int], size: int) -> CodebookUsage:
    count = hits.total()
    shares = [times / count for times in hits.values()]
    hit = -math.expm1(count * math.log1p(-1 / size)) if size > 1 else float(count > 0)
    return CodebookUsage(
        size=size,
        count=count,
        used=len(hits),
        expected=size * hit,
        perplexity=math.exp(-sum(share * math.log(share) for share in shares)) if count else 0.0,
        most_frequent=max(shares, default=0.0),
    )
