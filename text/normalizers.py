"""Normalizers: text rewritten before it is tokenized; the reversible ones can be undone, letter by letter.

`apply` rewrites, `undo` gives the text back, `is_lossless` says whether it can. Markers are characters for
private use, so that they stay apart from text; where a text holds them itself they are escaped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from ..zoo.optional import require

# U+E0F0 ... U+E0FF are ours: an escape for whatever of them a text holds, and the marks of this file.
ESCAPE = "\ue0ff"
CAPITAL, CAPITALS = "\ue0f0", "\ue0f1"
SPACE = "▁"

_WORD = re.compile(r"[^\W\d_]+")


class Normalizer(Protocol):
    """Text to text. `undo(apply(text)) == text` where `is_lossless`."""

    @property
    def is_lossless(self) -> bool: ...

    def apply(self, text: str) -> str: ...

    def undo(self, text: str) -> str:
        """The text again; NotImplementedError where it is lost."""
        ...


@dataclass(frozen=True)
class CaseMarkers:
    """Letters become small, with a mark before a capital letter and another before a word all in capitals:
    "The NATO" and "the nato" share their pieces.

    A letter that does not come back through small letters (ǅ, the Kelvin sign) stays as it is.
    """

    kind: str = "case"

    @property
    def is_lossless(self) -> bool:
        return True

    def apply(self, text: str) -> str:
        return _WORD.sub(_lowered, escape(text, CAPITAL + CAPITALS))

    def undo(self, text: str) -> str:
        return _CASED.sub(_raised, text)


# An escaped character, a mark and what it is about, or a mark about nothing (of ids that a model made).
_CASED = re.compile(f"{ESCAPE}(.)|{CAPITALS}([^\\W\\d_]+)|{CAPITAL}(.)|[{CAPITAL}{CAPITALS}]", re.DOTALL)


def _lowered(match: re.Match[str]) -> str:
    word = match[0]
    if word.islower():
        return word
    comes_back = [_comes_back(letter) for letter in word]
    if all(comes_back) and sum(letter.isupper() for letter in word) > 1:
        return CAPITALS + "".join(letter.lower() for letter in word)
    return "".join(
        CAPITAL + letter.lower() if back and letter.isupper() else letter
        for letter, back in zip(word, comes_back, strict=True)
    )


def _comes_back(letter: str) -> bool:
    """Whether this is what its small letter becomes in capitals; so of letters without case, too."""
    small = letter.lower()
    return len(small) == 1 and small.upper() == letter and _WORD.fullmatch(small) is not None


def _raised(match: re.Match[str]) -> str:
    escaped, word, letter = match.groups()
    if escaped is not None:
        return escaped
    return (word or letter or "").upper()


@dataclass(frozen=True)
class SpaceMarkers:
    """Spaces become "▁", as sentencepiece writes them; unlike there, a "▁" of the text itself comes back."""

    kind: str = "space"

    @property
    def is_lossless(self) -> bool:
        return True

    def apply(self, text: str) -> str:
        return escape(text, SPACE).replace(" ", SPACE)

    def undo(self, text: str) -> str:
        return _SPACED.sub(lambda match: match[1] if match[1] is not None else " ", text)


_SPACED = re.compile(f"{ESCAPE}(.)|{SPACE}", re.DOTALL)


@dataclass(frozen=True)
class Uroman:
    """Any script in Latin letters (Hermjakob et al. 2018), by the package `uroman`; many texts become one, so
    nothing leads back.

    language  a code of ISO 639-3 such as "hin", where letters are read by language
    """

    language: str | None = None
    kind: str = "uroman"

    @property
    def is_lossless(self) -> bool:
        return False

    def apply(self, text: str) -> str:
        return self._romanizer.romanize_string(text, lcode=self.language)

    def undo(self, text: str) -> str:
        raise NotImplementedError("uroman is lossy: the text it was made from cannot be told")

    @cached_property
    def _romanizer(self) -> Any:
        # Its tables take seconds to read.
        return require("uroman", "uroman").Uroman()


def escape(text: str, marks: str) -> str:
    """`text` with ESCAPE before each of `marks` and each ESCAPE that it holds."""
    return re.sub(f"[{ESCAPE}{marks}]", lambda match: ESCAPE + match[0], text)
