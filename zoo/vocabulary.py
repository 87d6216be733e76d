"""The joint vocabulary of a language model: text first, then every codebook of every medium.

A table of offsets and nothing else; no torch is imported here.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .facts import Facts

if TYPE_CHECKING:
    from .tokenizer import Tokenizer
    from .tokens import Tokens

Spans = Sequence[Sequence[int]]


@dataclass(frozen=True)
class JointVocabulary:
    """Ids 0 ... text_size - 1 are text; the codebooks of `media` follow in order, each in a range of its own.

    text_size  ids of the text tokenizer, special tokens included
    media      the facts of each tokenizer: `tokenizer.facts`

    A token flattens to its Q ids in order. ValueError for a continuous tokenizer, and for one named twice.
    """

    text_size: int
    media: tuple[Facts, ...]

    def __post_init__(self) -> None:
        if type(self.text_size) is not int or self.text_size < 0:
            raise ValueError(f"text_size={self.text_size!r}: expected an integer, 0 or more")
        for facts in self.media:
            if not facts.is_discrete:
                raise ValueError(
                    f"{facts.name} is continuous: floats have no ids; choose a discrete tokenizer"
                )
        for left, right in itertools.combinations(self.media, 2):
            if left.is_same_tokenizer(right):
                raise ValueError(f"{left.name} stands in the table twice: name each tokenizer once")

    @property
    def size(self) -> int:
        """All ids: the rows that the model's embedding needs."""
        return self.text_size + sum(facts.vocab_size for facts in self.media)

    def ranges(self, facts: Facts) -> tuple[range, ...]:
        """The ids of each codebook of this tokenizer. ValueError when it is not in the table."""
        start = self.text_size
        for known in self.media:
            if known.is_same_tokenizer(facts):
                ends = list(itertools.accumulate(known.codebook_sizes, initial=start))
                return tuple(map(range, ends[:-1], ends[1:]))
            start += known.vocab_size
        names = ", ".join(known.name for known in self.media) or "none"
        raise ValueError(f"{facts.name} is not in this vocabulary, which holds: {names}")

    def describe(self, joint_id: int) -> str:
        """What an id of the joint vocabulary stands for, in words."""
        if 0 <= joint_id < self.text_size:
            return f"text id {joint_id}"
        for facts in self.media:
            for codebook, ids in enumerate(self.ranges(facts)):
                if joint_id in ids:
                    return f"{facts.name} id {joint_id - ids.start} of codebook {codebook}"
        return f"outside 0 ... {self.size - 1}"

    def flatten(self, tokens: Tokens) -> list[list[int]]:
        """The joint ids of each item, token after token, the Q ids of each in order, no padding."""
        ids = tokens.ids if tokens.ids.ndim == 3 else tokens.ids[..., None]
        depth = ids.shape[2]
        starts = [each.start for each in self.ranges(tokens.facts)]
        flat = (ids + ids.new_tensor(starts[:depth])).flatten(1)
        counts = (tokens.lengths * depth).tolist()
        return [row[:count].tolist() for row, count in zip(flat, counts, strict=True)]

    def stamp(
        self, tokenizer: Tokenizer, spans: Spans, *, depth: int | None = None, extents: Any = None
    ) -> Tokens:
        """The tokens of spans of joint ids, one span an item: the inverse of `flatten`.

        depth    ids per token, when the spans hold fewer codebooks than the tokenizer has
        extents  as in `Tokenizer.stamp`

        ValueError for a span that ends within a token, and for an id outside the codebook whose turn it is.
        """
        ranges = self.ranges(tokenizer.facts)
        if depth is not None and not 1 <= depth <= len(ranges):
            raise ValueError(f"depth={depth}: {tokenizer.facts.name} has {len(ranges)} codebooks")
        turns = ranges[:depth]
        rows = [self._own_ids(tokenizer.facts, turns, item, span) for item, span in enumerate(spans)]
        if len(ranges) > 1:
            rows = [[row[at : at + len(turns)] for at in range(0, len(row), len(turns))] for row in rows]
        return tokenizer.stamp(rows, extents=extents)

    def _own_ids(self, facts: Facts, turns: tuple[range, ...], item: int, span: Sequence[int]) -> list[int]:
        """The ids of one span without their offsets; `turns` are the ranges of a token's ids in order."""
        if len(span) % len(turns):
            raise ValueError(
                f"span {item} has {len(span)} ids: {facts.name} takes a multiple of {len(turns)}; was it cut?"
            )
        own = []
        for place, joint_id in enumerate(map(int, span)):
            codebook = place % len(turns)
            if joint_id not in turns[codebook]:
                raise ValueError(
                    f"id {joint_id} at place {place} of span {item} is {self.describe(joint_id)}: "
                    f"expected codebook {codebook} of {facts.name}"
                )
            own.append(joint_id - turns[codebook].start)
        return own

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the offsets stand beside the facts for readers without this package."""
        starts = [[ids.start for ids in self.ranges(facts)] for facts in self.media]
        media = [{"facts": f.to_dict(), "offsets": s} for f, s in zip(self.media, starts, strict=True)]
        return {"format_version": 1, "text_size": self.text_size, "media": media}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError when an entry is missing or does not follow from the rest."""
        try:
            table = cls(
                values["text_size"], tuple(Facts.from_dict(each["facts"]) for each in values["media"])
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no joint vocabulary ({error!r}): write one with its save") from error
        if table.to_dict() != values:
            raise ValueError(f"offsets or format_version do not fit the facts: expected {table.to_dict()}")
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; ValueError names the file."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
