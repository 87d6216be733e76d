"""The joint vocabulary of a language model: text first, then a block of ids for every medium.

A table of offsets and nothing else; no torch is imported here. `zoo/interleave.py` reads and writes with it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from .facts import Facts
from .flat_order import ORDERS, Order, cells, cells_so_far

if TYPE_CHECKING:
    from .tokenizer import Tokenizer
    from .tokens import Tokens

Spans = Sequence[Sequence[int]]

FORMAT_VERSION = 2
TEXT = "text"


@dataclass(frozen=True)
class JointMedium:
    """A tokenizer in a joint vocabulary, and how its spans are written.

    name    what parts, markers and named tokens call the medium; each name stands once, "text" is taken
    facts   of its tokenizer
    order   "token": the Q ids of a token side by side; "delay": codebook q comes q tokens late
    depth   how many codebooks are written; default: all. Fewer need a tokenizer whose codebooks nest
    extent  the size that every item has, where the number of tokens does not tell it: (height, width) of
            pictures that are not square

    ValueError for a continuous tokenizer, and for a depth that does not decode.
    """

    name: str
    facts: Facts
    order: Order = "token"
    depth: int | None = None
    extent: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.facts.is_discrete:
            raise ValueError(
                f"{self.facts.name} is continuous: floats have no ids; choose a discrete tokenizer"
            )
        if not self.name.isprintable() or not self.name or set(self.name) & set("<|> ") or self.name == TEXT:
            raise ValueError(f"medium {self.name!r}: expected a name without spaces and <|>, and not 'text'")
        if self.order not in ORDERS:
            raise ValueError(f"order={self.order!r}: expected one of {', '.join(ORDERS)}")
        if self.depth is not None and self.depth != len(self.facts.codebook_sizes):
            if self.facts.nested != "codebooks":
                raise ValueError(f"depth={self.depth}: the codebooks of {self.facts.name} do not nest")
            if self.facts.check_keep(self.depth) > len(self.facts.codebook_sizes):
                raise ValueError(
                    f"depth={self.depth}: {self.facts.name} has {len(self.facts.codebook_sizes)} codebooks"
                )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Of the codebooks that are written."""
        return self.facts.codebook_sizes[: self.depth]

    @property
    def size(self) -> int:
        """Ids of the block: two markers and the codebooks."""
        return 2 + sum(self.codebook_sizes)


@dataclass(frozen=True)
class Block:
    """The ids of one medium: begin marker, end marker, then its codebooks, each a range of its own."""

    medium: JointMedium
    begin: int

    @property
    def end(self) -> int:
        return self.begin + 1

    @cached_property
    def ranges(self) -> tuple[range, ...]:
        """The ids of each codebook."""
        ends = list(itertools.accumulate(self.medium.codebook_sizes, initial=self.begin + 2))
        return tuple(map(range, ends[:-1], ends[1:]))

    @property
    def ids(self) -> range:
        return range(self.begin, self.begin + self.medium.size)

    def codebook_of(self, joint_id: int) -> int | None:
        """Which codebook an id belongs to; None for a marker and for an id of somebody else."""
        return next((place for place, ids in enumerate(self.ranges) if joint_id in ids), None)


