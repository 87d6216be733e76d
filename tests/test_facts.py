"""Facts: what they refuse, what they say, and that they survive JSON."""

import json
import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzoo.zoo.facts import Facts

SNAC = Facts(
    name="snac",
    modality="audio",
    sample_rate_hz=24000,
    channels=1,
    token_rate_hz=11.71875,
    codebook_sizes=(4096,) * 7,
    latent_dim=768,
    roles=("coarse",) + ("fine",) * 6,
    nested="codebooks",
    keeps=(1, 3, 7),
)


def test_what_follows_from_the_codebooks() -> None:
    facts = Facts(name="x", modality="image", codebook_sizes=(8, 1, 5))
    assert facts.is_discrete
    assert facts.vocab_size == 14
    assert facts.bits_per_token == pytest.approx(3 + math.log2(5))
    continuous = Facts(name="x", modality="image", latent_dim=16)
    assert (continuous.is_discrete, continuous.vocab_size, continuous.bits_per_token) == (False, 0, None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"modality": "video"}, "modality 'video': expected one of image, audio, text"),
        ({"nested": "levels"}, "nested 'levels': expected 'tokens', 'codebooks' or None"),
        ({"codebook_sizes": (4, 0)}, r"codebook size 0: expected an integer from 1 to 2\*\*62"),
        ({"codebook_sizes": (2**63,)}, "codebook size 9223372036854775808"),
        (
            {"codebook_sizes": (4, 4), "roles": ("semantic",)},
            "1 roles for 2 codebooks: give one each or none",
        ),
        ({"nested": "tokens", "keeps": (4, 2)}, r"keeps \(4, 2\): expected rising counts"),
        ({"nested": "tokens", "keeps": (0, 2)}, r"keeps \(0, 2\): expected rising counts"),
        ({"nested": "codebooks"}, "nested='codebooks' without codebook_sizes"),
        ({"max_tokens": 0}, "max_tokens=0: expected more than 0"),
        ({"token_rate_hz": math.nan}, "token_rate_hz=nan"),
        ({"token_rate_hz": math.inf}, "token_rate_hz=inf"),
        ({"sample_rate_hz": -1}, "sample_rate_hz=-1"),
    ],
)
def test_facts_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Facts(**dict[str, Any](name="x", modality="audio") | wrong)


def test_check_keep_names_the_legal_counts() -> None:
    assert [SNAC.check_keep(count) for count in (1, 3, 7, 9)] == [1, 3, 7, 9]
    with pytest.raises(ValueError, match="keep=2: snac decodes prefixes of 1, 3, 7 codebooks"):
        SNAC.check_keep(2)
    alit = Facts(name="alit", modality="image", nested="tokens", keeps=tuple(range(32, 1057, 32)))
    with pytest.raises(
        ValueError, match=r"keep=33: alit decodes prefixes of 32, 64, 96, 128, 160, \.\.\., 1024, 1056"
    ):
        alit.check_keep(33)
    pooling = Facts(name="m3", modality="image", keeps=(1, 9, 36))
    assert pooling.check_keep(9) == 9 and pooling.may_be_short
    with pytest.raises(ValueError, match="keep=4: m3 makes 1, 9, 36 tokens"):
        pooling.check_keep(4)
    flat = Facts(name="titok", modality="image")
    with pytest.raises(
        ValueError, match="titok has no nested axis, so keep=3 has no meaning; leave keep out"
    ):
        flat.check_keep(3)


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "2", None])
def test_check_keep_takes_integers_from_one(count: Any) -> None:
    with pytest.raises(ValueError, match="expected an integer of at least 1"):
        SNAC.check_keep(count)


def test_check_keep_takes_the_integers_of_other_libraries() -> None:
    kept = SNAC.check_keep(np.int64(3))
    assert kept == 3 and type(kept) is int


