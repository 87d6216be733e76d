"""Normalizers: text rewritten before it is tokenized; the reversible ones can be undone, letter by letter.

`apply` rewrites, `undo` gives the text back, `is_lossless` says whether it can. Markers are characters for
private use, so that they stay apart from text; where a text holds them itself they are escaped.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ..zoo.optional import require

# U+E0F0 ... U+E0FF are ours: an escape for whatever of them a text holds, and the marks of this file.
ESCAPE = "\ue0ff"
CAPITAL, CAPITALS = "\ue0f0", "\ue0f1"
SPACE = "▁"
_LONGEST_LINE = 1000

_WORD = re.compile(r"[^\W\d_]+")
# I is the capital of ı and İ that of i in Turkish, Azerbaijani and their kin.
DOTTED_LANGUAGES = ("az", "tr")


class Normalizer(ABC):
    """Text to text. `undo(apply(text)) == text` where `is_lossless`; `undo` takes any text, such as one that
    a model made.

    most_growth  bytes that become of a byte at most
    keeps_words  whether text can be cut at spaces and signs and its parts be rewritten by themselves
    """

    most_growth: ClassVar[int] = 4
    keeps_words: ClassVar[bool] = False

    @property
    def is_lossless(self) -> bool:
        return True

    @abstractmethod
    def parts(self, text: str) -> Iterator[tuple[str, str]]:
        """The text in parts, each with what it becomes; both joined are the text and its normal form."""

    def apply(self, text: str) -> str:
        """The normal form."""
        return "".join(written for _, written in self.parts(text))

    @abstractmethod
    def undo(self, text: str) -> str:
        """The text again; NotImplementedError where it is lost."""


@dataclass(frozen=True)
class CaseMarkers(Normalizer):
    """Letters become small, with a mark before a capital letter and another before a word all in capitals:
    "The NATO" and "the nato" share their pieces.

    language  "tr" or "az" for the two letters i of Turkish and Azerbaijani

    A letter that does not come back through small letters (ǅ, the Kelvin sign) stays as it is.
    """

    language: str | None = None

    keeps_words: ClassVar[bool] = True

    def parts(self, text: str) -> Iterator[tuple[str, str]]:
        end = 0
        for match in _WORD.finditer(text):
            if match.start() > end:
                yield from escaped(text[end : match.start()], CAPITAL + CAPITALS)
            yield from self._lowered(match[0])
            end = match.end()
        if end < len(text):
            yield from escaped(text[end:], CAPITAL + CAPITALS)

    def undo(self, text: str) -> str:
        return _CASED.sub(self._raised, text)

    def _lowered(self, word: str) -> Iterator[tuple[str, str]]:
        if not any(map(str.isupper, word)):
            yield word, word
            return
        small = [self._small(letter) for letter in word]
        if None not in small and sum(letter.isupper() for letter in word) > 1:
            mark = CAPITALS
            for letter, lower in zip(word, small, strict=True):
                yield letter, f"{mark}{lower}"
                mark = ""
            return
        for letter, lower in zip(word, small, strict=True):
            yield letter, CAPITAL + lower if lower is not None and letter.isupper() else letter

    def _small(self, letter: str) -> str | None:
        """The small letter that becomes this one in capitals; None when there is none. Letters without case
        are their own."""
        small = letter.translate(_DOTLESS).lower() if self._is_dotted else letter.lower()
        if len(small) != 1 or self._large(small) != letter or not _WORD.fullmatch(small):
            return None
        return small

    def _large(self, text: str) -> str:
        return (text.translate(_DOTTED) if self._is_dotted else text).upper()

    def _raised(self, match: re.Match[str]) -> str:
        kept, word, letter = match.groups()
        return kept if kept is not None else self._large(word or letter or "")

    @property
    def _is_dotted(self) -> bool:
        return self.language in DOTTED_LANGUAGES


_DOTLESS, _DOTTED = str.maketrans("Iİ", "ıi"), str.maketrans("ıi", "Iİ")
# An escaped character, a mark and what it is about, or a mark about nothing (of ids that a model made).
_CASED = re.compile(f"{ESCAPE}(.?)|{CAPITALS}([^\\W\\d_]+)|{CAPITAL}(.)|[{CAPITAL}{CAPITALS}]", re.DOTALL)


@dataclass(frozen=True)
class SpaceMarkers(Normalizer):
    """Spaces become "▁", as sentencepiece writes them; unlike there, a "▁" of the text itself comes back."""

    def parts(self, text: str) -> Iterator[tuple[str, str]]:
        return ((kept, written.replace(" ", SPACE)) for kept, written in escaped(text, SPACE))

    def undo(self, text: str) -> str:
        return _SPACED.sub(lambda match: match[1] if match[1] is not None else " ", text)


_SPACED = re.compile(f"{ESCAPE}(.?)|{SPACE}", re.DOTALL)


@dataclass(frozen=True)
class Uroman(Normalizer):
    """Any script in Latin letters (Hermjakob et al. 2018), by the package `uroman`; many texts become one, so
    nothing leads back.

    language  a code of ISO 639-3 such as "hin", where letters are read by language

    Slow: some kilobytes a second, but for ASCII, which stays as it is. Lines are read by themselves, and what
    is longer than 1,000 characters in parts, for the package takes a kilobyte of memory a letter.
    """

    language: str | None = None

    # A sign of three bytes such as ㍿ is read as a word or two.
    most_growth: ClassVar[int] = 16

    @property
    def is_lossless(self) -> bool:
        return False

    def parts(self, text: str) -> Iterator[tuple[str, str]]:
        # What a letter becomes depends on its neighbours, but not on those in another line.
        for line in text.splitlines(keepends=True):
            for start in range(0, len(line), _LONGEST_LINE):
                part = line[start : start + _LONGEST_LINE]
                yield (
                    part,
                    part if part.isascii() else self._romanizer.romanize_string(part, lcode=self.language),
                )

    def undo(self, text: str) -> str:
        raise NotImplementedError("uroman is lossy: the text it was made from cannot be told")

    @cached_property
    def _romanizer(self) -> Any:
        # Its tables take seconds to read.
        return require("uroman", "uroman").Uroman()


def escaped(text: str, marks: str) -> Iterator[tuple[str, str]]:
    """`text` in parts, those of `marks` and each ESCAPE that it holds written with ESCAPE before it."""
    for place, part in enumerate(re.split(f"([{ESCAPE}{marks}])", text)):
        if part:
            yield part, ESCAPE + part if place % 2 else part
