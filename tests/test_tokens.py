"""Tokens: ragged batches, and everything that can be done to them without the model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenzoo import Facts, Tokens

NESTED = Facts(name="nested", modality="image", codebook_sizes=(8,), nested="tokens", max_tokens=9)
LEVELS = Facts(name="levels", modality="audio", codebook_sizes=(4, 16, 3), nested="codebooks")
FLOATS = Facts(name="floats", modality="image", latent_dim=2)


def tokens_of(facts: Facts, lengths: list[int], width: int | None = None, **fields: Any) -> Tokens:
    """Repeatable tokens of these lengths with 0 in the padding."""
    generator = torch.Generator().manual_seed(sum(lengths) + len(lengths))
    width = max(lengths, default=0) if width is None else width
    if facts.is_discrete:
        columns = [torch.randint(k, (len(lengths), width), generator=generator) for k in facts.codebook_sizes]
        values = columns[0] if len(columns) == 1 else torch.stack(columns, dim=-1)
    else:
        values = torch.randn(len(lengths), width, facts.latent_dim or 1, generator=generator)
    counts = torch.tensor(lengths, dtype=torch.int64)
    real = torch.arange(width) < counts[:, None]
    values = values * (real if values.ndim == 2 else real[..., None])
    extents = torch.tensor([[10 * length] for length in lengths], dtype=torch.int64).reshape(len(lengths), 1)
    return Tokens(values, counts, extents, facts, **fields)


def dressed(lengths: list[int], scales: int = 2) -> Tokens:
    """Tokens with every side information there is."""
    plain = tokens_of(LEVELS, lengths)
    real = plain.mask
    return replace(
        plain,
        positions=torch.arange(1, 1 + real.numel()).reshape(real.shape) * real,
        durations=(torch.arange(real.numel()).reshape(real.shape) % 5 + 1) * real,
        scales=torch.linspace(0.5, 1, len(lengths) * scales).reshape(len(lengths), scales),
        captions=tuple(f"caption {index} – ü" for index in range(len(lengths))),
    )


def test_what_tokens_say() -> None:
    tokens = tokens_of(LEVELS, [3, 0, 2])
    assert len(tokens) == 3 and tokens.is_discrete and tokens.device.type == "cpu"
    assert tokens.ids is tokens.values
    assert repr(tokens) == "Tokens(levels, ids (3, 3, 3), lengths=[3, 0, 2])"
    assert tokens.mask.tolist() == [[True] * 3, [False] * 3, [True, True, False]]
    assert tokens.codebook_sizes == (4, 16, 3)
    floats = tokens_of(FLOATS, [2])
    assert not floats.is_discrete and floats.codebook_sizes == ()
    assert repr(floats) == "Tokens(floats, floats (1, 2, 2), lengths=[2])"
    with pytest.raises(
        TypeError, match=r"floats is continuous: its tokens are floats in \.values, it has no ids"
    ):
        _ = floats.ids
    with pytest.raises(TypeError, match="floats is continuous: its tokens have no bit count"):
        _ = floats.bits


def test_bits_count_the_codebooks_present() -> None:
    tokens = tokens_of(LEVELS, [3, 0, 2])
    per_token = 2 + 4 + np.log2(3)
    assert tokens.bits.dtype == torch.float64
    assert tokens.bits.tolist() == pytest.approx([3 * per_token, 0, 2 * per_token])
    assert tokens.keep(2).bits.tolist() == [18, 0, 12]
    assert tokens_of(NESTED, [5]).bits.tolist() == [15]


IDS, LENGTHS, EXTENTS = torch.zeros(2, 3, dtype=torch.int64), torch.tensor([3, 1]), torch.tensor([[4], [4]])


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"values": IDS.int()}, TypeError, "values are torch.int32: expected int64 ids or floats"),
        ({"values": IDS.bool()}, TypeError, "values are torch.bool"),
        ({"values": IDS[0]}, ValueError, r"ids have shape \(3,\): expected \(B, N\) or \(B, N, Q\)"),
        ({"values": torch.tensor(3)}, ValueError, r"ids have shape \(\)"),
        ({"values": IDS.float()}, ValueError, r"float values have shape \(2, 3\): expected \(B, N, D\)"),
        ({"lengths": LENGTHS[:1]}, ValueError, r"lengths are int64 \(1,\): expected int64 \(2,\)"),
        ({"lengths": LENGTHS.int()}, ValueError, r"lengths are int32 \(2,\)"),
        ({"lengths": torch.tensor([4, 1])}, ValueError, r"lengths \[4, 1\]: expected 0 \.\.\. 3"),
        ({"lengths": torch.tensor([-1, 1])}, ValueError, r"lengths \[-1, 1\]"),
        (
            {"extents": EXTENTS[0]},
            ValueError,
            r"extents are int64 \(1,\): expected int64 \(2, 1\) or \(2, 2\)",
        ),
        ({"extents": EXTENTS.expand(2, 3)}, ValueError, r"extents are int64 \(2, 3\)"),
        ({"extents": EXTENTS.float()}, ValueError, r"extents are float32 \(2, 1\)"),
        ({"positions": IDS[:, :2]}, ValueError, r"positions are int64 \(2, 2\): expected int64 \(2, 3\)"),
        ({"durations": IDS.int()}, ValueError, r"durations are int32 \(2, 3\)"),
        ({"scales": torch.zeros(2)}, ValueError, r"scales are float32 \(2,\): expected float \(2, M\)"),
        ({"scales": IDS}, ValueError, r"scales are int64 \(2, 3\)"),
        ({"captions": ("one",)}, ValueError, "1 captions for 2 items"),
    ],
)
def test_tokens_that_cannot_be(fields: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Tokens(**{"values": IDS, "lengths": LENGTHS, "extents": EXTENTS, "facts": NESTED} | fields)


def test_keep_cuts_a_prefix_of_the_tokens() -> None:
    tokens = replace(tokens_of(NESTED, [6, 2, 0]), positions=torch.arange(18).reshape(3, 6))
    kept = tokens.keep(4)
    assert kept.lengths.tolist() == [4, 2, 0]
    assert torch.equal(kept.ids, tokens.ids[:, :4])
    assert kept.positions is not None
    assert kept.positions.tolist() == [[0, 1, 2, 3], [6, 7, 0, 0], [0, 0, 0, 0]]
    assert torch.equal(kept.extents, tokens.extents)
    assert tokens.keep(99).identical(replace(tokens, positions=tokens.positions))
    assert tokens.keep(1).ids.shape == (3, 1)
    with pytest.raises(ValueError, match="keep=0: expected an integer of at least 1"):
        tokens.keep(0)


def test_keep_cuts_a_prefix_of_the_codebooks() -> None:
    tokens = tokens_of(LEVELS, [3, 1])
    kept = tokens.keep(2)
    assert torch.equal(kept.ids, tokens.ids[..., :2])
    assert kept.codebook_sizes == (4, 16)
    assert kept.lengths.tolist() == [3, 1]
    assert kept.keep(5).identical(kept) and tokens.keep(3).identical(tokens)


def test_keep_is_an_error_without_a_nested_axis() -> None:
    with pytest.raises(ValueError, match="floats has no nested axis"):
        tokens_of(FLOATS, [3]).keep(2)
    latents = Tokens(torch.zeros(1, 2, 6), torch.tensor([2]), torch.tensor([[8]]), LEVELS)
    with pytest.raises(TypeError, match="latents before quantizing"):
        latents.keep(1)


def test_crop_takes_the_padding_off() -> None:
    sound = tokens_of(LEVELS, [2, 1])
    cropped = sound.crop(torch.arange(40.0).reshape(2, 1, 20))
    assert [tuple(item.shape) for item in cropped] == [(1, 20), (1, 10)]
    assert cropped[1].tolist() == [list(range(20, 30))]
    pictures = Tokens(IDS, LENGTHS, torch.tensor([[2, 3], [1, 4]]), NESTED)
    assert [tuple(item.shape) for item in pictures.crop(torch.zeros(2, 3, 2, 4))] == [(3, 2, 3), (3, 1, 4)]
    assert sound.crop(["a", "b"]) == ["a", "b"]
    with pytest.raises(ValueError, match="1 decoded items for 2 items of tokens"):
        sound.crop(torch.zeros(1, 1, 20))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 2))
def test_unbind_and_cat_undo_each_other(lengths: list[int], kind: int) -> None:
    tokens = [tokens_of(NESTED, lengths), tokens_of(FLOATS, lengths), dressed(lengths)][kind]
    singles = tokens.unbind()
    assert [len(single) for single in singles] == [1] * len(lengths)
    assert [single.values.shape[1] for single in singles] == lengths
    joined = Tokens.cat(singles)
    assert joined.identical(tokens) and tokens.identical(joined)
    assert torch.equal(joined.values, tokens.values)
    for single, again in zip(singles, joined.unbind(), strict=True):
        assert single.identical(again)


def test_cat_pads_to_the_longest() -> None:
    joined = Tokens.cat([dressed([1], scales=1), dressed([3, 2], scales=2)])
    assert joined.ids.shape == (3, 3, 3)
    assert joined.lengths.tolist() == [1, 3, 2]
    assert joined.scales is not None and joined.positions is not None
    assert joined.scales.tolist()[0] == [0.5, 0]
    assert joined.positions[0].tolist() == [1, 0, 0]
    assert joined.captions == ("caption 0 – ü", "caption 0 – ü", "caption 1 – ü")
    assert joined.unbind()[0].identical(dressed([1], scales=1))
    assert Tokens.cat([joined]).identical(joined)


def test_cat_refuses_what_does_not_join() -> None:
    with pytest.raises(ValueError, match="no tokens to join"):
        Tokens.cat([])
    with pytest.raises(ValueError, match="tokens of nested and of levels do not join"):
        Tokens.cat([tokens_of(NESTED, [1]), tokens_of(LEVELS, [1])])
    with pytest.raises(ValueError, match=r"values int64 \(1, 1, 3\) and int64 \(1, 1, 2\) do not join"):
        Tokens.cat([tokens_of(LEVELS, [1]), tokens_of(LEVELS, [1]).keep(2)])
    with pytest.raises(ValueError, match="1 of 2 batches carry positions: give them all, or none"):
        Tokens.cat([dressed([1]), replace(dressed([1]), positions=None)])
    with pytest.raises(ValueError, match="1 of 2 batches carry captions"):
        Tokens.cat([dressed([1]), replace(dressed([1]), captions=None)])


def test_identical_ignores_padding_and_nothing_else() -> None:
    tokens = dressed([3, 1])
    padded = Tokens.cat([tokens, dressed([5])])
    wide = Tokens.cat(padded.unbind()[:2])
    noisy = replace(
        padded,
        **{
            n: getattr(padded, n)[:2]
            for n in ("values", "lengths", "extents", "positions", "durations", "scales")
        },
        captions=tokens.captions,
    )
    assert noisy.values.shape[1] == 5
    filled = noisy.values.clone()
    filled[1, 1:] = 2
    for same in (wide, noisy, replace(noisy, values=filled)):
        assert tokens.identical(same) and same.identical(tokens)
    ids = tokens.ids.clone()
    ids[0, 2, 1] += 1
    assert tokens.positions is not None and tokens.durations is not None and tokens.scales is not None
    for other in (
        replace(tokens, values=ids),
        replace(tokens, lengths=torch.tensor([3, 2])),
        replace(tokens, extents=tokens.extents + 1),
        replace(tokens, positions=tokens.positions + 1),
        replace(tokens, durations=None),
        replace(tokens, scales=tokens.scales * 2),
        replace(tokens, scales=None),
        replace(tokens, captions=("a", "b")),
        replace(tokens, facts=replace(LEVELS, name="other")),
        tokens.keep(2),
        tokens.unbind()[0],
    ):
        assert not tokens.identical(other) and not other.identical(tokens)


def test_identical_compares_floats_as_numbers() -> None:
    tokens = tokens_of(FLOATS, [2, 1])
    short = replace(tokens, values=tokens.values.bfloat16())
    assert short.identical(replace(tokens, values=short.values.float()))
    assert not short.identical(tokens)
    assert tokens.identical(replace(tokens, values=tokens.values.clone().requires_grad_()))


def test_to_moves_every_tensor() -> None:
    moved = dressed([3, 1]).to("meta")
    for name in ("values", "lengths", "extents", "positions", "durations", "scales"):
        assert getattr(moved, name).device.type == "meta"
    assert dressed([3, 1]).to("cpu").identical(dressed([3, 1]))


def test_an_empty_batch() -> None:
    empty = tokens_of(NESTED, [])
    assert len(empty) == 0 and empty.unbind() == [] and empty.bits.tolist() == []
    assert empty.keep(3).identical(empty)
    assert Tokens.cat([empty, tokens_of(NESTED, [2])]).identical(tokens_of(NESTED, [2]))


def test_a_count_beyond_any_integer_type_keeps_all() -> None:
    tokens = tokens_of(NESTED, [3, 5])
    assert tokens.keep(10**30).identical(tokens)


def test_tokens_on_the_meta_device_have_a_repr() -> None:
    assert "meta" in repr(tokens_of(NESTED, [3, 5]).to("meta"))