def test_who_is_the_same_tokenizer() -> None:
    left = Facts(name="a", modality="image", codebook_sizes=(8,), fingerprint="f")
    assert left.is_same_tokenizer(Facts(name="b", modality="image", codebook_sizes=(9,), fingerprint="f"))
    assert not left.is_same_tokenizer(Facts(name="a", modality="image", codebook_sizes=(8,), fingerprint="g"))
    assert left.is_same_tokenizer(Facts(name="a", modality="image", codebook_sizes=(8,)))
    assert not left.is_same_tokenizer(Facts(name="b", modality="image", codebook_sizes=(8,)))
    assert not left.is_same_tokenizer(Facts(name="a", modality="image", codebook_sizes=(9,)))
    assert not left.is_same_tokenizer(Facts(name="a", modality="audio", codebook_sizes=(8,)))


def test_to_dict_leaves_out_what_stands_at_its_default() -> None:
    assert Facts(name="bytes", modality="text", codebook_sizes=(256,), is_lossless=True).to_dict() == {
        "name": "bytes",
        "modality": "text",
        "codebook_sizes": [256],
        "is_lossless": True,
    }


PRINTABLE = st.characters(exclude_categories=["C", "Z"])

_sizes = st.lists(st.integers(1, 2**62), min_size=1, max_size=4).map(tuple)
_positive = st.none() | st.integers(1, 2**40)
FACTS = st.builds(
    Facts,
    name=st.text(PRINTABLE, max_size=9),
    modality=st.sampled_from(["image", "audio", "text"]),
    revision=st.none() | st.text(PRINTABLE),
    licence=st.none() | st.text(PRINTABLE),
    sample_rate_hz=_positive,
    max_tokens=_positive,
    token_rate_hz=st.none() | st.floats(0.001, 1e6),
    codebook_sizes=_sizes,
    latent_dim=_positive,
    nested=st.sampled_from(["tokens", "codebooks"]),
    keeps=st.sets(st.integers(1, 99), max_size=4).map(lambda counts: tuple(sorted(counts))),
    is_causal=st.booleans(),
    has_decoder=st.booleans(),
)


@given(FACTS)
def test_facts_survive_json(facts: Facts) -> None:
    assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x"}, "facts lack modality"),
        ({"name": "x", "modality": "image", "colour": 1}, "unknown facts .*colour.*; known: name, modality"),
        ({"name": "x", "modality": "image", 3: 1}, "unknown facts"),
        ({"name": 3, "modality": "image"}, "fact name is 3: expected str"),
        ({"name": "x", "modality": ["image"]}, "fact modality is .*: expected Modality"),
        ({"name": "x", "modality": "image", "channels": True}, "fact channels is True: expected int"),
        ({"name": "x", "modality": "image", "channels": 3.0}, "fact channels is 3.0: expected int"),
        ({"name": "x", "modality": "image", "is_causal": 1}, "fact is_causal is 1: expected bool"),
        ({"name": "x", "modality": "image", "is_causal": None}, "fact is_causal is None: expected bool"),
        (
            {"name": "x", "modality": "image", "codebook_sizes": 4},
            r"codebook_sizes is 4: expected tuple\[int",
        ),
        ({"name": "x", "modality": "image", "codebook_sizes": [4.0]}, r"codebook_sizes is \[4.0\]"),
        (
            {"name": "x", "modality": "audio", "token_rate_hz": 10**400},
            "token_rate_hz is 1000.*: expected float",
        ),
        ({"name": "x", "modality": "audio", "token_rate_hz": "50"}, "token_rate_hz is '50': expected float"),
        (["name", "modality"], "facts are a list: expected a mapping"),
    ],
)
def test_from_dict_trusts_nothing(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Facts.from_dict(values)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([field.name for field in fields(Facts)]), _json, max_size=6))
def test_from_dict_raises_value_errors_only(values: dict[str, Any]) -> None:
    try:
        facts = Facts.from_dict({"name": "x", "modality": "image"} | values)
    except ValueError:
        return
    assert Facts.from_dict(facts.to_dict()) == facts


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "\ud800"])
def test_names_that_would_upset_a_terminal_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected printable characters"):
        Facts(name=name, modality="text")
