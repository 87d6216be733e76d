"""What turns text into ids: tiktoken where ranks can say what the merges say, `tokenizers` everywhere else.

Chosen by measurement (`tokenzoo bench text`): on one vocabulary tiktoken's core, with the pattern grouped as
`PreTokenizer.tiktoken_regex` writes it, takes an eighth of the time of `tokenizers`, with the same ids.
Whether ranks say the same is proved for each vocabulary by `ranks.ranks_of`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol

from ..zoo.optional import require
from .byte_letters import letters_of
from .check_steps import growth_of
from .pretokenizers import PreTokenizer
from .ranks import Ranks
from .vocab import TextVocab

# tiktoken's regex library gives up (and panics) where it may have to go back a million times: on white space
# of so many characters, and between the matches of a pattern that does not cover everything.
_LONG_TEXT, _LONG_SPACE = 500_000, re.compile(r"\s{100000}")
# Pretokens of up to so many bytes are remembered by `SegmentEngine`, up to so many of them: some 20 MB.
_CACHED_BYTES, _CACHED_PIECES = 64, 1 << 16

# Bytes that a normalizer may make of a text; so many are looked at in one go to find out.
_MOST_NORMALIZED, _MOST_AT_ONCE = 1 << 30, 1 << 24

Segment = Callable[[bytes], Sequence[int]]


class Engine(Protocol):
    """Ids of text. Specials are not looked for."""

    name: str

    def encode(self, text: str) -> list[int]:
        """Ids of a text without lone surrogates."""
        ...

    def encode_piece(self, piece: bytes) -> list[int]:
        """Ids of bytes that are no UTF-8, as one pretoken."""
        ...


class RankEngine:
    """tiktoken's core over our own ranks.

    ranks  which say the same as the merges of the vocabulary
    """

    name = "tiktoken"

    def __init__(self, vocab: TextVocab, ranks: Ranks, pretokenizer: PreTokenizer) -> None:
        index = vocab.index
        alphabet = [bytes([byte]) for byte in range(256)]
        own = [index[piece] for piece in ranks.joined]
        # To tiktoken rank and id are one number. Ours serve where ids rise with the ranks; elsewhere a table
        # leads back to them.
        known = (*alphabet, *ranks.joined, *ranks.whole)
        rises = own == sorted(own)
        encoder = {piece: index[piece] if rises else place for place, piece in enumerate(known)}
        self._ids = None if rises else [index[piece] for piece in known]
        regex = pretokenizer.tiktoken_regex
        core = require("tiktoken._tiktoken", "text").CoreBPE(encoder, {}, regex or r"[\s\S]+")
        self._encode_text: Callable[[str], list[int]] | None = core.encode_ordinary if regex else None
        self._encode_piece: Callable[[bytes], list[int]] = core.encode_single_piece
        self._pretokenizer = pretokenizer

    def encode(self, text: str) -> list[int]:
        parts = self._pretokenizer.turn_digits(text)
        encode = self._encode_text
        if encode is None or (len(text) > _LONG_TEXT and self._is_too_long(text)):
            encode = self._encode_by_pieces
        found = encode(text) if len(parts) == 1 else list(chain.from_iterable(map(encode, parts)))
        return found if self._ids is None else [self._ids[each] for each in found]

    def encode_piece(self, piece: bytes) -> list[int]:
        found = self._encode_piece(piece) if piece else []  # tiktoken panics on nothing
        return found if self._ids is None else [self._ids[each] for each in found]

    def _is_too_long(self, text: str) -> bool:
        """Whether a match may be too long for tiktoken's regex library, which then panics."""
        return not self._pretokenizer.cuts_before_spaces or _LONG_SPACE.search(text) is not None

    def _encode_by_pieces(self, text: str) -> list[int]:
        pieces = (piece.encode() for piece in self._pretokenizer.pieces(text))
        return list(chain.from_iterable(map(self._encode_piece, pieces)))


