"""Ids from anywhere, checked and made into Tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .facts import Facts
from .tokenizer import Tokenizer
from .tokens import Tokens


def stamped(
    tokenizer: Tokenizer,
    values: Any,
    *,
    lengths: Any,
    extents: Any,
    positions: Any,
    scales: Any,
    durations: Any,
    captions: Sequence[str] | None,
) -> Tokens:
    """See `Tokenizer.stamp`."""
    facts = tokenizer.facts
    rows, counted = _as_tensor(values, facts)
    lengths = counted if lengths is None else _integers(lengths, "lengths")
    if lengths.shape != (len(rows),):
        raise ValueError(f"{tuple(lengths.shape)} lengths for {len(rows)} items: expected ({len(rows)},)")
    if len(rows) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= rows.shape[1]:
        raise ValueError(f"lengths {lengths.tolist()[:8]}: expected 0 ... {rows.shape[1]}")
    if facts.max_tokens is not None and len(rows) and int(lengths.max()) > facts.max_tokens:
        raise ValueError(f"{int(lengths.max())} tokens: {facts.name} decodes at most {facts.max_tokens}")
    device = rows.device
    lengths = lengths.to(device)
    tokens = Tokens(
        values=rows,
        lengths=lengths,
        extents=(
            tokenizer.default_extents(lengths)
            if extents is None
            else _integers(extents, "extents", columns=True)
        ).to(device),
        facts=facts,
        positions=None if positions is None else _integers(positions, "positions").to(device),
        scales=None if scales is None else torch.as_tensor(scales, dtype=torch.float32).to(device),
        durations=None if durations is None else _integers(durations, "durations").to(device),
        captions=None if captions is None else tuple(captions),
    )
    tokens = tokens._zero_padding()
    check_values(tokens)
    return tokens


def check_values(tokens: Tokens) -> None:
    """ValueError unless the depth is legal and every id lies in its codebook; padding is not read."""
    facts, values = tokens.facts, tokens.values
    if tokens.is_discrete != facts.is_discrete:
        kind = "integer ids" if facts.is_discrete else "floats"
        raise TypeError(f"values are {values.dtype}: {facts.name} takes {kind}")
    if not facts.is_discrete:
        if facts.latent_dim is not None and values.shape[2] != facts.latent_dim:
            raise ValueError(f"values have {values.shape[2]} features: {facts.name} takes {facts.latent_dim}")
        if not bool(torch.isfinite(values).all()):
            raise ValueError("values hold NaN or infinity")
        return
    depth = values.shape[2] if values.ndim == 3 else 1
    if depth != len(facts.codebook_sizes):
        if not (facts.nested == "codebooks" and 1 <= depth < len(facts.codebook_sizes)):
            raise ValueError(f"{depth} codebooks: {facts.name} takes {len(facts.codebook_sizes)}")
        facts.check_keep(depth)
    if (values.ndim == 2) != (len(facts.codebook_sizes) == 1):
        expected = "(B, N)" if len(facts.codebook_sizes) == 1 else "(B, N, Q)"
        raise ValueError(f"ids have shape {tuple(values.shape)}: {facts.name} takes {expected}")
    sizes = torch.tensor(facts.codebook_sizes[:depth], device=values.device)
    bad = (values < 0) | (values >= (sizes if values.ndim == 3 else sizes[0]))
    bad &= tokens.mask[..., None] if values.ndim == 3 else tokens.mask
    if bool(bad.any()):
        where = tuple(bad.nonzero()[0].tolist())
        size = int(sizes[where[2]] if values.ndim == 3 else sizes[0])
        raise ValueError(
            f"id {int(values[where])} at {where}: {facts.name} takes 0 ... {size - 1} there; "
            "subtract the offset of a joint vocabulary first"
        )


def _as_tensor(values: Any, facts: Facts) -> tuple[Tensor, Tensor]:
    """The padded values and the counted lengths."""
    if isinstance(values, Sequence) and not isinstance(values, str | bytes) and len(values):
        rows = [torch.as_tensor(np.asarray(row) if not isinstance(row, Tensor) else row) for row in values]
        if any(row.ndim == 0 for row in rows):
            raise ValueError("values are a flat list: expected a batch, e.g. [[1, 2, 3]] for one item")
        empty = rows[0].new_zeros((0, *max(rows, key=len).shape[1:])) if len(rows) else None
        rows = [row if len(row) else empty for row in rows]
        lengths = torch.tensor([len(row) for row in rows])
        tensor = torch.nn.utils.rnn.pad_sequence([_kind(row, facts) for row in rows], batch_first=True)
        return tensor, lengths
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if tensor.ndim not in (2, 3):
        raise ValueError(f"values have shape {tuple(tensor.shape)}: expected (B, N), (B, N, Q) or (B, N, D)")
    return _kind(tensor, facts), torch.full((len(tensor),), tensor.shape[1])


def _kind(tensor: Tensor, facts: Facts) -> Tensor:
    """int64 ids or float values, as the tokenizer takes; an empty row may have any type."""
    if facts.is_discrete:
        if tensor.dtype == torch.bool or (
            (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel()
        ):
            raise TypeError(f"values are {tensor.dtype}: {facts.name} takes integer ids")
        return tensor.to(torch.int64)
    if not tensor.is_floating_point():
        raise TypeError(f"values are {tensor.dtype}: {facts.name} is continuous and takes floats")
    return tensor


def _integers(values: Any, name: str, columns: bool = False) -> Tensor:
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} are {tensor.dtype}: expected integers")
    if columns and tensor.ndim != 2:
        raise ValueError(f"{name} have shape {tuple(tensor.shape)}: expected (B, 1) or (B, 2)")
    if tensor.numel() and int(tensor.min()) < 0:
        raise ValueError(f"{name} hold {int(tensor.min())}: expected 0 or more")
    return tensor.to(torch.int64)
