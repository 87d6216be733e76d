"""Ids from anywhere: what is taken, and the words with which the rest is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tokenzoo import Facts, Tokens
from tokenzoo.text.bytes import ByteTokenizer
from tokenzoo.zoo.tokenizer import Tokenizer

from .toys import build_toy


class Stamp(ByteTokenizer):
    """A tokenizer of any facts, to stamp with; one token an extent of 2."""

    def __init__(self, **facts: Any) -> None:
        super().__init__()
        self._facts = Facts(**{"name": "x", "modality": "audio", "codebook_sizes": (8,)} | facts)

    @property
    def facts(self) -> Facts:
        return self._facts

    def num_tokens(self, extent: Any) -> int:
        return int(extent[0]) // 2

    def default_extents(self, lengths: torch.Tensor) -> torch.Tensor:
        return 2 * lengths[:, None]


ONE = Stamp()
THREE = Stamp(codebook_sizes=(4, 16, 3), nested="codebooks", keeps=(1, 3))
FLOATS = Stamp(codebook_sizes=(), latent_dim=2)
NESTED = Stamp(nested="tokens", max_tokens=9)


@pytest.mark.parametrize(
    "values",
    [
        [[1, 2, 3], [4, 5, 6]],
        ((1, 2, 3), [4, 5, 6]),
        np.array([[1, 2, 3], [4, 5, 6]], np.uint8),
        np.array([[1, 2, 3], [4, 5, 6]], np.uint64),
        np.array([[1, 2, 3], [4, 5, 6]], ">i4"),
        np.array([[3, 2, 1], [6, 5, 4]])[:, ::-1],
        [np.array([1, 2, 3]), np.array([4, 5, 6], np.int16)],
        torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int32),
        [torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6], dtype=torch.uint8)],
    ],
)
def test_ids_in_every_shape_they_come(values: Any) -> None:
    tokens = ONE.stamp(values)
    assert tokens.ids.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tokens.ids.dtype == torch.int64
    assert tokens.lengths.tolist() == [3, 3] and tokens.extents.tolist() == [[6], [6]]
    assert tokens.facts is ONE.facts


def test_arrays_are_copied_and_may_be_read_only() -> None:
    array = np.array([[1, 2]])
    array.flags.writeable = False
    tokens = ONE.stamp(array, lengths=array[:, 0], extents=2 * array[:, :1])
    tokens.ids[0, 0] = 5
    assert array[0, 0] == 1


def test_ragged_lists_are_padded_and_counted() -> None:
    tokens = ONE.stamp([[1, 2, 3], [], [4]])
    assert tokens.ids.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    assert tokens.lengths.tolist() == [3, 0, 1] and tokens.extents.tolist() == [[6], [0], [2]]
    nested = THREE.stamp([[[1, 2, 0]], [[3, 15, 2], [0, 0, 1]]])
    assert nested.ids.tolist() == [[[1, 2, 0], [0, 0, 0]], [[3, 15, 2], [0, 0, 1]]]
    assert nested.lengths.tolist() == [1, 2]
    floats = FLOATS.stamp([[[0.5, 1.5]], [], [[2.0, 3.0], [4.0, 5.0]]])
    assert floats.values.dtype == torch.float32 and floats.lengths.tolist() == [1, 0, 2]
    assert floats.values[0].tolist() == [[0.5, 1.5], [0, 0]]


def test_items_without_tokens() -> None:
    assert ONE.stamp([[], []]).ids.shape == (2, 0)
    assert THREE.stamp([[], []]).ids.shape == (2, 0, 3)
    assert FLOATS.stamp([[]]).values.shape == (1, 0, 2)
    assert ONE.stamp(torch.zeros(0, 4, dtype=torch.int64)).ids.shape == (0, 4)


def test_lengths_cut_and_clear_the_padding() -> None:
    tokens = ONE.stamp(torch.tensor([[1, 2, 3], [4, -5, 99]]), lengths=[3, 1])
    assert tokens.ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert tokens.extents.tolist() == [[6], [2]]
    floats = FLOATS.stamp(torch.tensor([[[1.0, 2.0], [float("nan"), 0.0]]]), lengths=np.array([1]))
    assert floats.values.tolist() == [[[1, 2], [0, 0]]]


def test_side_information_by_name() -> None:
    speaker = Stamp(takes_captions=True)
    tokens = speaker.stamp(
        [[1, 2], [3]],
        extents=[[6], [6]],
        positions=[[7, 9], [8]],
        durations=torch.tensor([[1, 2], [3, 4]]),
        scales=[[0.5], [1]],
        captions=["one", "two"],
    )
    assert tokens.positions is not None and tokens.durations is not None and tokens.scales is not None
    assert tokens.positions.tolist() == [[7, 9], [8, 0]]
    assert tokens.durations.tolist() == [[1, 2], [3, 0]]
    assert tokens.scales.tolist() == [[0.5], [1.0]] and tokens.scales.dtype == torch.float32
    assert tokens.captions == ("one", "two")


def test_float_tensors_keep_dtype_and_gradient() -> None:
    values = torch.ones(1, 2, 2, dtype=torch.float64, requires_grad=True)
    tokens = FLOATS.stamp(values)
    assert tokens.values.dtype == torch.float64 and tokens.values.requires_grad


WRONG: list[tuple[Tokenizer, Any, dict[str, Any], type[Exception], str]] = [
    # ids outside their codebook
    (
        ONE,
        [[1, 8]],
        {},
        ValueError,
        r"id 8 at \(0, 1\): x takes 0 \.\.\. 7 there; subtract the offset of a joint",
    ),
    (ONE, [[1], [-1]], {}, ValueError, r"id -1 at \(1, 0\): x takes 0 \.\.\. 7"),
    (THREE, [[[0, 0, 0], [3, 15, 3]]], {}, ValueError, r"id 3 at \(0, 1, 2\): x takes 0 \.\.\. 2 there"),
    (ONE, [[2**63]], {}, ValueError, r"item 0 hold 9223372036854775808: expected numbers below 2\*\*63"),
    (ONE, [[2**70]], {}, TypeError, r"item 0 are object .*: expected numbers below 2\*\*63"),
    # types
    (ONE, [[1.0]], {}, TypeError, r"values are torch\.float32: x takes integer ids"),
    (ONE, torch.ones(1, 2), {}, TypeError, r"values are torch\.float32: x takes integer ids"),
    (ONE, np.ones((1, 2)), {}, TypeError, r"values are torch\.float32"),
    (ONE, [[True, False]], {}, TypeError, r"values are torch\.bool: x takes integer ids"),
    (ONE, torch.ones(1, 2, dtype=torch.bool), {}, TypeError, r"values are torch\.bool"),
    (ONE, torch.ones(1, 2, dtype=torch.complex64), {}, TypeError, r"values are torch\.complex64"),
    (ONE, [["a"]], {}, TypeError, r"item 0 are <U1 .*: expected numbers"),
    (ONE, [[None]], {}, TypeError, "item 0 are object"),
    (ONE, "123", {}, TypeError, "values are <U3"),
    (ONE, None, {}, TypeError, "values are object"),
    (FLOATS, [[[1, 2]]], {}, TypeError, r"values are torch\.int64: x is continuous and takes floats"),
    (FLOATS, torch.full((1, 1, 2), float("inf")), {}, ValueError, "values hold NaN or infinity"),
    # shapes
    (ONE, [1, 2], {}, ValueError, r"values are a flat list: expected a batch, e\.g\. \[\[1, 2, 3\]\]"),
    (ONE, torch.tensor([1, 2]), {}, ValueError, r"values have shape \(2,\): expected \(B, N\)"),
    (ONE, np.zeros((1, 1, 1, 1), int), {}, ValueError, r"values have shape \(1, 1, 1, 1\)"),
    (ONE, [], {}, ValueError, r"values have shape \(0,\)"),
    (ONE, [[1], [[2]]], {}, ValueError, r"items have shapes \(1,\), \(1, 1\): expected \(N,\), \(N, Q\)"),
    (ONE, [[[1], [2, 3]]], {}, ValueError, "item 0: nested lists of unequal lengths"),
    (ONE, [[[[1]]]], {}, ValueError, r"items have shapes \(1, 1, 1\)"),
    (
        ONE,
        torch.zeros(1, 2, 1, dtype=torch.int64),
        {},
        ValueError,
        r"ids have shape \(1, 2, 1\): x takes \(B, N\)",
    ),
    (ONE, torch.zeros(1, 2, 2, dtype=torch.int64), {}, ValueError, "2 codebooks: x takes 1"),
    (THREE, [[1, 2]], {}, ValueError, r"ids have shape \(1, 2\): x takes \(B, N, Q\)"),
    (THREE, torch.zeros(1, 2, 4, dtype=torch.int64), {}, ValueError, "4 codebooks: x takes 3"),
    (
        THREE,
        torch.zeros(1, 2, 2, dtype=torch.int64),
        {},
        ValueError,
        "keep=2: x decodes prefixes of 1, 3 codebooks",
    ),
    (THREE, torch.zeros(1, 2, 0, dtype=torch.int64), {}, ValueError, "0 codebooks: x takes 3"),
    (FLOATS, torch.zeros(1, 2, 3), {}, ValueError, "values have 3 features: x takes 2"),
    # lengths and extents
    (
        ONE,
        [[1, 2]],
        {"lengths": [3]},
        ValueError,
        r"lengths \[3\]: the items have \[2\] tokens, expected no more",
    ),
    (ONE, [[1, 2], [3]], {"lengths": [2, 2]}, ValueError, r"the items have \[2, 1\] tokens"),
    (ONE, [[1, 2]], {"lengths": [-1]}, ValueError, r"lengths hold -1: expected 0 or more"),
    (ONE, [[1, 2]], {"lengths": [1.0]}, TypeError, r"lengths are torch\.float32: expected integers"),
    (ONE, [[1, 2]], {"lengths": [1, 1]}, ValueError, r"\(2,\) lengths for 1 items: expected \(1,\)"),
    (
        ONE,
        [[1, 2]],
        {"extents": [[6]]},
        ValueError,
        "2 tokens for an extent of 6: x takes 3; give the extents",
    ),
    (ONE, [[1, 2]], {"extents": [[2]]}, ValueError, "2 tokens for an extent of 2: x takes 1;"),
    (
        ONE,
        [[1, 2]],
        {"extents": [4]},
        ValueError,
        r"extents are int64 \(1,\): expected int64 \(1, 1\) or \(1, 2\)",
    ),
    (ONE, [[1, 2]], {"extents": [[4], [4]]}, ValueError, r"extents are int64 \(2, 1\)"),
    (ONE, [[1, 2]], {"extents": [[4.0]]}, TypeError, r"extents are torch\.float32: expected integers"),
    (ONE, [[1, 2]], {"extents": [[-4]]}, ValueError, "extents hold -4"),
    (NESTED, [[0] * 10], {}, ValueError, "10 tokens: x decodes at most 9"),
    (NESTED, [[1, 2]], {"extents": [[2]]}, ValueError, "2 tokens for an extent of 2: x takes at most 1"),
    # side information
    (ONE, [[1, 2]], {"positions": [[1]]}, ValueError, "positions of item 0 are 1 for 2 tokens: expected one"),
    (
        ONE,
        [[1, 2]],
        {"positions": [[1, 2, 3]]},
        ValueError,
        r"positions are int64 \(1, 3\): expected int64 \(1, 2\)",
    ),
    (ONE, [[1, 2]], {"durations": [[1, -2]]}, ValueError, "durations hold -2: expected 0 or more"),
    (ONE, [[1, 2]], {"durations": [[1.5, 2]]}, TypeError, r"durations are torch\.float32"),
    (ONE, [[1, 2]], {"scales": [0.5]}, ValueError, r"scales are float32 \(1,\): expected float \(1, M\)"),
    (ONE, [[1, 2]], {"scales": [[float("nan")]]}, ValueError, "scales hold NaN or infinity"),
    (ONE, [[1, 2]], {"captions": ["a"]}, ValueError, "x takes no captions: leave them out"),
    (
        Stamp(takes_captions=True),
        [[1]],
        {"captions": "a"},
        TypeError,
        "captions are 'a': expected a list of strings",
    ),
    (Stamp(takes_captions=True), [[1]], {"captions": [1]}, TypeError, r"captions are \[1\]"),
    (Stamp(takes_captions=True), [[1]], {"captions": ["a", "b"]}, ValueError, "2 captions for 1 items"),
    (
        Stamp(takes_captions=True),
        [[1], [2]],
        {"captions": ["a", "b\ud800"]},
        ValueError,
        "caption of item 1 has a lone surrogate at character 1, which UTF-8 cannot hold; take it out",
    ),
]


@pytest.mark.parametrize(("tokenizer", "values", "more", "kind", "message"), WRONG)
def test_wrong_input_is_refused_in_words(
    tokenizer: Tokenizer, values: Any, more: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tokenizer.stamp(values, **more)


def test_fewer_tokens_pass_where_the_tokenizer_is_nested_or_adaptive() -> None:
    for tokenizer in (NESTED, Stamp(is_adaptive=True)):
        assert tokenizer.stamp([[1, 2]], extents=[[18]]).lengths.tolist() == [2]
    stepped = Stamp(nested="tokens", keeps=(2, 4, 8))
    assert stepped.stamp([[1, 2]], extents=[[18]]).lengths.tolist() == [2]
    with pytest.raises(ValueError, match="keep=3: x decodes prefixes of 2, 4, 8 tokens"):
        stepped.stamp([[1, 2, 3]], extents=[[18]])


def test_a_prefix_of_the_codebooks_decodes() -> None:
    sound = build_toy("toy-sound")
    ids = torch.tensor([[[5, 7, 2], [1, 0, 0]]])
    whole = sound.stamp(ids)
    assert whole.extents.tolist() == [[8]]
    for depth in (1, 2, 3):
        prefix = sound.stamp(ids[..., :depth], extents=[[7]])
        assert prefix.codebook_sizes == (6, 8, 3)[:depth]
        decoded = sound.decode(prefix)
        assert decoded.shape == (1, 1, 7)
        assert torch.equal(decoded, sound.decode(whole.keep(depth))[..., :7])
    assert not torch.equal(sound.decode(whole.keep(1)), sound.decode(whole))


def test_decode_refuses_what_stamp_would() -> None:
    sound = build_toy("toy-sound")
    good = sound.stamp([[[5, 7, 2], [1, 0, 0]]])
    bad_id, long = good.ids.clone(), torch.tensor([[2**40]])
    bad_id[0, 1, 1] = 8
    for bad, message in (
        (replace(good, values=bad_id), r"id 8 at \(0, 1, 1\): toy-sound takes 0 \.\.\. 7"),
        (
            replace(good, extents=long),
            "2 tokens for an extent of 1099511627776: toy-sound takes 274877906944",
        ),
        (replace(good, values=torch.cat([good.ids, good.ids], -1)), "6 codebooks: toy-sound takes 3"),
    ):
        with pytest.raises(ValueError, match=message):
            sound.decode(bad)
    with pytest.raises(TypeError, match=r"values are torch\.float32: toy-sound takes integer ids"):
        sound.decode(replace(good, values=torch.zeros(1, 2, 5)))


def test_stamping_is_how_to_insist() -> None:
    ours, other = Stamp(), Stamp(name="y")
    tokens = other.stamp([[1, 2], [3]])
    with pytest.raises(
        ValueError, match=r"made by y, this is x; load that tokenizer, or insist with tokenizer\.stamp"
    ):
        ours.check_tokens(tokens)
    again = ours.stamp(tokens.values, lengths=tokens.lengths, extents=tokens.extents)
    ours.check_tokens(again)
    assert isinstance(again, Tokens) and torch.equal(again.ids, tokens.ids)
    marked = replace(tokens, facts=replace(tokens.facts, fingerprint="0123456789abcdef"))
    with pytest.raises(ValueError, match=r"made by y \(0123456789ab\)"):
        ours.check_tokens(marked)
