"""Attention against a loop over queries in float64: every mask, rows that see nothing, streams, gradients."""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import attention as library
from torch.nn import functional as F

from tokenzoo.kernels import attention as module
from tokenzoo.kernels import attention_flex
from tokenzoo.kernels.attention import KeyValueCache, attention, attention_mask, attention_reference

RULES: dict[str, dict[str, Any]] = {
    "full": {},
    "scaled": {"scale": 0.3},
    "causal": {"causal": True},
    "prefix": {"causal": True, "prefix": 2},
    "window": {"causal": True, "window": 3},
    "window of one": {"causal": True, "window": 1},
    "wide window": {"causal": True, "window": 200},
    "window and prefix": {"causal": True, "window": 2, "prefix": 2},
}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def heads(queries: int, keys: int, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """(2, 3, N, 8), (2, 3, M, 8), (2, 3, M, 5), as views, as a projection gives them."""
    return (
        draw(2, queries, 3, 8, dtype=dtype).transpose(1, 2),
        draw(2, keys, 3, 8, seed=1, dtype=dtype).transpose(1, 2),
        draw(2, keys, 3, 5, seed=2, dtype=dtype).transpose(1, 2),
    )


def naive(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, rule: dict[str, Any]) -> Tensor:
    """The definition, one query at a time."""
    queries, keys = query.shape[2], key.shape[2]
    scale = rule.get("scale", query.shape[3] ** -0.5)
    mixed = torch.zeros(*query.shape[:3], value.shape[3], dtype=query.dtype)
    for item in range(query.shape[0]):
        for row in range(queries):
            place = keys - queries + row
            seen = [
                j
                for j in range(keys)
                if (keep is None or keep[item, j])
                and (
                    not rule.get("causal")
                    or j < rule.get("prefix", 0)
                    or place - rule.get("window", keys) < j <= place
                )
            ]
            if seen:
                scores = (key[item][:, seen] * query[item, :, row : row + 1]).sum(-1) * scale
                mixed[item, :, row] = (scores.softmax(-1)[..., None] * value[item][:, seen]).sum(1)
    return mixed


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None, max_examples=12)
@given(
    queries=st.integers(1, 9),
    behind=st.integers(0, 7),
    masked=st.sampled_from([None, 0.2, 0.8]),
    block=st.sampled_from([1, 4, 64]),
    seed=st.integers(0, 99),
)
def test_every_rule(
    name: str, queries: int, behind: int, masked: float | None, block: int, seed: int
) -> None:
    query, key, value = heads(queries, queries + behind)
    rule = RULES[name] | ({"prefix": min(2, queries + behind)} if "prefix" in name else {})
    keep = None
    if masked is not None:
        chances = torch.rand(2, queries + behind, generator=torch.Generator().manual_seed(seed))
        keep = chances >= masked
        keep[1] = False
    expected = naive(query, key, value, keep, rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_QUERIES", block)
        found = attention(query, key, value, keep=keep, **rule)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        attention_reference(query, key, value, keep=keep, **rule), expected, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients(name: str, masked: bool) -> None:
    """Through every path, across blocks of queries, and finite where an item sees nothing."""
    inputs = [tensor.detach().requires_grad_() for tensor in heads(80, 90)]
    keep = torch.rand(2, 90, generator=torch.Generator().manual_seed(0)) < 0.5 if masked else None
    if keep is not None:
        keep[1] = False
    weights = draw(2, 3, 80, 5, seed=3)
    found = torch.autograd.grad((attention(*inputs, keep=keep, **RULES[name]) * weights).sum(), inputs)
    expected = torch.autograd.grad(
        (attention_reference(*inputs, keep=keep, **RULES[name]) * weights).sum(), inputs
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", [None, library.SDPBackend.MATH])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", [{}, {"causal": True}, {"causal": True, "window": 2}])
def test_who_sees_nothing_gets_zero(
    backend: library.SDPBackend | None, dtype: torch.dtype, rule: dict[str, Any]
) -> None:
    """Never NaN, in value or gradient: an item that is all padding, queries before the first kept key."""
    inputs = [tensor.detach().requires_grad_() for tensor in heads(6, 6, dtype=dtype)]
    keep = torch.tensor([[False, False, True, True, False, True], [False] * 6])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = library.sdpa_kernel(backend) if backend else warnings.catch_warnings()
    with context:
        mixed = attention(*inputs, keep=keep, **rule)
        mixed.sum().backward()
    assert bool((mixed[1] == 0).all())
    assert bool((mixed[0] != 0).any()) and bool(mixed.isfinite().all())
    if rule:
        assert bool((mixed[0, :, :2] == 0).all()), "no key stands before the third"
    for tensor in inputs:
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())
        assert bool((tensor.grad[1] == 0).all())


