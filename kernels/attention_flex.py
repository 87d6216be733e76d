"""Attention by FlexAttention: blocks that a mask hides altogether are skipped, not computed and discarded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import flex_attention as library
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from .recording import is_recorded

# A product takes no fewer features. Zeros add nothing to it.
LEAST_FEATURES = 16

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    keep: Tensor | None,
    causal: bool,
    prefix: int,
    window: int | None,
    scale: float | None,
) -> Tensor:
    """As `attention.attention`, whose checks it relies on."""
    shape = (query.shape[2], key.shape[2], causal, prefix, window)
    if keep is None:
        # Outside of tracers and modes a mask is kept for the next call.
        mask = (_mask.__wrapped__ if is_recorded(query.detach()) else _mask)(*shape, query.device)
    else:
        rule = _rule(*shape)

        def kept(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            return rule(batch, head, row, column) & keep[batch, column]

        mask = create_block_mask(kept, len(keep), None, *shape[:2], device=query.device)
    features = query.shape[-1], value.shape[-1]
    query, key, value = (_widened(tensor) for tensor in (query, key, value))
    scale = features[0] ** -0.5 if scale is None else scale
    mixed = compiled()(query, key, value, block_mask=mask, scale=scale)
    assert isinstance(mixed, Tensor)
    return mixed[..., : features[1]]


def _widened(heads: Tensor) -> Tensor:
    return F.pad(heads, (0, max(0, LEAST_FEATURES - heads.shape[-1])))


@cache
def compiled() -> Callable[..., Tensor]:
    """The library's function, compiled when it is first called and again for each new shape."""
    return torch.compile(library.flex_attention)  # pyright: ignore[reportReturnType]


@lru_cache(maxsize=64)
def _mask(
    queries: int, keys: int, causal: bool, prefix: int, window: int | None, device: torch.device
) -> BlockMask:
    rule = _rule(queries, keys, causal, prefix, window)
    with torch.inference_mode(False):  # training could not use it otherwise
        return create_block_mask(rule, None, None, queries, keys, device=device)


def _rule(queries: int, keys: int, causal: bool, prefix: int, window: int | None) -> Rule:
    behind = keys - queries
    reach = keys if window is None else window

    def rule(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        if not causal:
            return column >= 0
        seen = (column <= row + behind) & (column > row + behind - reach)
        return seen | (column < prefix)

    return rule
