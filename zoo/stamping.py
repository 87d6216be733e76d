"""Ids from anywhere, checked and made into Tokens."""

from __future__ import annotations

import reprlib
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
    rows, counted = _rows(values, facts)
    lengths = counted if lengths is None else _integers(lengths, "lengths")
    if lengths.shape != counted.shape:
        raise ValueError(f"{tuple(lengths.shape)} lengths for {len(rows)} items: expected ({len(rows)},)")
    lengths = lengths.cpu()
    if bool((lengths > counted).any()):
        raise ValueError(
            f"lengths {lengths.tolist()[:8]}: the items have {counted.tolist()[:8]} tokens, expected no more"
        )
    if facts.max_tokens is not None and int(lengths.amax() if len(rows) else 0) > facts.max_tokens:
        raise ValueError(f"{int(lengths.max())} tokens: {facts.name} decodes at most {facts.max_tokens}")
    device, width = rows.device, rows.shape[1]
    lengths = lengths.to(device)
    if durations is not None:
        durations = _per_token(durations, "durations", lengths, width).to(device)
    if extents is None:
        extents = tokenizer.default_extents(_positions_of(lengths, durations))
    tokens = Tokens(
        values=rows,
        lengths=lengths,
        extents=_integers(extents, "extents").to(device),
        facts=facts,
        positions=None
        if positions is None
        else _per_token(positions, "positions", lengths, width).to(device),
        scales=None if scales is None else _scales(scales).to(device),
        durations=durations,
        captions=None if captions is None else check_captions(captions, facts),
    )
    tokens = tokens._zero_padding()
    check_values(tokens)
    check_lengths(tokenizer, tokens)
    return tokens


def check_lengths(tokenizer: Tokenizer, tokens: Tokens) -> None:
    """ValueError unless every item has the tokens its extent takes, each as often as its duration says; fewer
    pass where the tokenizer is nested along tokens or adaptive."""
    facts = tokenizer.facts
    may_be_short = facts.may_be_short
    counts = _positions_of(tokens.lengths, tokens.durations)
    for length, extent in {*zip(counts.tolist(), map(tuple, tokens.extents.tolist()), strict=True)}:
        expected = tokenizer.num_tokens(extent)
        if length > expected or (length < expected and not may_be_short):
            raise ValueError(
                f"{length} tokens for an extent of {' x '.join(map(str, extent))}: "
                f"{facts.name} takes {'at most ' if may_be_short else ''}{expected}; "
                "give the extents that these tokens were made from"
            )
        if 0 < length < expected and not facts.is_adaptive:
            facts.check_keep(length)


def _positions_of(lengths: Tensor, durations: Tensor | None) -> Tensor:
    """(B,) how many tokens an item has when each is repeated as its duration says."""
    if durations is None:
        return lengths
    there = torch.arange(durations.shape[-1], device=durations.device) < lengths[:, None]
    return (durations * there).sum(dim=-1)


def check_values(tokens: Tokens) -> None:
    """ValueError unless the depth is legal and every id lies in its codebook; padding is not read."""
    facts, values = tokens.facts, tokens.values
    if tokens.is_discrete != facts.is_discrete:
        kind = "integer ids" if facts.is_discrete else "floats"
        raise TypeError(f"values are {values.dtype}: {facts.name} takes {kind}")
    if not facts.is_discrete:
        if facts.latent_dim is not None and values.shape[2] != facts.latent_dim:
            raise ValueError(f"values have {values.shape[2]} features: {facts.name} takes {facts.latent_dim}")
        if not bool((torch.isfinite(values) | ~tokens.mask[..., None]).all()):
            raise ValueError(f"values hold NaN or infinity: {facts.name} takes finite floats")
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