def test_nothing_to_attend_with_or_to() -> None:
    for rule in ({}, {"causal": True}, {"causal": True, "window": 4}):
        assert attention(*heads(0, 5), **rule).shape == (2, 3, 0, 5)
        keep = torch.ones(2, 0, dtype=torch.bool)
        assert attention(*heads(0, 0), keep=keep, **rule).shape == (2, 3, 0, 5)
    query, key, value = heads(3, 0)
    assert bool((attention(query, key, value, keep=torch.ones(2, 0, dtype=torch.bool)) == 0).all())


def test_registers_see_no_later_ones() -> None:
    """FlexTok's encoder: the first k registers do not depend on what follows, so encoding k is exact."""
    query, key, value = heads(30, 30)
    whole = attention(query, key, value, causal=True, prefix=16)
    for kept in (16, 17, 25):
        part = attention(query[:, :, :kept], key[:, :, :kept], value[:, :, :kept], causal=True, prefix=16)
        torch.testing.assert_close(part, whole[:, :, :kept], rtol=0, atol=1e-14)


@pytest.mark.parametrize("window", [1, 2, 5, 64, 100, None])
@pytest.mark.parametrize("chunks", [(150,), (1,) * 150, (7, 1, 60, 2, 80), (149, 1)])
def test_a_stream_equals_the_whole(window: int | None, chunks: tuple[int, ...]) -> None:
    query, key, value = heads(150, 150)
    whole = attention(query, key, value, causal=True, window=window)
    cache = KeyValueCache(window)
    parts = []
    for q, k, v in zip(query.split(chunks, 2), key.split(chunks, 2), value.split(chunks, 2), strict=True):
        keys, values = cache.extend(k, v)
        if window is not None:
            assert keys.shape[2] <= window - 1 + k.shape[2]
        parts.append(attention(q, keys, values, causal=True, window=cache.window))
    assert cache.position == 150
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=0, atol=1e-13)


def test_a_long_chunk_is_not_held() -> None:
    cache = KeyValueCache(4)
    cache.extend(*heads(1000, 1000)[1:])
    keys, _ = cache.extend(*heads(1, 1)[1:])
    assert keys.shape[2] == 4 and cache.position == 1001
    assert keys.untyped_storage().nbytes() == keys.numel() * keys.element_size()


def test_float32_and_float16_are_close() -> None:
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.bfloat16, 3e-2)):
        query, key, value = heads(100, 100, dtype=dtype)
        for rule in RULES.values():
            exact = attention_reference(query.double(), key.double(), value.double(), **rule)
            found = attention(query, key, value, **rule)
            assert found.dtype == dtype
            torch.testing.assert_close(found.double(), exact, rtol=0, atol=tolerance)


