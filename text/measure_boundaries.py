"""Whether tokens end where morphemes do: precision, recall and F1 of boundaries inside words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol


class Encoder(Protocol):
    """Any text tokenizer."""

    def encode_ids(self, text: str | bytes, /) -> list[int]: ...
    def decode_bytes(self, ids: Sequence[int], /) -> bytes: ...


@dataclass(frozen=True)
class BoundaryScores:
    """Boundaries inside words, pooled over all words.

    hits, made, gold  both, by the tokenizer, by the morphology
    words, skipped    scored; and those whose tokens do not spell them, e.g. in other letter case
    """

    hits: int
    made: int
    gold: int
    words: int
    skipped: int

    @property
    def precision(self) -> float:
        """1.0 when the tokenizer makes none."""
        return self.hits / self.made if self.made else 1.0

    @property
    def recall(self) -> float:
        return self.hits / self.gold if self.gold else 1.0

    @property
    def f1(self) -> float:
        total = self.made + self.gold
        return 2 * self.hits / total if total else 1.0


def boundaries(parts: Iterable[bytes | str]) -> frozenset[int]:
    """Bytes before each boundary between parts: those of ("un", "do", "ing") are 2 and 4."""
    sizes = [len(part.encode() if isinstance(part, str) else part) for part in parts]
    ends = list(accumulate(sizes))
    return frozenset(ends[:-1]) - {0, *ends[-1:]}


def parts_of_word(tokenizer: Encoder, word: str) -> list[bytes] | None:
    """The bytes of a word's tokens as it stands inside a text, after a space, which is taken off again; None
    when the tokens do not spell the word."""
    parts = [tokenizer.decode_bytes([each]) for each in tokenizer.encode_ids(f" {word}")]
    told = b"".join(parts)
    spaces = len(told) - len(told.lstrip(b" "))
    if told[spaces:] != word.encode():
        return None
    kept = []
    for part in parts:
        taken = min(spaces, len(part))
        spaces -= taken
        kept.append(part[taken:])
    return [part for part in kept if part]


def boundary_scores(tokenizer: Encoder, morphemes: Mapping[str, Sequence[str]]) -> BoundaryScores:
    """How the boundaries of tokens agree with those of morphemes.

    morphemes  word -> its parts, which joined are the word: a table read by `read_morphemes`, or
               `Turkish.table`. Morphology that is not in the spelling (sang, feet) has no place here.

    ValueError when there are no words, or parts do not join to theirs.
    """
    if not morphemes:
        raise ValueError("the table of morphemes is empty: nothing to compare with")
    hits = made = wanted = skipped = 0
    for word, morphs in morphemes.items():
        if "".join(morphs) != word:
            raise ValueError(f"morphemes {' '.join(morphs)!r} do not join to {word!r}")
        parts = parts_of_word(tokenizer, word)
        if parts is None:
            skipped += 1
            continue
        ours, gold = boundaries(parts), boundaries(morphs)
        hits, made, wanted = hits + len(ours & gold), made + len(ours), wanted + len(gold)
    return BoundaryScores(hits, made, wanted, len(morphemes) - skipped, skipped)


def read_morphemes(path: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """A table of words: a word a line, its morphemes parted by spaces ("un do ing"). Empty lines and those
    that start with # are left out; of a word that comes twice the first counts."""
    found: dict[str, tuple[str, ...]] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        morphs = tuple(line.split())
        if morphs and not line.startswith("#"):
            found.setdefault("".join(morphs), morphs)
    return found
