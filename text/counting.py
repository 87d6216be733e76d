"""Counting tokens of a text that grows, without encoding again what cannot change any more."""

from __future__ import annotations

import codecs
import unicodedata
from typing import TYPE_CHECKING

from .bytes import as_bytes

if TYPE_CHECKING:
    from .text_tokenizer import TextTokenizer

# Text is encoded in windows of about so many characters where only its beginning is wanted.
WINDOW = 8192


class TokenCounter:
    """How many tokens a text has so far: `append` and read `count`, as often as you like.

    What lies before the last safe cut is encoded once; only the rest is encoded again when `count` is read.
    `count` is `tokenizer.count` of everything appended. Tokenizers that know no safe cut
    (`TextTokenizer.cuts_safely`) encode all of it again.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._settled = 0
        self._rest = ""
        self._counted: int | None = 0

    def append(self, text: str | bytes) -> None:
        """More text; bytes may end inside a character. ValueError for a str with lone surrogates."""
        self._rest += self._decoder.decode(as_bytes(text))
        self._counted = None
        if cut := self._tokenizer.last_cut(self._rest):
            self._settled += self._count(self._rest[:cut])
            self._rest = self._rest[cut:]

    @property
    def count(self) -> int:
        """Tokens of the whole text so far."""
        if self._counted is None:
            pending = self._decoder.getstate()[0]
            self._counted = self._settled + self._count(self._rest, pending)
        return self._counted

    def _count(self, text: str, pending: bytes = b"") -> int:
        return self._tokenizer.count(text.encode(errors="surrogateescape") + pending)


def last_cut(text: str) -> int:
    """The last place where the patterns of `PreTokenizer.cuts_before_spaces` cut whatever comes after; 0 when
    there is none.

    After a letter or a digit the pretoken ends before white space and before any sign but an apostrophe,
    which may begin a contraction, and marks, which some patterns count among letters. After a sign it ends
    before a space.
    """
    for place in range(len(text) - 1, 0, -1):
        before, after = text[place - 1], text[place]
        if before.isalnum():
            if after != "'" and (after.isspace() or unicodedata.category(after)[0] in "PSZ"):
                return place
        elif after == " " and not before.isspace():
            return place
    return 0
