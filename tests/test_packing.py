"""Packed rows: nothing lost or mixed up, nothing computed for padding, the numbers of each item alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tokenzoo.kernels.packing import Bucket, Packing, packed_attention
from tokenzoo.zoo.length_policy import LengthPolicy
from tokenzoo.zoo.transformer import Transformer, TransformerSize

SIZE = TransformerSize(width=32, layers=3, heads=4)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def prefixes(lengths: list[int], longest: int) -> Tensor:
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def make(dtype: torch.dtype = torch.float64) -> Transformer:
    torch.manual_seed(0)
    return Transformer(SIZE).to(dtype)


def test_a_batch_by_hand() -> None:
    packing = Packing.of(prefixes([2, 3, 0, 1, 2], 3))
    assert packing.buckets == (Bucket(1, 1), Bucket(2, 2), Bucket(1, 3)) and packing.shape == (5, 3)
    assert packing.index.tolist() == [9, 0, 1, 12, 13, 3, 4, 5]
    padded = torch.arange(15).view(5, 3)
    packed = packing.pack(padded)
    assert packed.tolist() == packing.index.tolist()
    assert [part.tolist() for part in packing.split(packed)] == [[[9]], [[0, 1], [12, 13]], [[3, 4, 5]]]
    assert packing.unpack(packed).tolist() == [[0, 1, 0], [3, 4, 5], [0, 0, 0], [9, 0, 0], [12, 13, 0]]
    assert all(part.data_ptr() != 0 and part._base is packed for part in packing.split(packed)), "views"


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(0, 6),
    longest=st.integers(1, 7),
    seed=st.integers(0, 999),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_unpack_undoes_pack(batch: int, longest: int, seed: int, share: float) -> None:
    """For kept tokens anywhere in their rows (KARL, ALIT), also none at all."""
    keep = torch.rand(batch, longest, generator=torch.Generator().manual_seed(seed)) < share
    packing = Packing.of(keep)
    padded = draw(batch, longest, 2, 3)
    packed = packing.pack(padded)
    assert len(packed) == int(keep.sum()) == sum(bucket.tokens for bucket in packing.buckets)
    assert torch.equal(packing.unpack(packed), padded * keep[:, :, None, None])
    lengths = [bucket.length for bucket in packing.buckets]
    assert lengths == sorted(set(keep.sum(1).tolist()) - {0})


@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    scattered=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_transformer_gives_each_item_what_it_gets_alone(
    lengths: list[int], scattered: bool, seed: int
) -> None:
    """In float64 to 1e-12, whatever stands in the padding, NaN and all."""
    transformer = make()
    keep = prefixes(lengths, 12)
    if scattered:
        keep = keep[:, torch.randperm(12, generator=torch.Generator().manual_seed(seed))]
    x = draw(len(lengths), 12, 32, seed=seed).masked_fill(~keep[..., None], torch.nan)
    together = transformer(x, keep)
    for item, mask in enumerate(keep):
        alone = transformer(x[item : item + 1, mask])
        torch.testing.assert_close(together[item : item + 1, mask], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions_are_close_to_singles(dtype: torch.dtype) -> None:
    transformer = make(dtype)
    lengths = [12, 1, 5, 5, 8]
    x = draw(5, 12, 32).to(dtype)
    together = transformer(x, prefixes(lengths, 12))
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 5e-2}[dtype]
    assert together.dtype == dtype
    for item, length in enumerate(lengths):
        alone = transformer(x[item : item + 1, :length])
        torch.testing.assert_close(together[item : item + 1, :length], alone, rtol=0, atol=tolerance)


def test_gradients_are_those_of_singles() -> None:
    transformer = make()
    lengths = [4, 9, 4, 1]
    x = draw(4, 9, 32).requires_grad_()
    weights = draw(4, 9, 32, seed=1)
    keep = prefixes(lengths, 9)
    inputs = [x, *transformer.parameters()]
    found = torch.autograd.grad((transformer(x, keep) * weights)[keep].sum(), inputs)
    alone = x.new_zeros(())
    for item, length in enumerate(lengths):
        alone = alone + (transformer(x[item : item + 1, :length]) * weights[item, :length]).sum()
    for ours, theirs in zip(found, torch.autograd.grad(alone, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    assert bool((found[0][~keep] == 0).all())


def test_no_layer_sees_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """One-D-Piece's decoder in small: 257 patches and as many tokens as nested dropout left."""
    lengths = LengthPolicy(256, "power_of_two").sample(12, generator=torch.Generator().manual_seed(0))
    keep = torch.arange(257 + int(lengths.max())) < 257 + lengths[:, None]
    transformer = make(torch.float32)
    tokens: list[int] = []
    transformer.blocks[1].mlp.register_forward_pre_hook(
        lambda _, given: tokens.append(given[0][..., 0].numel())
    )
    scores: list[int] = []
    plain = F.scaled_dot_product_attention

    def counted(query: Tensor, key: Tensor, value: Tensor, **options: object) -> Tensor:
        assert not options.get("attn_mask"), "a bucket needs no mask"
        scores.append(query.shape[0] * query.shape[2] * key.shape[2])
        return plain(query, key, value)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    transformer(draw(*keep.shape, 32, dtype=torch.float32), keep)
    assert tokens == [int(keep.sum())]
    assert sum(scores) == SIZE.layers * int((257 + lengths).square().sum())
    assert len(scores) == SIZE.layers * len(lengths.unique()), "one call a bucket"


def test_traced_graphs_mask_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported for any batch, length and mask; the numbers are those of the packed pass."""
    transformer = make()
    batch, length = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=2, max=64)
    dynamic = ({0: batch, 1: length}, {0: batch, 1: length})
    given = draw(3, 9, 32), prefixes([9, 2, 5], 9)
    exported = torch.export.export(transformer, given, dynamic_shapes=dynamic).module()
    x, keep = draw(4, 7, 32, seed=1), prefixes([1, 7, 0, 3], 7)
    found, expected = exported(x, keep), transformer(x, keep)
    torch.testing.assert_close(found[keep], expected[keep], rtol=0, atol=1e-12)
    assert bool(found.isfinite().all())


def test_attention_keeps_value_widths() -> None:
    packing = Packing.of(prefixes([2, 5, 2], 5))
    query, key, value = draw(9, 2, 4), draw(9, 2, 4, seed=1), draw(9, 2, 3, seed=2)
    mixed = packed_attention(query, key, value, packing)
    assert mixed.shape == (9, 2, 3)
    scores = torch.einsum("qhd,khd->hqk", query[4:], key[4:]) / 2
    expected = torch.einsum("hqk,khe->qhe", scores.softmax(-1), value[4:])
    torch.testing.assert_close(mixed[4:], expected, rtol=0, atol=1e-13)


def test_misfits_are_refused() -> None:
    for keep in (torch.ones(3, 4), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"expected bool \(B, N\)"):
            Packing.of(keep)