def test_a_window_costs_what_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the scores of a sliding window grow with N window, and not with N squared."""
    scores: list[int] = []
    plain = F.scaled_dot_product_attention

    def counted(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        scores.append(query.shape[2] * key.shape[2])
        return plain(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    query, key, value = heads(1000, 1000)
    attention(query, key, value, causal=True, window=32)
    assert sum(scores) <= 1000 * (module.BLOCK_QUERIES + 31)
    scores.clear()
    attention(query, key, value, causal=True, prefix=600)
    assert sum(scores) == 600 * 600 + 400 * 1000, "a prefix sees nothing of the rest"


@pytest.mark.parametrize("name", ["causal", "prefix", "window"])
def test_traced_graphs_take_any_length(name: str) -> None:
    class Mix(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attention(query, key, value, **RULES[name])

    length = torch.export.Dim("length", min=4, max=512)
    exported = torch.export.export(Mix(), heads(70, 70), dynamic_shapes=({2: length},) * 3).module()
    for count in (5, 200):
        torch.testing.assert_close(
            exported(*heads(count, count)), attention(*heads(count, count), **RULES[name])
        )


def test_compiled_equals_eager() -> None:
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    keep = torch.arange(20) < torch.tensor([[20], [0]])
    for rule in (RULES["full"], RULES["window and prefix"]):
        expected = attention(*heads(20, 20), keep=keep, **rule)
        torch.testing.assert_close(compiled(*heads(20, 20), keep=keep, **rule), expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("behind", [0, 9])
@pytest.mark.parametrize("masked", [False, True])
def test_flex_attention_has_the_same_rules(
    monkeypatch: pytest.MonkeyPatch, name: str, behind: int, masked: bool
) -> None:
    """Uncompiled: it would take longer to compile here than all the rest."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attention_flex, "compiled", lambda: flex_attention)
    query, key, value = heads(150, 150 + behind, dtype=torch.float32)
    keep = torch.arange(150 + behind) < torch.tensor([[100], [0]]) if masked else None
    rule = {"causal": False, "prefix": 0, "window": None, "scale": None} | RULES[name]
    found = attention_flex.flex_attention(query, key, value, keep=keep, **rule)
    expected = attention_reference(query, key, value, keep=keep, **RULES[name])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_mask_made_in_inference_serves_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(attention_flex, "compiled", lambda: flex_attention)
    attention_flex._mask.cache_clear()
    query, key, value = heads(40, 40, dtype=torch.float32)
    rule = {"keep": None, "causal": True, "prefix": 0, "window": 5, "scale": None}
    with torch.inference_mode():
        attention_flex.flex_attention(query, key, value, **rule)
    assert attention_flex._mask.cache_info().currsize == 1
    mask = attention_flex._mask(40, 40, True, 0, 5, query.device)
    assert attention_flex._mask.cache_info().hits == 1 and not mask.kv_indices.is_inference()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("masked", [False, True])
def test_on_cuda(name: str, masked: bool) -> None:
    query, key, value = (tensor.cuda() for tensor in heads(300, 300, dtype=torch.float32))
    value = torch.cat([value, value[..., :3]], dim=-1)
    keep = (torch.arange(300) < torch.tensor([[100], [0]])).cuda() if masked else None
    expected = attention_reference(
        query.double(), key.double(), value.double(), keep=keep, **RULES[name]
    ).float()
    for flex in (False, True):
        found = attention(query, key, value, keep=keep, flex=flex, **RULES[name])
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


def test_the_mask_by_hand() -> None:
    drawn = attention_mask(3, 5, causal=True, prefix=1, window=2).int().tolist()
    assert drawn == [[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, "without causal"),
        ({"prefix": 3}, "without causal"),
        ({"causal": True, "window": 0}, "window=0"),
        ({"causal": True, "prefix": 7}, r"prefix=7: expected 0 \.\.\. 6"),
        ({"keep": torch.ones(2, 5, dtype=torch.bool)}, r"expected bool \(2, 6\)"),
        ({"keep": torch.ones(2, 6)}, "torch.float32"),
        ({"flex": True}, "CUDA only"),
    ],
)
def test_misfits_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(*heads(4, 6), **options)


def test_shapes_that_do_not_fit_are_refused() -> None:
    query, key, value = heads(4, 6)
    for wrong in ((query[0], key, value), (query, key[:, :2], value), (query[..., :7], key, value)):
        with pytest.raises(ValueError, match=r"expected \(B, H, N, D\)"):
            attention(*wrong)
    with pytest.raises(ValueError, match="7 causal queries for 6 keys"):
        attention(heads(7, 6)[0], key, value, causal=True)
    with pytest.raises(ValueError, match="window=0"):
        KeyValueCache(0)