@dataclass(frozen=True)
class JointVocabulary:
    """Ids 0 ... text_size - 1 are text; the blocks of `media` follow in order.

    text_size  ids of the text tokenizer, special tokens included
    media      a `JointMedium` each, or the bare facts of a tokenizer, which is then called by its own name

    A medium added at the end moves no id. ValueError for a continuous tokenizer, and for one named twice.
    """

    text_size: int
    media: Sequence[JointMedium | Facts]

    def __post_init__(self) -> None:
        if type(self.text_size) is not int or self.text_size < 0:
            raise ValueError(f"text_size={self.text_size!r}: expected an integer, 0 or more")
        media = tuple(JointMedium(m.name, m) if isinstance(m, Facts) else m for m in self.media)
        object.__setattr__(self, "media", media)
        for left, right in itertools.combinations(media, 2):
            if left.facts.is_same_tokenizer(right.facts):
                raise ValueError(f"{left.facts.name} stands in the table twice: name each tokenizer once")
            if left.name == right.name:
                raise ValueError(f"two media are called {left.name!r}: give each a name of its own")

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        media = cast("tuple[JointMedium, ...]", self.media)
        starts = itertools.accumulate((medium.size for medium in media), initial=self.text_size)
        return tuple(Block(medium, start) for medium, start in zip(media, starts, strict=False))

    @property
    def size(self) -> int:
        """All ids: the rows that the model's embedding needs."""
        return self.blocks[-1].ids.stop if self.blocks else self.text_size

    def block(self, medium: str | Facts) -> Block:
        """The ids of a medium, by its name or its tokenizer's facts. ValueError when it is not there."""
        for block in self.blocks:
            if isinstance(medium, Facts):
                if block.medium.facts.is_same_tokenizer(medium):
                    return block
            elif block.medium.name == medium:
                return block
        if isinstance(medium, Facts):
            told, known = medium.name, (block.medium.facts.name for block in self.blocks)
        else:
            told, known = repr(medium), (block.medium.name for block in self.blocks)
        raise ValueError(f"{told} is not in this vocabulary, which holds: {', '.join(known) or 'none'}")

    def ranges(self, facts: Facts) -> tuple[range, ...]:
        """The ids of each codebook of this tokenizer. ValueError when it is not in the table."""
        return self.block(facts).ranges

    def describe(self, joint_id: int) -> str:
        """What an id of the joint vocabulary stands for, in words."""
        if 0 <= joint_id < self.text_size:
            return f"text id {joint_id}"
        for block in self.blocks:
            if joint_id in (block.begin, block.end):
                return f"the {'begin' if joint_id == block.begin else 'end'} marker of {block.medium.name}"
            codebook = block.codebook_of(joint_id)
            if codebook is not None:
                start = block.ranges[codebook].start
                return f"{block.medium.facts.name} id {joint_id - start} of codebook {codebook}"
        return f"outside 0 ... {self.size - 1}"

    def flatten(self, tokens: Tokens) -> list[list[int]]:
        """The joint ids of each item in the order of its medium, without padding and without markers.

        ValueError for tokens with more codebooks than are written.
        """
        ids = tokens.ids if tokens.ids.ndim == 3 else tokens.ids[..., None]
        block, depth = self.block(tokens.facts), ids.shape[2]
        if depth > len(block.ranges):
            raise ValueError(
                f"{depth} codebooks: this vocabulary holds {len(block.ranges)} of {tokens.facts.name}; "
                f"cut them with tokens.keep({len(block.ranges)})"
            )
        joint = ids + ids.new_tensor([each.start for each in block.ranges[:depth]])
        return [
            [rows[token][codebook] for token, codebook in cells(block.medium.order, count, depth)]
            for rows, count in zip(joint.tolist(), tokens.lengths.tolist(), strict=True)
        ]

    def stamp(
        self, tokenizer: Tokenizer, spans: Spans, *, depth: int | None = None, extents: Any = None
    ) -> Tokens:
        """The tokens of spans of joint ids, one span an item: the inverse of `flatten`.

        depth    ids per token, when the spans hold fewer codebooks than the vocabulary
        extents  as in `Tokenizer.stamp`; default: the medium's own

        ValueError for a span that ends within a token, and for an id outside the codebook whose turn it is.
        """
        block = self.block(tokenizer.facts)
        turns = len(block.ranges) if depth is None else depth
        if not 1 <= turns <= len(block.ranges):
            raise ValueError(f"depth={depth}: {tokenizer.facts.name} has {len(block.ranges)} codebooks")
        rows = []
        for item, span in enumerate(spans):
            rows.append(self.whole_tokens(block, span, depth=turns, where=f" of span {item}"))
            if len(rows[-1]) * turns != len(span):
                raise ValueError(
                    f"span {item} has {len(span)} ids: {tokenizer.facts.name} takes a multiple of {turns}; "
                    "was it cut?"
                )
        if extents is None and block.medium.extent is not None:
            extents = [block.medium.extent] * len(rows)
        return tokenizer.stamp(self.own_values(block, rows), extents=extents)

    def whole_tokens(
        self, block: Block, span: Sequence[int], *, depth: int | None = None, where: str = ""
    ) -> list[list[int]]:
        """The ids of each token of a span that is there with all its codebooks, offsets taken off; the rest
        of a span that was cut is left out.

        ValueError for an id outside the codebook whose turn it is; `where` goes into its message.
        """
        turns = len(block.ranges) if depth is None else depth
        span = [int(each) for each in span]
        found = [block.codebook_of(each) for each in span]
        order = cells_so_far(block.medium.order, [-1 if each is None else each for each in found], turns)
        held: dict[int, list[int]] = {}
        for place, (joint_id, codebook) in enumerate(zip(span, found, strict=True)):
            token, due = order[place] if place < len(order) else (0, None)
            if codebook is None or codebook != due:
                told = "no more ids" if due is None else f"codebook {due}"
                raise ValueError(
                    f"id {joint_id} at place {place}{where} is {self.describe(joint_id)}: "
                    f"expected {told} of {block.medium.facts.name}"
                )
            held.setdefault(token, []).append(joint_id - block.ranges[codebook].start)
        return [held[token] for token in sorted(held) if len(held[token]) == turns]

    @staticmethod
    def own_values(block: Block, rows: list[list[list[int]]]) -> Any:
        """What `Tokenizer.stamp` takes: rows of ids for one codebook, of Q ids each for more."""
        if len(block.medium.facts.codebook_sizes) > 1:
            return rows
        return [[own for (own,) in row] for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the ids stand beside the facts for readers without this package."""
        media = []
        for block in self.blocks:
            medium = block.medium
            media.append(
                {
                    "name": medium.name,
                    "order": medium.order,
                    "depth": medium.depth,
                    "extent": None if medium.extent is None else list(medium.extent),
                    "begin": block.begin,
                    "end": block.end,
                    "offsets": [ids.start for ids in block.ranges],
                    "facts": medium.facts.to_dict(),
                }
            )
        return {"format_version": FORMAT_VERSION, "text_size": self.text_size, "media": media}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError when an entry is missing or does not follow from the rest."""
        if isinstance(values, Mapping) and values.get("format_version") == 1:
            raise ValueError(
                "format_version 1 has no begin and end markers, so its ids are others: build the table anew "
                "with JointVocabulary(text_size, media), and train with it"
            )
        try:
            table = cls(values["text_size"], tuple(map(_medium, values["media"])))
        except (KeyError, TypeError, AttributeError) as error:
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


def _medium(values: Mapping[str, Any]) -> JointMedium:
    extent = values["extent"]
    return JointMedium(
        name=values["name"],
        facts=Facts.from_dict(values["facts"]),
        order=values["order"],
        depth=values["depth"],
        extent=None if extent is None else tuple(extent),
    )