class LibraryEngine:
    """The library `tokenizers` on a tokenizer.json: slower, and it knows every model and every step.

    definition  the JSON object
    vocab       what it describes
    allowed     names of specials that text may yield; none by default
    cut         cuts text into parts that can be encoded one by one, before the library sees it

    ValueError when the library cannot read it, on text that its pattern cannot be matched on, and on text of
    which the normalizer makes more than a gigabyte.
    """

    name = "tokenizers"

    def __init__(
        self,
        definition: Mapping[str, Any],
        vocab: TextVocab,
        *,
        allowed: Collection[str] = (),
        cut: Callable[[str], list[str]] | None = None,
    ) -> None:
        library = require("tokenizers", "text")
        self._growth, self._cut = growth_of(definition), cut
        plain = json.dumps(_hidden(definition, set(vocab.specials) - set(allowed)), ensure_ascii=False)
        with _no_panic("the library `tokenizers` cannot read this tokenizer"):
            self._tokenizer: Any = library.Tokenizer.from_str(plain)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = not allowed
        self._vocab = vocab

    def encode(self, text: str) -> list[int]:
        if self._cut is None:
            return self._encoded(text).ids
        return [each for part in self._cut(text) for each in self._encoded(part).ids]

    def encode_piece(self, piece: bytes) -> list[int]:
        """In byte-level models one pretoken; elsewhere the ids of its bytes, or of U+FFFD where there are
        none."""
        if self._vocab.fallback:
            return [self._vocab.fallback[byte] for byte in piece]
        if not self._vocab.covers_bytes:
            return self.encode(piece.decode(errors="replace"))
        return [token.id for token in self._tokenizer.model.tokenize(letters_of(piece))]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end character of what every id was made from, in the text as it was given."""
        if self._cut is None:
            return self._encoded(text).offsets
        found, start = [], 0
        for part in self._cut(text):
            found += [(start + left, start + right) for left, right in self._encoded(part).offsets]
            start += len(part)
        return found

    def normalize(self, text: str) -> str:
        """What the model's normalizer makes of a text."""
        normalizer = self._tokenizer.normalizer
        with _no_panic("the normalizer of this tokenizer fails on this text"):
            return text if normalizer is None else normalizer.normalize_str(text)

    def _check_growth(self, text: str) -> None:
        """The library would end Python where there is no memory for what it makes."""
        if 4 * len(text) * self._growth <= _MOST_NORMALIZED:
            return
        size, step = 0, max(1, _MOST_AT_ONCE // self._growth)
        for start in range(0, len(text), step):
            size += len(self.normalize(text[start : start + step]))
            if size > _MOST_NORMALIZED // 4:
                raise ValueError(
                    f"the normalizer makes more than a gigabyte of this text of {len(text)} characters"
                )

    def _encoded(self, text: str) -> Any:
        self._check_growth(text)
        with _no_panic(f"this tokenizer fails on this text of {len(text)} characters"):
            return self._tokenizer.encode(text, add_special_tokens=False)


class SegmentEngine:
    """One of our segmenters behind one of our pre-tokenizers. Short pretokens are remembered."""

    def __init__(self, name: str, segment: Segment, pretokenizer: PreTokenizer) -> None:
        self.name = name
        self._segment = segment
        self._remembered = lru_cache(maxsize=_CACHED_PIECES)(segment)
        self._pretokenizer = pretokenizer

    def encode(self, text: str) -> list[int]:
        found: list[int] = []
        for piece in self._pretokenizer.pieces(text):
            found += self.encode_piece(piece.encode())
        return found

    def encode_piece(self, piece: bytes) -> list[int]:
        return list((self._remembered if len(piece) <= _CACHED_BYTES else self._segment)(piece))


def _hidden(definition: Mapping[str, Any], specials: Collection[str]) -> Mapping[str, Any]:
    """The same tokenizer without chance, and with names for these specials that no text can hold.

    A unigram model finds "</s>" in text as it finds any other piece, whatever is said of special tokens. The
    names are drawn anew each time, so that nobody can write them.
    """
    mark = f"\U0010ffff{secrets.token_hex(8)}"
    names = {name: f"{mark}{name}" for name in specials}
    model = {**definition["model"], "dropout": None}
    vocab = model["vocab"]
    listed = definition.get("added_tokens") or []
    if isinstance(vocab, dict):
        # Added tokens that are not in the vocabulary would get the next free ids, whatever the file says.
        named = vocab | {entry["content"]: entry["id"] for entry in listed}
        model["vocab"] = {names.get(entry, entry): place for entry, place in named.items()}
    else:
        model["vocab"] = [[names.get(entry, entry), score] for entry, score in vocab]
        del model["dropout"]
    if isinstance(unknown := model.get("unk_token"), str):
        model["unk_token"] = names.get(unknown, unknown)
    added = [entry | {"content": names.get(entry["content"], entry["content"])} for entry in listed]
    # A post-processor would name them too; it adds specials, and none are asked for.
    return {**definition, "model": model, "added_tokens": added, "post_processor": None}


@contextmanager
def _no_panic(what: str) -> Iterator[None]:
    """A library's panic, which is no Exception, and its own errors become a ValueError."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{what}: {str(error)[:300]}") from error
