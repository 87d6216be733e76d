"""Words of a megabyte, which nothing cuts, in time that grows with their length and no faster."""

import pytest

from tokenzoo.text.long_words import WORDS, cases, measured, word

SMALL, LARGE = 25_000, 1_000_000
# What takes tens of CPU seconds a megabyte is tried by `python -m tokenzoo.text.long_words` alone.
_SLOW = (
    "segmenter less-is-better",
    "sampler unigram",
    "sampler fewest",
    "sampler dropout",
    "normalizer uroman",
)


def test_words_are_what_they_are_called() -> None:
    assert {kind: len(word(kind, 60_000).encode()) for kind in WORDS} == dict.fromkeys(WORDS, 60_000)
    assert word("letters", 999).isalpha() and word("digits", 999).isdigit() and word("spaces", 99).isspace()


@pytest.mark.parametrize("name", [name for name in cases() if name not in _SLOW])
def test_a_megabyte_takes_seconds(name: str) -> None:
    kind = "digits" if "digits" in name else "letters"
    seconds, megabytes = measured(name, kind, LARGE)
    assert seconds < 10 and megabytes < 400


@pytest.mark.parametrize("kind", ["one", "digits", "spaces", "cjk", "emoji"])
@pytest.mark.parametrize("name", ["engine tiktoken", "myte"])
def test_whatever_the_word_is_made_of(name: str, kind: str) -> None:
    assert measured(name, kind, LARGE // 2)[0] < 10


@pytest.mark.parametrize("name", _SLOW[:-1])
def test_slow_ones_are_linear(name: str) -> None:
    small, large = measured(name, "letters", SMALL)[0], measured(name, "letters", 4 * SMALL)[0]
    assert large < 8 * max(small, 0.02)
