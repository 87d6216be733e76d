"""Text and media in one sequence of ids for a language model, and back."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Generator, Tensor

from .facts import Facts
from .legal_counts import at_most, legal_counts, listed
from .sequence_parts import Interleaved, MediaItem, Part, Span
from .tokenizer import Tokenizer
from .tokens import Tokens
from .vocabulary import TEXT, Block, JointMedium, JointVocabulary

if TYPE_CHECKING:
    from .span_processor import SpanProcessor

# What ids alone cannot carry.
_BESIDE_IDS = ("positions", "scales", "durations", "captions")


class TextEncoder(Protocol):
    """What a text tokenizer must do; every one of ours does."""

    @property
    def facts(self) -> Facts: ...
    @property
    def specials(self) -> Mapping[str, int]: ...
    def encode_ids(self, text: str | bytes) -> list[int]: ...
    def stamp(self, values: Any) -> Tokens: ...
    def decode(self, tokens: Tokens) -> list[bytes]: ...
    def files(self) -> dict[str, bytes]: ...


class JointTokenizer:
    """A text tokenizer and those of other media, over one joint vocabulary.

    text        e.g. `tokenzoo.load("bpe-40k")`
    media       by name; discrete tokenizers
    vocabulary  the table; default: one block for each of `media` in order, token after token. Give one to
                choose the order of ids, fewer codebooks, a size of pictures; or one loaded from a file

    Ids alone must carry an item, so its size follows from its tokens: the model's own size or a square for
    pictures, whole hops for sound. ValueError where the table and the tokenizers disagree.
    """

    def __init__(
        self,
        text: TextEncoder,
        media: Mapping[str, Tokenizer],
        vocabulary: JointVocabulary | None = None,
    ) -> None:
        text_size = text.facts.vocab_size
        if vocabulary is None:
            entries = tuple(JointMedium(name, tokenizer.facts) for name, tokenizer in media.items())
            vocabulary = JointVocabulary(text_size, entries)
        if vocabulary.text_size != text_size:
            raise ValueError(
                f"the vocabulary has {vocabulary.text_size} ids of text, {text.facts.name} {text_size}: "
                "give the text tokenizer that it was made with"
            )
        names = [block.medium.name for block in vocabulary.blocks]
        if set(names) != set(media):
            raise ValueError(f"media are {', '.join(media) or 'none'}, the vocabulary's {', '.join(names)}")
        for name, tokenizer in media.items():
            known = vocabulary.block(name).medium.facts
            if not known.is_same_tokenizer(tokenizer.facts):
                raise ValueError(
                    f"{name}: the vocabulary was made with another {known.name} than this "
                    f"{tokenizer.facts.name}; load the revision that its facts name"
                )
        self.text, self.media, self.vocabulary = text, dict(media), vocabulary

    @cached_property
    def counts(self) -> dict[str, Sequence[int]]:
        """How many tokens an item of each medium can have: rising, without an end for sound."""
        return {
            name: legal_counts(tokenizer, self.vocabulary.block(name).medium)
            for name, tokenizer in self.media.items()
        }

    def encode(
        self, parts: Sequence[str | bytes | Tokens | MediaItem], *, generator: Generator | None = None
    ) -> Interleaved:
        """The ids of text and media in order, each item of a medium between its markers.

        parts      str or bytes; `Tokens` of one item; or a `MediaItem`. Text never yields a special token
                   or an id of a medium, however it is spelled; specials go in as `Tokens` of the text
                   tokenizer
        generator  for tokenizers that draw

        ValueError for an item that its ids alone cannot bring back.
        """
        if isinstance(parts, str | bytes):
            raise TypeError("parts are a single text: expected a list of parts")
        ids: list[int] = []
        spans: list[Span] = []
        for part in parts:
            start = len(ids)
            if isinstance(part, str | bytes):
                medium = TEXT
                ids += self.text.encode_ids(part)
            else:
                tokens = self._tokens_of(part, generator)
                medium = self._medium_of(tokens)
                ids += tokens.ids[0].tolist() if medium == TEXT else self._span_of(tokens)
            spans.append(Span(medium, start, len(ids)))
        return Interleaved(torch.tensor(ids, dtype=torch.int64), tuple(spans))

    def decode(
        self,
        ids: Tensor | Sequence[int],
        *,
        signals: bool = True,
        skip_specials: bool = False,
        generator: Generator | None = None,
    ) -> list[Part]:
        """The parts of a sequence of ids. Texts that touch come back as one, empty ones not at all.

        ids            (L,)
        signals        decode the media too; without, parts carry their tokens alone
        skip_specials  leave the special tokens of text out; otherwise they decode to their names

        A span that was cut comes back as an incomplete part. ValueError, with the place, for an id that may
        not stand where it does: one of a medium outside its markers, text inside of them, a codebook out of
        turn.
        """
        row = _row(ids)
        skipped = set(self.text.specials.values()) if skip_specials else set[int]()
        parts = []
        for span in self._spans(row):
            inner = row[span.start : span.stop]
            if span.medium != TEXT:
                parts.append(self._media_part(span, inner, signals, generator))
            elif told := [each for each in inner if each not in skipped]:
                parts.append(Part(span, text=self.text.decode(self.text.stamp([told]))[0]))
        return parts

    def logits_processor(
        self,
        *,
        counts: Mapping[str, Sequence[int]] | None = None,
        media: Collection[str] | None = None,
        max_length: int | None = None,
    ) -> SpanProcessor:
        """What `generate(logits_processor=[...])` of transformers takes, so that every span decodes: see
        `SpanProcessor`. Needs `pip install "tokenzoo[transformers]"`."""
        from .span_processor import SpanProcessor

        return SpanProcessor(self, counts=counts, media=media, max_length=max_length)

    def media_rows(self, text_rows: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Embeddings to start the ids after text with: see `media_rows.media_rows`."""
        from .media_rows import media_rows

        return media_rows(self, text_rows, generator=generator)

    def export_named(self, folder: str | os.PathLike[str], *, limit: int = 16384) -> None:
        """A tokenizer.json in which every id of a medium has a name: see `named_tokens.export_named`."""
        from .named_tokens import export_named

        export_named(self, folder, limit=limit)

    def _tokens_of(self, part: Tokens | MediaItem, generator: Generator | None) -> Tokens:
        """The tokens of one item."""
        if isinstance(part, MediaItem):
            if part.medium not in self.media:
                raise ValueError(f"no medium {part.medium!r}: this tokenizer has {', '.join(self.media)}")
            tokenizer = self.media[part.medium]
            item = part.item if isinstance(part.item, Tensor) else tokenizer.preprocess(part.item)
            return tokenizer.encode([item], keep=part.keep, generator=generator)
        if not isinstance(part, Tokens):
            raise TypeError(
                f"a part is a {type(part).__name__}: expected text, Tokens or MediaItem(medium, item)"
            )
        if len(part) != 1:
            raise ValueError(f"Tokens of {len(part)} items in one part: give each its own, tokens.unbind()")
        return part.unbind()[0]

    def _medium_of(self, tokens: Tokens) -> str:
        if tokens.facts.is_same_tokenizer(self.text.facts):
            return TEXT
        return self.vocabulary.block(tokens.facts).medium.name

    def _span_of(self, tokens: Tokens) -> list[int]:
        """The ids of one item with its markers; ValueError when they do not say all."""
        block = self.vocabulary.block(tokens.facts)
        name, depth = block.medium.name, len(block.ranges)
        if beside := [each for each in _BESIDE_IDS if getattr(tokens, each) is not None]:
            raise ValueError(
                f"{tokens.facts.name} decodes with {' and '.join(beside)}, which ids alone do not carry: "
                f"choose another tokenizer for {name}, or do without by tokenizer.stamp(tokens.ids, "
                "lengths=tokens.lengths)"
            )
        held = len(tokens.codebook_sizes)
        if held < depth:
            raise ValueError(
                f"{held} codebooks: {name} is written with {depth}; give its JointMedium depth={held}"
            )
        count = int(tokens.lengths[0])
        if count not in self.counts[name]:
            raise ValueError(f"{count} tokens: {name} takes {listed(self.counts[name])}")
        self._check_extent(block, tokens)
        (flat,) = self.vocabulary.flatten(tokens.keep(depth) if held > depth else tokens)
        return [block.begin, *flat, block.end]

    def _check_extent(self, block: Block, tokens: Tokens) -> None:
        """Sound comes back in whole hops, which no ear will hear; a picture of another shape is another."""
        had = tuple(tokens.extents[0].tolist())
        default = self.media[block.medium.name].default_extents(tokens.lengths)
        found = tuple(default[0].tolist()) if block.medium.extent is None else block.medium.extent
        if len(had) == 2 and had != found:
            raise ValueError(
                f"a picture of {had[0]} x {had[1]}, of which {int(tokens.lengths[0])} ids alone would make "
                f"{found[0]} x {found[1]}: give all the same size and name it in JointMedium(extent={had}), "
                "or make it square"
            )

    def _spans(self, row: list[int]) -> list[Span]:
        """Where text and media stand. The ids inside of markers are not looked at yet."""
        begins = {block.begin: block for block in self.vocabulary.blocks}
        spans: list[Span] = []
        place = 0
        while place < len(row):
            block = begins.get(row[place])
            stop = place + 1
            if block is not None:
                while stop < len(row) and row[stop] != block.end:
                    stop += 1
                stop = min(stop + 1, len(row))
            else:
                for stop in range(place, len(row) + 1):
                    if stop == len(row) or not 0 <= row[stop] < self.vocabulary.text_size:
                        break
            if stop == place:
                raise ValueError(
                    f"id {row[place]} at place {place} is {self.vocabulary.describe(row[place])}: outside of "
                    "markers only text and begin markers may stand"
                )
            spans.append(Span(TEXT if block is None else block.medium.name, place, stop))
            place = stop
        return spans

    def _media_part(self, span: Span, row: list[int], signals: bool, generator: Generator | None) -> Part:
        """One span with its markers, `row`."""
        block, tokenizer = self.vocabulary.block(span.medium), self.media[span.medium]
        is_closed = len(row) > 1 and row[-1] == block.end
        inner = row[1:-1] if is_closed else row[1:]
        whole = self.vocabulary.whole_tokens(block, inner, where=f" of the span from {span.start}")
        legal = self.counts[span.medium]
        if len(whole) > legal[-1]:
            raise ValueError(
                f"{len(whole)} tokens in the span from {span.start}: {span.medium} takes {listed(legal)}"
            )
        count = at_most(legal, len(whole))
        if not count:
            return Part(span, is_complete=False)
        extents = None if block.medium.extent is None else [block.medium.extent]
        tokens = tokenizer.stamp(self.vocabulary.own_values(block, [whole[:count]]), extents=extents)
        signal = None
        if signals and tokenizer.facts.has_decoder:
            signal = tokens.crop(tokenizer.decode(tokens, generator=generator))[0]
        is_whole = count * len(block.ranges) == len(inner)
        return Part(span, tokens=tokens, signal=signal, is_complete=is_closed and is_whole)


def _row(ids: Tensor | Sequence[int]) -> list[int]:
    if isinstance(ids, Tensor):
        if ids.ndim != 1 or ids.is_floating_point():
            raise ValueError(f"ids are {ids.dtype} {tuple(ids.shape)}: expected integers (L,), one sequence")
        return ids.tolist()
    return [int(each) for each in ids]
