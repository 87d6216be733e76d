"""Rows of mixed lengths as one matrix of their tokens: no layer spends time on padding.

Bucketing by length comes first: items are sorted by their number of tokens, so those of one length are
neighbours and form a bucket, a view without padding. What works token by token (projections, norms, MLP) sees
all tokens of the batch at once; attention sees one bucket at a time, without a mask. After ByteTransformer
(Zhai et al. 2022, arXiv 2210.03052).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import attention


@dataclass(frozen=True)
class Bucket:
    """Neighbours in a packed batch that have the same number of tokens."""

    items: int
    length: int

    @property
    def tokens(self) -> int:
        return self.items * self.length


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the T kept tokens of a padded batch (B, N) stand in its packed form (T, ...).

    index    (T,) int64, positions in the flattened batch: item by item, the shortest first, in their order
    buckets  of equal lengths, from the shortest on; items without tokens are in none
    shape    (B, N)
    """

    index: Tensor
    buckets: tuple[Bucket, ...]
    shape: tuple[int, int]

    @classmethod
    def of(cls, keep: Tensor) -> Packing:
        """The packing of the tokens where keep (B, N) is True, which may lie anywhere in their rows.

        Reads the lengths on the host, once for all layers. ValueError unless keep is (B, N) bool.
        """
        if keep.ndim != 2 or keep.dtype != torch.bool:
            raise ValueError(f"keep is {keep.dtype} {tuple(keep.shape)}: expected bool (B, N)")
        lengths, order = keep.sum(dim=1).sort(stable=True)
        item, position = keep[order].nonzero(as_tuple=True)
        length, items = lengths[lengths > 0].unique_consecutive(return_counts=True)
        return cls(
            index=order[item] * keep.shape[1] + position,
            buckets=tuple(map(Bucket, items.tolist(), length.tolist())),
            shape=(keep.shape[0], keep.shape[1]),
        )

    def pack(self, padded: Tensor) -> Tensor:
        """(B, N, ...) -> (T, ...)."""
        return padded.flatten(0, 1).index_select(0, self.index)

    def unpack(self, packed: Tensor) -> Tensor:
        """(T, ...) -> (B, N, ...), zero where nothing was kept."""
        padded = packed.new_zeros(self.shape[0] * self.shape[1], *packed.shape[1:])
        return padded.index_copy(0, self.index, packed).unflatten(0, self.shape)

    def split(self, packed: Tensor) -> list[Tensor]:
        """(T, ...) -> one view (items, length, ...) for each bucket."""
        parts = packed.split([bucket.tokens for bucket in self.buckets])
        return [
            part.unflatten(0, (bucket.items, bucket.length))
            for part, bucket in zip(parts, self.buckets, strict=True)
        ]


def packed_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
    """Attention of every item within its own tokens: (T, H, D), (T, H, D), (T, H, E) -> (T, H, E)."""
    mixed = [
        attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
        for q, k, v in zip(packing.split(query), packing.split(key), packing.split(value), strict=True)
    ]
    return torch.cat(mixed) if mixed else torch.empty_like(value)
