"""Normalizers: what they write, and that the reversible ones give every text back."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text import segment
from tokenzoo.text.normalizers import CAPITAL, CAPITALS, ESCAPE, CaseMarkers, SpaceMarkers, Uroman
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.triads import TriadicSuffixes
from tokenzoo.text.vocab import TextVocab

from .real_text import parallel

REVERSIBLE = (CaseMarkers(), SpaceMarkers(), TriadicSuffixes(), TriadicSuffixes("marks"))
# Text that is likely to trip them: their own marks, letters with odd case, digits of several scripts.
awkward = st.text(
    st.sampled_from(f"aAbBßẞıİiIſKǅǆΣσς漢ŉΐ09.1٣ eE\u0301_▁{ESCAPE}{CAPITAL}{CAPITALS}\ue0e0\ue0e4\ue0e8'")
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(awkward, st.text()))
def test_reversible_ones_give_every_text_back(text: str) -> None:
    for normalizer in REVERSIBLE:
        assert normalizer.is_lossless
        assert normalizer.undo(normalizer.apply(text)) == text


@pytest.mark.parametrize("language", ["de", "el", "ja", "ru", "tr", "vi"])
def test_real_text_comes_back(language: str) -> None:
    text = "\n".join(parallel()[language])
    for normalizer in REVERSIBLE:
        assert normalizer.undo(normalizer.apply(text)) == text


def test_case_is_marked() -> None:
    apply = CaseMarkers().apply
    assert apply("The NATO's mcDonald, A") == (f"{CAPITAL}the {CAPITALS}nato's mc{CAPITAL}donald, {CAPITAL}a")
    assert apply("Straße ÉTÉ Ωmega") == f"{CAPITAL}straße {CAPITALS}été {CAPITAL}ωmega"
    # Small letters that would come back as others stay as they are.
    assert apply("\u212a") == "\u212a" and apply("ǅ") == "ǅ"
    assert apply(CAPITAL) == ESCAPE + CAPITAL


def test_case_marks_leave_fewer_distinct_words() -> None:
    words = set(re.findall(r"[^\W\d_]+", "\n".join(parallel()["en"])))
    lowered = {CaseMarkers().apply(word).lstrip(CAPITAL + CAPITALS) for word in words}
    assert len(lowered) < 0.9 * len(words)


def test_case_marks_of_a_model_that_stand_alone_are_dropped() -> None:
    assert CaseMarkers().undo(f"a{CAPITAL}") == "a"
    assert CaseMarkers().undo(f"{CAPITALS} b") == " b"


def test_spaces_are_marked() -> None:
    assert SpaceMarkers().apply(" a  b▁") == f"▁a▁▁b{ESCAPE}▁"


def shown(text: str) -> str:
    names = {"\ue0e0": "k", "\ue0e1": "m", "\ue0e2": "b", "\ue0e3": "t", "\ue0e4": "q", "\ue0e8": "p"}
    return "".join(names.get(letter, letter) for letter in text)


@pytest.mark.parametrize(
    ("plain", "marked"),
    [
        ("1234567.8901", "1m234k567.890p1pp"),
        ("0.000", "0.000p"),
        ("007", "007"),
        ("0007", "0k007"),
        ("1000000000000000000"[:18], "100q000t000b000m000k000"),
        ("1000000000000000000", "1000000000000000000"),
        ("0.1234567890123456", "0.1234567890123456"),
        ("1e5 v2 0x10 1.2.3.4 x1000", "1e5 v2 0x10 1.2.3.4 x1000"),
        ("-12345, (99999)", "-12k345, (99k999)"),
        ("1000.", "1k000."),
        ("٣٣٣٣", "٣٣٣٣"),
    ],
)
def test_numbers_are_cut_in_threes_by_weight(plain: str, marked: str) -> None:
    assert shown(TriadicSuffixes().apply(plain)) == marked


@pytest.mark.parametrize("variant", ["fixed", "marks"])
@given(integer=st.text("0123456789", min_size=1, max_size=18), fraction=st.text("0123456789", max_size=15))
@settings(max_examples=60, deadline=None)
def test_a_number_takes_a_token_for_three_digits(variant, integer: str, fraction: str) -> None:
    triads, vocab, way = tokenizer_of(variant)
    text = triads.apply(integer + ("." + fraction if fraction else ""))
    groups, after = math.ceil(len(integer) / 3), math.ceil(len(fraction) / 3)
    pieces = PreTokenizer("pattern", pattern=f"{triads.pattern}|[^0-9]").pieces(text)
    assert vocab.decode([each for piece in pieces for each in way(piece.encode())]) == text.encode()
    marks = groups - 1 + after if variant == "marks" else 0
    assert sum(len(way(piece.encode())) for piece in pieces) == groups + after + bool(fraction) + marks


def tokenizer_of(variant):
    if variant not in _MADE:
        triads = TriadicSuffixes(variant)
        vocab = triads.extended(TextVocab.of_bytes())
        _MADE[variant] = (triads, vocab, segment.fewest(vocab))
    return _MADE[variant]


_MADE: dict = {}


def test_the_two_variants_have_their_sizes() -> None:
    assert len(set(TriadicSuffixes("fixed").pieces())) == 1110 * 11
    assert len(set(TriadicSuffixes("marks").pieces())) == 1110 + 10
    with pytest.raises(ValueError, match="variant 'both'"):
        TriadicSuffixes("both")  # pyright: ignore[reportArgumentType]


def test_uroman_is_latin_and_says_that_it_is_lossy() -> None:
    uroman = Uroman()
    assert not uroman.is_lossless
    assert uroman.apply("Игорь Стравинский") == "Igor Stravinsky"
    assert uroman.apply("ελληνικά").isascii()
    with pytest.raises(NotImplementedError, match="lossy"):
        uroman.undo("Igor")