def _rows(values: Any, facts: Facts) -> tuple[Tensor, Tensor]:
    """The padded values, and how many tokens each item holds."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not len(values):
        tensor = _tensor(values, "values")
        if tensor.ndim not in (2, 3):
            raise ValueError(
                f"values have shape {tuple(tensor.shape)}: expected (B, N), (B, N, Q) or (B, N, D)"
            )
        return _kind(tensor, facts), torch.full((len(tensor),), tensor.shape[1])
    rows = [_tensor(row, f"item {index}") for index, row in enumerate(values)]
    if any(row.ndim == 0 for row in rows):
        raise ValueError("values are a flat list: expected a batch, e.g. [[1, 2, 3]] for one item")
    full = [_kind(row, facts) for row in rows if len(row)]
    if len({row.shape[1:] for row in full}) > 1 or any(row.ndim > 2 for row in full):
        shapes = ", ".join(str(tuple(row.shape)) for row in full[:4])
        raise ValueError(f"items have shapes {shapes}: expected (N,), (N, Q) or (N, D), alike in all but N")
    if full:
        empty = full[0].new_zeros((0, *full[0].shape[1:]))
    elif facts.is_discrete:
        rest = facts.codebook_sizes[1:] and (len(facts.codebook_sizes),)
        empty = torch.zeros((0, *rest), dtype=torch.int64)
    else:
        empty = torch.zeros(0, facts.latent_dim or 1)
    joined = [_kind(row, facts).to(empty) if len(row) else empty for row in rows]
    return torch.nn.utils.rnn.pad_sequence(joined, batch_first=True), torch.tensor([len(row) for row in rows])


def _kind(tensor: Tensor, facts: Facts) -> Tensor:
    """int64 ids or float values, as the tokenizer takes."""
    if facts.is_discrete:
        if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
            raise TypeError(f"values are {tensor.dtype}: {facts.name} takes integer ids")
        return tensor.to(torch.int64)
    if not tensor.is_floating_point():
        raise TypeError(f"values are {tensor.dtype}: {facts.name} is continuous and takes floats")
    return tensor


def _tensor(values: Any, name: str) -> Tensor:
    """A tensor as it is; arrays and nested lists of numbers copied, floats as float32."""
    if isinstance(values, Tensor):
        return values
    try:
        array = np.array(values)
    except ValueError as error:
        raise ValueError(f"{name}: nested lists of unequal lengths, or of unequal depth") from error
    if array.dtype.kind == "f" and array.size:
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} are {array.dtype} ({reprlib.repr(values)}): expected numbers below 2**63")
    if array.dtype.kind != "b" and array.size and int(array.max()) >= 2**63:
        raise ValueError(f"{name} hold {array.max()}: expected numbers below 2**63")
    return torch.from_numpy(array if array.dtype.kind == "b" else array.astype(np.int64))


def _integers(values: Any, name: str) -> Tensor:
    tensor = _tensor(values, name)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} are {tensor.dtype}: expected integers")
    if tensor.numel() and int(tensor.min()) < 0:
        raise ValueError(f"{name} hold {int(tensor.min())}: expected 0 or more")
    return tensor.to(torch.int64)


def _per_token(values: Any, name: str, lengths: Tensor, width: int) -> Tensor:
    """(B, N) int64; ragged lists are padded with 0 as the values are."""
    if isinstance(values, Tensor) or not isinstance(values, Sequence):
        return _integers(values, name)
    rows = [_integers(row, name).reshape(-1) for row in values]
    for index, (row, length) in enumerate(zip(rows, lengths.tolist(), strict=False)):
        if len(row) < length:
            raise ValueError(f"{name} of item {index} are {len(row)} for {length} tokens: expected one each")
    rows.append(torch.zeros(width, dtype=torch.int64))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)[:-1]


def _scales(values: Any) -> Tensor:
    """(B, M) float32."""
    scales = _tensor(values, "scales").to(torch.float32)
    if not bool(torch.isfinite(scales).all()):
        raise ValueError("scales hold NaN or infinity")
    return scales


def check_captions(captions: Sequence[str], facts: Facts) -> tuple[str, ...]:
    """The captions as tokens carry them; TypeError unless strings, ValueError where none are taken or UTF-8
    cannot hold one."""
    if not facts.takes_captions:
        raise ValueError(f"{facts.name} takes no captions: leave them out")
    if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
        raise TypeError(f"captions are {reprlib.repr(captions)}: expected a list of strings, one per item")
    for index, caption in enumerate(captions):
        try:
            caption.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"caption of item {index} has a lone surrogate at character {error.start}, "
                "which UTF-8 cannot hold; take it out"
            ) from error
    return tuple(captions)
