"""Turkish words and their morphemes, by the analyser zeyrek (MIT)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

from ..zoo.optional import require

_KEPT_WORDS = 1 << 16


class Turkish:
    """A dictionary and the rules of Turkish inflection. It takes three seconds to load, then a millisecond
    or two a word; the first use needs `pip install "tokenzoo[text-measures]"`.

    affixes  surfaces that count as morphemes beside the roots; `affixes_of` finds those of a text
    """

    def __init__(self, affixes: Iterable[str] = ()) -> None:
        self.affixes = frozenset(affixes)
        self._analyses = lru_cache(_KEPT_WORDS)(self._analyse)

    @cached_property
    def _analyser(self) -> Any:
        zeyrek = require("zeyrek", "text-measures")
        # It warns of everything it finds.
        logging.getLogger("zeyrek.rulebasedanalyzer").setLevel(logging.ERROR)
        return zeyrek.MorphAnalyzer().analyzer

    def analyses(self, word: str) -> frozenset[tuple[str, ...]]:
        """The ways to part a word, e.g. {("ev", "ler", "imiz", "den")}: root first, in small letters, without
        what has no sound. Several where it means several things; empty where it is no Turkish word."""
        return self._analyses(small_letters(word))

    def is_word(self, text: str) -> bool:
        """%TR: a word of Turkish, inflected or not."""
        return bool(self.analyses(text))

    def is_pure(self, text: str) -> bool:
        """%Pure: a root by itself, or one of `affixes`."""
        return small_letters(text) in self.affixes or any(len(parts) == 1 for parts in self.analyses(text))

    def affixes_of(self, words: Iterable[str]) -> frozenset[str]:
        """Every suffix of these words, as it is spelled there."""
        return frozenset(affix for word in words for parts in self.analyses(word) for affix in parts[1:])

    def table(self, words: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Words that can be parted in one way only, with their morphemes, for `boundary_scores`. What this
        leaves out is for the caller to report: len(table) of so many words."""
        found: dict[str, tuple[str, ...]] = {}
        for word in words:
            if word == small_letters(word) and len(parted := self.analyses(word)) == 1:
                (found[word],) = parted
        return found

    def _analyse(self, word: str) -> frozenset[tuple[str, ...]]:
        if not word.isalpha():
            return frozenset()
        found = self._analyser.analyze(word)
        parted = (tuple(surface for _, surface in analysis.morphemes if surface) for analysis in found)
        # Roots with a circumflex are listed without it, so that what is found may not spell the word.
        return frozenset(parts for parts in parted if "".join(parts) == word)


def small_letters(word: str) -> str:
    """Turkish has two letters i: I is small ı, İ is small i."""
    return word.replace("I", "ı").replace("İ", "i").lower()
