"""Which normalizers a tokenizer applies before it cuts text, as plain values; and where letters went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Literal

from .corpus import Corpus, Mapped
from .normalizers import CaseMarkers, Normalizer, SpaceMarkers, Uroman
from .spans import runs
from .triads import TriadicSuffixes


@dataclass(frozen=True)
class Normalization:
    """One normalizer of a config.json.

    kind      "case" (`CaseMarkers`), "space" (`SpaceMarkers`), "triads" (`TriadicSuffixes`) or "uroman"
    language  of case "tr" or "az", of uroman a code of ISO 639-3; None elsewhere
    variant   of triads

    Raises ValueError for an unknown kind, and for a language or a variant where there is none to choose.
    """

    kind: str
    language: str | None = None
    variant: Literal["fixed", "marks"] = "fixed"

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"unknown normalizer {self.kind!r}; known: {', '.join(_KINDS)}")
        if self.language is not None and self.kind not in ("case", "uroman"):
            raise ValueError(f"normalizer {self.kind!r} knows no language {self.language!r}: leave it out")
        if self.variant != "fixed" and self.kind != "triads":
            raise ValueError(f"normalizer {self.kind!r} has no variant {self.variant!r}: leave it out")

    @property
    def normalizer(self) -> Normalizer:
        """What it does; built once, since uroman's tables take seconds to read."""
        return _built(self)


_KINDS = ("case", "space", "triads", "uroman")


@lru_cache(maxsize=16)
def _built(told: Normalization) -> Normalizer:
    if told.kind == "triads":
        return TriadicSuffixes(told.variant)
    if told.kind == "space":
        return SpaceMarkers()
    return (CaseMarkers if told.kind == "case" else Uroman)(told.language)


@dataclass(frozen=True)
class Normalizing:
    """Normalizers one after the other; undone from the last to the first."""

    told: tuple[Normalization, ...]

    @cached_property
    def _chain(self) -> tuple[Normalizer, ...]:
        return tuple(each.normalizer for each in self.told)

    @property
    def is_lossless(self) -> bool:
        """Whether `undo` gives every text back."""
        return all(each.is_lossless for each in self._chain)

    @property
    def keeps_words(self) -> bool:
        """Whether text can be cut at spaces and signs and its parts be rewritten by themselves."""
        return all(each.keeps_words for each in self._chain)

    @property
    def most_growth(self) -> int:
        """Bytes that become of a byte at most."""
        return prod(each.most_growth for each in self._chain)

    def apply(self, text: str) -> str:
        """The normal form."""
        for each in self._chain:
            text = each.apply(text)
        return text

    def undo(self, data: bytes) -> bytes:
        """What was rewritten, as far as that can be told: the normalizers that lose something stay applied.
        Bytes that are no UTF-8 stay as they are."""
        back = [each.undo for each in reversed(self._chain) if each.is_lossless]
        found = []
        for run in runs(data):
            if isinstance(run, str):
                for undo in back:
                    run = undo(run)
                run = run.encode()
            found.append(run)
        return b"".join(found)

    def places(self, text: str) -> list[int]:
        """How many characters of the text are told whole by the first n characters of its normal form, for
        n = 0 ... its length."""
        told = list(range(len(text) + 1))
        for each in self._chain:
            parts = list(each.parts(text))
            told = _through(parts, told)
            text = "".join(written for _, written in parts)
        return told

    def corpus(self, corpus: Corpus) -> Corpus:
        """A corpus as trainers must see it."""
        note = ", ".join(map(str, self.told))
        return corpus.mapped(Mapped.by(self.apply, note)) if self.told else corpus


def _through(parts: Sequence[tuple[str, str]], told: Sequence[int]) -> list[int]:
    """Places in what was rewritten once more: a part that changed is told by the last of its characters."""
    found = [told[0]]
    start = 0
    for kept, written in parts:
        if kept == written:
            found += told[start + 1 : start + len(kept) + 1]
        elif written:
            found += [told[start]] * (len(written) - 1) + [told[start + len(kept)]]
        else:
            found[-1] = told[start + len(kept)]
        start += len(kept)
    return found
