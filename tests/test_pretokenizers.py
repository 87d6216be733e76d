"""Where text is cut: as `tokenizers` and tiktoken cut it, at every place, and in bounded time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from tokenizers import Regex, pre_tokenizers

from tokenzoo.text.pretokenizers import PATTERNS, PreTokenizer, recognise
from tokenzoo.zoo.config import Config

from .text_samples import NASTY, documents, split_of, texts

KINDS = [PreTokenizer(kind) for kind in PATTERNS] + [
    PreTokenizer(kind, digits="right_to_left") for kind in ("llama3", "cl100k", "o200k", "superbpe")
]


def name(pretokenizer: PreTokenizer) -> str:
    return f"{pretokenizer.kind}-{pretokenizer.digits}"


@pytest.mark.parametrize("pretokenizer", KINDS, ids=name)
def test_cuts_are_those_of_tokenizers(pretokenizer: PreTokenizer) -> None:
    library = split_of(pretokenizer)
    for text in [*NASTY, *documents()[::7]]:
        assert pretokenizer.split(text) == [span for _, span in library.pre_tokenize_str(text)], text


@settings(deadline=None)
@given(texts)
def test_any_text_is_cut_alike_and_comes_back(text: str) -> None:
    for pretokenizer in KINDS:
        spans = pretokenizer.split(text)
        assert spans == [span for _, span in split_of(pretokenizer).pre_tokenize_str(text)]
        assert "".join(pretokenizer.pieces(text)) == text
        assert all(left < right for left, right in spans)


def test_what_each_kind_is_known_for() -> None:
    pieces = {kind: PreTokenizer(kind).pieces("I'll  pay 1234\n  ") for kind in PATTERNS}
    assert pieces["gpt2"] == ["I", "'ll", " ", " pay", " 1234", "\n  "]
    assert pieces["llama3"] == ["I", "'ll", " ", " pay", " ", "123", "4", "\n", "  "]
    assert pieces["cl100k"] == ["I", "'ll", " ", " pay", " ", "123", "4", "\n  "]
    assert pieces["qwen2"] == ["I", "'ll", " ", " pay", " ", "1", "2", "3", "4", "\n", "  "]
    assert pieces["o200k"] == ["I'll", " ", " pay", " ", "123", "4", "\n", "  "]
    assert pieces["superbpe"] == ["I'll", " ", " pay ", "123", "4", "\n", "  "]
    assert PreTokenizer("none").split("a b") == [(0, 3)] and PreTokenizer("none").split("") == []


def test_digits_from_the_right() -> None:
    from_right = PreTokenizer("llama3", digits="right_to_left")
    for size in range(1, 12):
        number = "1234567890123"[:size]
        groups = [len(piece) for piece in from_right.pieces(number)]
        assert groups == [size % 3] * bool(size % 3) + [3] * (size // 3)
    assert from_right.pieces("x1234, ٣٤٥٦") == ["x", "1", "234", ",", " ", "٣", "٤٥٦"]
    for text in ("no digits", "12 345 123456"):
        assert from_right.split(text) == PreTokenizer("llama3").split(text)


def test_a_long_number_takes_no_longer_than_long() -> None:
    start = time.process_time()
    pieces = PreTokenizer("llama3", digits="right_to_left").pieces("7" * 1_000_001)
    assert len(pieces) == 333_334 and pieces[0] == "77" and pieces[-1] == "777"
    assert time.process_time() - start < 5  # looking ahead from each group would take hours


@pytest.mark.parametrize("pretokenizer", [*KINDS, PreTokenizer("none")], ids=name)
def test_there_and_back_through_json(pretokenizer: PreTokenizer) -> None:
    assert recognise(pretokenizer.to_json()) == pretokenizer


@pytest.mark.parametrize("kind", PATTERNS)
def test_other_spellings_cut_alike(kind: str) -> None:
    for spelling in PATTERNS[kind].aliases:
        library = pre_tokenizers.Split(Regex(spelling), "isolated")
        for text in [*NASTY, *documents()[::20]]:
            assert [span for _, span in library.pre_tokenize_str(text)] == PreTokenizer(kind).split(text)


def test_what_is_not_ours_is_not_recognised() -> None:
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    split = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS["gpt2"].regex},
        "behavior": "Isolated",
        "invert": False,
    }
    sequence = {"type": "Sequence", "pretokenizers": [split, bytes_]}
    assert recognise(sequence) == PreTokenizer("gpt2")
    assert recognise({"type": "ByteLevel", "add_prefix_space": False}) == PreTokenizer("gpt2")
    removed = split | {"behavior": "Removed", "invert": True}
    assert recognise({**sequence, "pretokenizers": [removed, bytes_]}) == PreTokenizer("gpt2")
    for wrong in (
        None,
        [],
        {"type": "ByteLevel"},  # it adds a space
        {"type": "Metaspace"},
        {**sequence, "pretokenizers": [split]},
        {**sequence, "pretokenizers": [split, bytes_ | {"use_regex": True}]},
        {**sequence, "pretokenizers": [split | {"behavior": "Removed"}, bytes_]},
        {**sequence, "pretokenizers": [split | {"pattern": {"Regex": r"\w+"}}, bytes_]},
        {**sequence, "pretokenizers": [split | {"pattern": None}, bytes_]},
    ):
        assert recognise(wrong) is None, wrong


def test_a_pattern_of_ones_own() -> None:
    vowels = PreTokenizer("pattern", "[aeiou]+")
    assert vowels.pieces("queueing up") == ["q", "ueuei", "ng ", "u", "p"]
    assert vowels.tiktoken_regex is None and not vowels.cuts_before_spaces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "gpt5"}, "unknown pre-tokenizer 'gpt5'; known: gpt2, cl100k"),
        ({"kind": "pattern"}, "only 'pattern' has one"),
        ({"kind": "gpt2", "pattern": "a"}, "only 'pattern' has one"),
        ({"kind": "qwen2", "digits": "right_to_left"}, "has no groups of three digits to turn around"),
        ({"kind": "pattern", "pattern": "("}, r"pattern '\(' does not compile: missing \)"),
        ({"kind": "pattern", "pattern": "a*"}, "matches the empty text"),
        ({"kind": "pattern", "pattern": "a" * 5000}, "pattern of 5000 characters: expected at most 4096"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PreTokenizer(**arguments)  # pyright: ignore[reportArgumentType]


def test_plain_values_in_a_configuration() -> None:
    from tokenzoo.text.segmented import SegmentedConfig

    assert issubclass(SegmentedConfig, Config)
    with pytest.raises(ValueError, match="pretokenizer has no field regex"):
        SegmentedConfig.from_dict(
            {"vocab_size": 300, "segmenter": "scaffold", "pretokenizer": {"regex": "a"}}
        )
