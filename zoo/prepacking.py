"""Rows of mixed lengths, several in one: positions start again in each, and none sees another.

A causal model of transformers then computes the loss of the padded batch, without the padding.
Source: packing, Krell et al. 2021, arXiv 2107.02027, with first-fit-decreasing bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What cross entropy passes over, in torch and transformers alike.
IGNORED = -100


@dataclass(frozen=True, eq=False)
class PackedRows:
    """R packed rows of width L.

    ids        (R, L) int64; 0 after the last sequence of a row
    positions  (R, L) int64, from 0 in each sequence, and from 0 in what is left over
    labels     (R, L) int64, the ids; IGNORED at the first of each sequence, which nothing predicts, and in
               what is left over. The model shifts them, as those of transformers do
    sequences  (R, L) int64, which sequence of its row an id belongs to; the last number is what is left over
    bins       which of the given rows lie in each packed row, in order
    """

    ids: Tensor
    positions: Tensor
    labels: Tensor
    sequences: Tensor
    bins: tuple[tuple[int, ...], ...]

    @property
    def filled(self) -> float:
        """Share of the ids that are none of the padding."""
        return float((self.ids.numel() - self._left_over) / self.ids.numel())

    @property
    def _left_over(self) -> int:
        sequences = self.sequences
        rows = [int((row == len(members)).sum()) for row, members in zip(sequences, self.bins, strict=True)]
        return sum(rows)

    def inputs(self) -> dict[str, Any]:
        """Keywords for a causal model of transformers 5, which reads the blocks off the positions.

        It does so only without a mask and without a cache (its default builds one, and then every sequence
        would see those before it): hence `use_cache=False`. Flash attention takes its lengths from the same.
        """
        return {
            "input_ids": self.ids,
            "position_ids": self.positions,
            "labels": self.labels,
            "use_cache": False,
        }

    def mask(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(R, 1, L, L) to add to attention scores: 0 for earlier ids of the same sequence, else the least.

        For models that do not read positions; pass it as `attention_mask` beside `inputs()`.
        """
        same = self.sequences[:, None, :, None] == self.sequences[:, None, None, :]
        seen = same.tril()
        return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)

    def to(self, device: torch.device | str) -> PackedRows:
        names = ("ids", "positions", "labels", "sequences")
        return PackedRows(*(getattr(self, name).to(device) for name in names), bins=self.bins)


def pack(rows: Iterable[Iterable[int]], width: int) -> PackedRows:
    """Rows of ids, e.g. those of `AutoregressiveTokenPipeline.rows`, in as few rows as first-fit finds.

    width  ids of a packed row: the longest must fit. A collator is `functools.partial(pack, width=W)`

    ValueError for a row that is empty or longer than `width` or holds what is no id, naming it.
    """
    if isinstance(width, bool) or not isinstance(width, Integral):
        raise ValueError(f"width={width!r}: expected an integer, the ids of a packed row")
    tensors = _tensors(rows)
    bins = first_fit([len(row) for row in tensors], width)
    shape = (len(bins), width)
    ids, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    labels = torch.full(shape, IGNORED)
    sequences = torch.zeros(shape, dtype=torch.int64)
    for at, members in enumerate(bins):
        start = 0
        for number, index in enumerate(members):
            row = tensors[index]
            place = slice(start, start + len(row))
            ids[at, place] = row
            positions[at, place] = torch.arange(len(row))
            labels[at, start + 1 : place.stop] = row[1:]
            sequences[at, place] = number
            start = place.stop
        positions[at, start:] = torch.arange(width - start)
        sequences[at, start:] = len(members)
    return PackedRows(ids, positions, labels, sequences, bins)


def pad(rows: Iterable[Iterable[int]]) -> dict[str, Tensor]:
    """The same rows, one each, padded on the right: keywords for a causal model; the yardstick of `pack`."""
    tensors = _tensors(rows)
    first_fit([len(row) for row in tensors], max(map(len, tensors), default=1))
    ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    there = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in tensors])[:, None]
    labels = ids.masked_fill(~there, IGNORED)
    return {"input_ids": ids, "attention_mask": there.long(), "labels": labels}


def _tensors(rows: Iterable[Iterable[int]]) -> list[Tensor]:
    """Each row as int64; ValueError names one that holds anything else than ids."""
    tensors: list[Tensor] = []
    for index, row in enumerate(rows):
        try:
            tensor = torch.as_tensor(list(row) if isinstance(row, Iterator) else row)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"row {index} is no list of ids ({error})") from error
        is_integer = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
        if tensor.ndim != 1 or (len(tensor) and not is_integer):
            raise ValueError(
                f"row {index} is {tensor.dtype} {tuple(tensor.shape)}: expected a list of integer ids"
            )
        if len(tensor) and int(tensor.min()) < 0:
            raise ValueError(f"row {index} holds {int(tensor.min())}: expected ids of at least 0")
        tensors.append(tensor.to(torch.int64))
    return tensors


def first_fit(lengths: Sequence[int], width: int) -> tuple[tuple[int, ...], ...]:
    """First-fit-decreasing: the longest first, each into the first bin with room. Indices, bin by bin.

    ValueError for a length below 1 or above `width`.
    """
    if not len(lengths):
        raise ValueError("nothing to pack: give at least one row")
    for index, length in enumerate(lengths):
        if not 1 <= length <= width:
            raise ValueError(
                f"row {index} has {length} ids: expected 1 ... {width}; cut it, or choose a larger width"
            )
    bins: list[list[int]] = []
    room = np.zeros(len(lengths), dtype=np.int64)
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fits = room[: len(bins)] >= lengths[index]
        at = int(fits.argmax()) if fits.any() else len(bins)
        if at == len(bins):
            bins.append([])
            room[at] = width
        bins[at].append(index)
        room[at] -= lengths[index]
    return tuple(map(tuple, bins))
