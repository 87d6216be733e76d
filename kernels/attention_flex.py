"""Attention by FlexAttention: blocks that a mask hides altogether are skipped, not computed and discarded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as library
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

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
        mask = _mask(*shape, query.device)
    else:
        rule = _rule(*shape)

        def kept(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            return rule(batch, head, row, column) & keep[batch, column]

        mask = create_block_mask(kept, len(keep), None, *shape[:2], device=query.device)
    mixed = compiled()(query, key, value, block_mask=mask, scale=scale)
    assert isinstance(mixed, Tensor)
    return mixed


@cache
def compiled() -> Callable[..., Tensor]:
    """The library's function, compiled when it is first called and again for each new shape."""
    return torch.compile(library.flex_attention)  # pyright: ignore[reportReturnType]


@lru_cache(maxsize=64)
def _mask(
    queries: int, keys: int, causal: bool, prefix: int, window: int | None, device: torch.device
) -> BlockMask:
    rule = _rule(queries, keys, causal, prefix, window)
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
