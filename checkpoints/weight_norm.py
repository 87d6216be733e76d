"""Weight norm in stored layouts: direction and length of a weight, joined into the weight our modules hold.

Official codecs store one of two spellings, `X.weight_g` with `X.weight_v`, or the later
`X.parametrizations.weight.original0` with `original1`. Folded, no forward has to join them again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Spellings of the length and the direction of `X.weight`.
_SPELLINGS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)
_PART = re.compile(r"\.(weight_[gv]|parametrizations\.weight\.original[01])$")


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every pair of length and direction replaced by `X.weight`.

    A part whose partner is missing, or does not fit it, stays as it is: the strict load will name it.
    Source: Salimans and Kingma 2016, arXiv 1602.07868, w = g v / |v|, the norm taken per first axis.
    """
    folded = dict(tensors)
    for length_end, direction_end in _SPELLINGS:
        for name in [name for name in folded if name.endswith(length_end)]:
            whole = name.removesuffix(length_end)
            length, direction = folded[name], folded.get(whole + direction_end)
            if direction is None or f"{whole}.weight" in folded or not _fit(length, direction):
                continue
            del folded[name], folded[whole + direction_end]
            folded[f"{whole}.weight"] = torch._weight_norm(direction, length, 0)  # pyright: ignore[reportPrivateImportUsage]
    return folded


def folded_name(name: str) -> str:
    """`X.weight` of either part's name in either spelling; any other name as it is."""
    return _PART.sub(".weight", name)


def is_part(name: str) -> bool:
    """Whether this is the length or the direction of a weight. What is one after folding has no partner that
    fits, and must not pass for the weight."""
    return folded_name(name) != name


def _fit(length: Tensor, direction: Tensor) -> bool:
    """Whether `length` is (C, 1, ..., 1) for a direction (C, ...)."""
    return direction.ndim > 0 and length.shape == (len(direction), *[1] * (direction.ndim - 1))
