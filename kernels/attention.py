"""Attention behind one face: full, kept keys only, causal, prefix-causal, sliding window, with a cache."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Queries that share one slice of keys under a sliding window. On a CPU smaller blocks waste less work on what
# the window hides; below 64 the calls themselves begin to count.
BLOCK_QUERIES = 64


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    keep: Tensor | None = None,
    causal: bool = False,
    prefix: int = 0,
    window: int | None = None,
    scale: float | None = None,
    flex: bool = False,
) -> Tensor:
    """softmax(scale q.k) v over the keys that a query sees; zero where it sees none.

    query    (B, H, N, D) float
    key      (B, H, M, D) float
    value    (B, H, M, E) float
    keep     (B, M) bool, True where a key may be seen by anyone
    causal   query i stands at key M - N + i (a stream holds more keys than queries) and sees none beyond
    prefix   with causal: the first `prefix` keys are seen by all. In FlexTok's encoder these are the patches;
             registers see the patches and the registers before them
    window   with causal: of the keys after the prefix only the last `window` are seen, its own among them
    scale    D ** -0.5 if None
    flex     by a FlexAttention compiled for these shapes. For long sparse masks on CUDA; nowhere else
    returns  (B, H, N, E)

    What runs is torch's SDPA; without a mask where the rule allows it, and on a CPU window by window.
    Raises ValueError when the shapes or the options do not fit together.
    """
    _check_inputs(query, key, value, keep)
    _check_options(query, key, causal, prefix, window, flex)
    if flex:
        from .attention_flex import flex_attention

        return flex_attention(
            query, key, value, keep=keep, causal=causal, prefix=prefix, window=window, scale=scale
        )
    queries, keys = query.shape[2], key.shape[2]
    if keep is None and not causal:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    if keep is None and window is None and queries == keys:
        if prefix:
            return _by_parts(query, key, value, prefix, scale)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    # A traced graph would unroll the blocks for one length.
    blocks = query.device.type == "cpu" and not torch.compiler.is_compiling()
    if window is not None and prefix == 0 and blocks:
        return _by_blocks(query, key, value, keep, window, scale)
    mask = attention_mask(
        queries, keys, keep=keep, causal=causal, prefix=prefix, window=window, device=query.device
    )
    return _masked(query, key, value, mask, scale)


def attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    keep: Tensor | None = None,
    causal: bool = False,
    prefix: int = 0,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """What `attention` computes, with all N x M scores."""
    mask = attention_mask(
        query.shape[2],
        key.shape[2],
        keep=keep,
        causal=causal,
        prefix=prefix,
        window=window,
        device=query.device,
    )
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    blind = ~mask.any(dim=-1, keepdim=True)
    shares = scores.masked_fill(~mask & ~blind, -torch.inf).softmax(dim=-1)
    return shares.masked_fill(blind, 0) @ value


def attention_mask(
    queries: int,
    keys: int,
    *,
    keep: Tensor | None = None,
    causal: bool = False,
    prefix: int = 0,
    window: int | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Which query sees which key, as `attention` defines it: (N, M) bool, with keep (B, 1, 1 or N, M)."""
    rows = torch.arange(keys - queries, keys, device=device)[:, None]
    columns = torch.arange(keys, device=device)
    seen = torch.ones(1, keys, dtype=torch.bool, device=device)
    if causal:
        seen = columns <= rows
        if window is not None:
            seen = seen & (columns > rows - window)
        if prefix:
            seen = seen | (columns < prefix)
    return seen if keep is None else seen & keep[:, None, None, :]


