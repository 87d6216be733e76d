"""Tokens: the one currency of the house. A token is one position; with Q codebooks it holds Q ids."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import tokfile
from .facts import Facts

_PER_TOKEN = ("positions", "durations")


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch of token strings of any lengths.

    values     int64 (B, N) or (B, N, Q), time first and codebooks last, 2D grids row by row;
               or float (B, N, D) when continuous. Beyond an item's length: 0, read by nobody.
    lengths    (B,) int64, counts of tokens
    extents    (B, 1) int64 samples or bytes, or (B, 2) height and width: what decode will give back
    facts      the facts of the tokenizer that made them
    positions  (B, N) int64, slots of scattered tokens
    scales     (B, M) float, one per segment of audio; 0 beyond an item's segments
    durations  (B, N) int64, repeats of each unit
    captions   B strings that guide the decoder

    Make them with `tokenizer.encode` or `tokenizer.stamp`. Raises ValueError or TypeError when shapes,
    types or lengths disagree.
    """

    values: Tensor
    lengths: Tensor
    extents: Tensor
    facts: Facts
    positions: Tensor | None = None
    scales: Tensor | None = None
    durations: Tensor | None = None
    captions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        values = self.values
        if values.is_floating_point():
            if values.ndim != 3:
                raise ValueError(f"float values have shape {tuple(values.shape)}: expected (B, N, D)")
        elif values.dtype != torch.int64:
            raise TypeError(f"values are {values.dtype}: expected int64 ids or floats")
        elif values.ndim not in (2, 3):
            raise ValueError(f"ids have shape {tuple(values.shape)}: expected (B, N) or (B, N, Q)")
        batch = len(values)
        if self.lengths.shape != (batch,) or self.lengths.dtype != torch.int64:
            raise ValueError(f"lengths are {_what(self.lengths)}: expected int64 ({batch},)")
        if (
            batch
            and not self.lengths.is_meta
            and not 0 <= int(self.lengths.min()) <= int(self.lengths.max()) <= values.shape[1]
        ):
            raise ValueError(f"lengths {self.lengths.tolist()[:8]}: expected 0 ... {values.shape[1]}")
        if self.extents.shape not in ((batch, 1), (batch, 2)) or self.extents.dtype != torch.int64:
            raise ValueError(
                f"extents are {_what(self.extents)}: expected int64 ({batch}, 1) or ({batch}, 2)"
            )
        for name in _PER_TOKEN:
            tensor = getattr(self, name)
            if tensor is not None and (tensor.shape != values.shape[:2] or tensor.dtype != torch.int64):
                raise ValueError(f"{name} are {_what(tensor)}: expected int64 {tuple(values.shape[:2])}")
        scales = self.scales
        if scales is not None and (
            scales.ndim != 2 or len(scales) != batch or not scales.is_floating_point()
        ):
            raise ValueError(f"scales are {_what(scales)}: expected float ({batch}, M)")
        if self.captions is not None and len(self.captions) != batch:
            raise ValueError(f"{len(self.captions)} captions for {batch} items")

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        kind = f"ids {tuple(self.values.shape)}" if self.is_discrete else f"floats {tuple(self.values.shape)}"
        lengths = "meta" if self.lengths.is_meta else self.lengths.tolist()[:8]
        return f"Tokens({self.facts.name}, {kind}, lengths={lengths})"

    @property
    def is_discrete(self) -> bool:
        return not self.values.is_floating_point()

    @property
    def ids(self) -> Tensor:
        """`values` of a discrete tokenizer, int64; TypeError when they are floats."""
        if not self.is_discrete:
            raise TypeError(
                f"{self.facts.name} is continuous: its tokens are floats in .values, it has no ids"
            )
        return self.values

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def mask(self) -> Tensor:
        """(B, N) bool, True where a token stands."""
        return torch.arange(self.values.shape[1], device=self.device) < self.lengths[:, None]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Of the codebooks present: tokens kept to q codebooks use the first q."""
        if not self.is_discrete:
            return ()
        return self.facts.codebook_sizes[: self.values.shape[2] if self.values.ndim == 3 else 1]

    @property
    def bits(self) -> Tensor:
        """(B,) float64: tokens times the sum of log2 of their codebook sizes. TypeError when continuous."""
        if not self.is_discrete:
            raise TypeError(f"{self.facts.name} is continuous: its tokens have no bit count")
        return self.lengths.to(torch.float64) * sum(math.log2(size) for size in self.codebook_sizes)

    def keep(self, count: int) -> Tokens:
        """At most the first `count` along the nested axis; the signal keeps its size.

        Raises ValueError when the tokenizer is not nested, or decodes other counts only.
        """
        count = self.facts.check_keep(count)
        if self.facts.makes_fewer:
            raise ValueError(
                f"the tokens of {self.facts.name} have no prefix to keep: encode(signal, keep={count}) "
                "makes so many"
            )
        if self.facts.nested == "codebooks":
            if not self.is_discrete:
                raise TypeError("these are latents before quantizing: they have no codebooks to keep")
            return replace(self, values=self.values[..., :count]) if self.values.ndim == 3 else self
        lengths = self.lengths.clamp(max=min(count, self.values.shape[1]))
        width = int(lengths.max()) if len(self) else 0
        cut = {name: _cut(getattr(self, name), width) for name in _PER_TOKEN}
        return replace(self, values=self.values[:, :width], lengths=lengths, **cut)._zero_padding()

    def crop(self, signal: Any) -> list[Any]:
        """The items of a decoded batch without padding: (C, H, W) images, (C, S) sound, or the strings."""
        if not isinstance(signal, Tensor):
            return list(signal)
        if len(signal) != len(self):
            raise ValueError(f"{len(signal)} decoded items for {len(self)} items of tokens: expected as many")
        sizes = self.extents.tolist()
        return [item[(..., *map(slice, size))] for item, size in zip(signal, sizes, strict=True)]

    def unbind(self) -> list[Tokens]:
        """One `Tokens` an item, each cut to its own length."""
        return [self._select(item) for item in range(len(self))]

    def _select(self, item: int) -> Tokens:
        width = int(self.lengths[item])
        row = slice(item, item + 1)
        return replace(
            self,
            values=self.values[row, :width],
            lengths=self.lengths[row],
            extents=self.extents[row],
            scales=None if self.scales is None else self.scales[row],
            captions=None if self.captions is None else self.captions[row],
            **{name: None if (t := getattr(self, name)) is None else t[row, :width] for name in _PER_TOKEN},
        )

    @staticmethod
    def cat(batches: Sequence[Tokens]) -> Tokens:
        """One batch of all items in order, padded to the longest.

        Raises ValueError when they come from different tokenizers or differ in codebooks or side information.
        """
        if not batches:
            raise ValueError("no tokens to join: give at least one Tokens")
        first = batches[0]
        for other in batches[1:]:
            if not first.facts.is_same_tokenizer(other.facts):
                raise ValueError(f"tokens of {first.facts.name} and of {other.facts.name} do not join")
            if first.values.shape[2:] != other.values.shape[2:] or first.values.dtype != other.values.dtype:
                raise ValueError(f"values {_what(first.values)} and {_what(other.values)} do not join")
        width = max(batch.values.shape[1] for batch in batches)
        scale_width = max((b.scales.shape[1] for b in batches if b.scales is not None), default=0)
        captions = _all_or_none("captions", batches)
        return replace(
            first,
            values=torch.cat([_pad(batch.values, width) for batch in batches]),
            lengths=torch.cat([batch.lengths for batch in batches]),
            extents=torch.cat([batch.extents for batch in batches]),
            positions=_cat_padded("positions", batches, width),
            scales=_cat_padded("scales", batches, scale_width),
            durations=_cat_padded("durations", batches, width),
            captions=tuple(c for group in captions for c in group) if captions else None,
        )

    def to(self, device: torch.device | str) -> Tokens:
        """All tensors on `device`."""
        moved = {
            name: getattr(self, name) for name in ("values", "lengths", "extents", "scales", *_PER_TOKEN)
        }
        return replace(self, **{name: t if t is None else t.to(device) for name, t in moved.items()})

    def identical(self, other: Tokens) -> bool:
        """Whether both hold the same tokens of the same tokenizer; padding does not count."""
        if not self.facts.is_same_tokenizer(other.facts) or len(self) != len(other):
            return False
        if self.captions != other.captions or self.values.shape[2:] != other.values.shape[2:]:
            return False
        if not (_equal(self.lengths, other.lengths) and _equal(self.extents, other.extents)):
            return False
        width = int(self.lengths.max()) if len(self) else 0
        mask = self.mask[:, :width]
        for name in ("values", *_PER_TOKEN):
            if not _equal(_cut(getattr(self, name), width), _cut(getattr(other, name), width), mask):
                return False
        scale_width = max(0 if t is None else t.shape[1] for t in (self.scales, other.scales))
        return _equal(*(None if t is None else _pad(t, scale_width) for t in (self.scales, other.scales)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `.tok` file: facts, ids packed at their true width, lengths, extents, checksum.

        Floats are stored as float32. ValueError when an id lies outside its codebook.
        """
        arrays = {
            name: None if (t := getattr(self, name)) is None else t.cpu().numpy() for name in _PER_TOKEN
        }
        tokfile.write_record(
            tokfile.TokRecord(
                facts=self.facts,
                values=(self.values if self.is_discrete else self.values.float()).detach().cpu().numpy(),
                lengths=self.lengths.cpu().numpy(),
                extents=self.extents.cpu().numpy(),
                scales=None if self.scales is None else self.scales.float().cpu().numpy(),
                captions=self.captions,
                **arrays,
            ),
            path,
        )

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Tokens:
        """Read a `.tok` file; raises TokFileError when it is damaged, foreign or of a later version."""
        record = tokfile.read_record(path)
        return Tokens(
            values=torch.from_numpy(record.values),
            lengths=torch.from_numpy(record.lengths),
            extents=torch.from_numpy(record.extents),
            facts=record.facts,
            positions=_tensor(record.positions),
            scales=_tensor(record.scales),
            durations=_tensor(record.durations),
            captions=record.captions,
        )

    def _zero_padding(self) -> Tokens:
        """The same tokens with 0 beyond each length."""
        if not len(self) or int(self.lengths.min()) == self.values.shape[1]:
            return self
        mask = self.mask
        wide = mask[..., None] if self.values.ndim == 3 else mask
        per_token = {n: None if (t := getattr(self, n)) is None else t * mask for n in _PER_TOKEN}
        return replace(self, values=torch.where(wide, self.values, 0), **per_token)