class KeyValueCache:
    """The keys and values that the queries of a causal stream still see.

    window    as in `attention`; None keeps all
    position  how many came by so far: where the next chunk stands

        keys, values = cache.extend(key, value)
        mixed = attention(query, keys, values, causal=True, window=cache.window)

    equals the whole at once, for chunks of any length.
    """

    def __init__(self, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise ValueError(f"window={window}: expected at least 1, or None for all keys")
        self.window = window
        self.position = 0
        self._held: tuple[Tensor, Tensor] | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What is still seen, then this chunk: (B, H, N, D), (B, H, N, E) -> (B, H, M, D), (B, H, M, E)."""
        self.position += key.shape[2]
        if self._held is not None:
            key = torch.cat([self._held[0], key], dim=2)
            value = torch.cat([self._held[1], value], dim=2)
        self._held = self._last(key), self._last(value)
        return key, value

    def _last(self, tensor: Tensor) -> Tensor:
        """What the next query sees of it; a copy, so that the rest of a long chunk can be freed."""
        if self.window is None:
            return tensor
        return tensor[:, :, max(0, tensor.shape[2] - self.window + 1) :].clone()


def _by_parts(query: Tensor, key: Tensor, value: Tensor, prefix: int, scale: float | None) -> Tensor:
    """Prefix-causal, with all queries: the prefix sees itself and needs no mask; the rest sees both."""
    first = F.scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], scale=scale
    )
    mask = attention_mask(query.shape[2] - prefix, key.shape[2], causal=True, device=query.device)
    rest = F.scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=mask, scale=scale)
    return torch.cat([first, rest], dim=2)


def _by_blocks(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, window: int, scale: float | None
) -> Tensor:
    """Sliding window in O(N window): each block of queries against the keys that one of them sees."""
    queries, behind = query.shape[2], key.shape[2] - query.shape[2]
    mixed = []
    for start in range(0, queries, BLOCK_QUERIES):
        rows = slice(start, min(start + BLOCK_QUERIES, queries))
        seen = slice(max(0, behind + rows.start - window + 1), behind + rows.stop)
        mask = attention_mask(
            rows.stop - rows.start,
            seen.stop - seen.start,
            keep=None if keep is None else keep[:, seen],
            causal=True,
            window=window,
            device=query.device,
        )
        mixed.append(_masked(query[:, :, rows], key[:, :, seen], value[:, :, seen], mask, scale))
    return torch.cat(mixed, dim=2) if mixed else query.new_empty(*query.shape[:3], value.shape[3])


def _masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    if mask.ndim == 2:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    # Where a query sees nothing some backends give NaN, or NaN gradients: it sees all there, and is zeroed.
    blind = ~mask.any(dim=-1, keepdim=True)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask | blind, scale=scale)
    return mixed.masked_fill(blind, 0)


def _check_inputs(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> None:
    if (
        query.ndim != 4
        or query.shape[:2] != key.shape[:2]
        or query.shape[3:] != key.shape[3:]
        or key.shape[:3] != value.shape[:3]
    ):
        raise ValueError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}: expected "
            "(B, H, N, D), (B, H, M, D), (B, H, M, E)"
        )
    if keep is not None and (keep.dtype != torch.bool or keep.shape != (key.shape[0], key.shape[2])):
        raise ValueError(
            f"keep is {keep.dtype} {tuple(keep.shape)}: expected bool {(key.shape[0], key.shape[2])}, "
            "one value for each key"
        )


def _check_options(
    query: Tensor, key: Tensor, causal: bool, prefix: int, window: int | None, flex: bool
) -> None:
    if not causal and (prefix or window is not None):
        raise ValueError(
            f"prefix={prefix}, window={window} without causal: pass causal=True, or leave them out"
        )
    if causal and query.shape[2] > key.shape[2]:
        raise ValueError(
            f"{query.shape[2]} causal queries for {key.shape[2]} keys: expected a key for each at least"
        )
    if not 0 <= prefix <= key.shape[2]:
        raise ValueError(f"prefix={prefix}: expected 0 ... {key.shape[2]}, the number of keys")
    if window is not None and window < 1:
        raise ValueError(f"window={window}: expected at least 1, the query's own key")
    if flex and not query.is_cuda:
        raise ValueError(f"flex=True on {query.device}: it is faster on CUDA only; leave it out")