def _what(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _tensor(array: Any) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _cut(tensor: Tensor | None, width: int) -> Tensor | None:
    return None if tensor is None else tensor[:, :width]


def _pad(tensor: Tensor, width: int) -> Tensor:
    """Zeros along axis 1 up to `width`."""
    if tensor.shape[1] == width:
        return tensor
    fill = tensor.new_zeros((len(tensor), width - tensor.shape[1], *tensor.shape[2:]))
    return torch.cat([tensor, fill], dim=1)


def _all_or_none(name: str, batches: Sequence[Tokens]) -> list[Any]:
    """The field of every batch, or [] when none has it; ValueError when only some do."""
    found = [value for batch in batches if (value := getattr(batch, name)) is not None]
    if found and len(found) != len(batches):
        raise ValueError(f"{len(found)} of {len(batches)} batches carry {name}: give them all, or none")
    return found


def _cat_padded(name: str, batches: Sequence[Tokens], width: int) -> Tensor | None:
    tensors = _all_or_none(name, batches)
    return torch.cat([_pad(tensor, width) for tensor in tensors]) if tensors else None


def _equal(left: Tensor | None, right: Tensor | None, mask: Tensor | None = None) -> bool:
    """Equal as numbers where `mask` is True; a missing tensor equals only a missing one.

    Floats of two widths are compared in the wider one: a `.tok` file widens bfloat16.
    """
    if left is None or right is None:
        return left is right
    dtype = torch.promote_types(left.dtype, right.dtype)
    left, right = left.detach().to("cpu", dtype), right.detach().to("cpu", dtype)
    if mask is not None:
        left, right = left[mask.cpu()], right[mask.cpu()]
    return torch.equal(left, right)
