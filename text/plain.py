"""Tokenizers that a tokenizer.json describes: those of others, and ours where the file can say it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from ..zoo.optional import require
from .added_tokens import AddedTokens, plain_tokens
from .check_steps import growth_of
from .engine import Engine, LibraryEngine, RankEngine
from .load_json import drops_first_space, is_lossless, parse_definition, steps, vocab_of
from .pretokenizers import PreTokenizer, recognise
from .ranks import Ranks, ranks_of
from .save_json import TRANSFORMERS_CONFIG, definition_bytes, definition_of
from .spans import Span
from .text_tokenizer import TextTokenizer
from .vocab import MAX_PIECES, TextVocab

DEFINITION_FILE = "tokenizer.json"
# Normalizers that leave ASCII alone, so that most text need not pass through them.
_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
# One for each set of specials that was allowed.
_KEPT_LIBRARIES = 4


@dataclass(frozen=True)
class PlainConfig(Config):
    """What config.json says; the vocabulary and the rest lie beside it, in tokenizer.json.

    vocab_size   ids, holes among them: rows of an embedding
    is_lossless  whether every byte string comes back
    """

    tokenizer_type: ClassVar[str] = "text"

    vocab_size: int
    is_lossless: bool = False

    def __post_init__(self) -> None:
        check_range("vocab_size", self.vocab_size, 1, MAX_PIECES)

    def facts(self) -> Facts:
        return Facts(
            name="text",
            modality="text",
            codebook_sizes=(self.vocab_size,),
            is_adaptive=True,
            is_lossless=self.is_lossless,
        )


class PlainTokenizer(TextTokenizer):
    """Byte-level BPE, sentencepiece's BPE with byte fallback, unigram models and WordPiece: whatever a
    tokenizer.json describes, with the ids that the library `tokenizers` gives.

    definition  the JSON object
    vocab       what it describes, where the caller has it already
    raw         the bytes it was read from, which `save_pretrained` writes again
    name        what facts and errors call it
    licence     of the vocabulary

    ValueError when the file is ill-formed.
    """

    config_type = PlainConfig
    config: PlainConfig

    def __init__(
        self,
        definition: Mapping[str, Any],
        *,
        vocab: TextVocab | None = None,
        raw: bytes | None = None,
        name: str = "text",
        licence: str | None = None,
    ) -> None:
        growth_of(definition)
        self.definition = definition
        self.vocab = vocab_of(definition) if vocab is None else vocab
        self.config = PlainConfig(len(self.vocab), is_lossless(definition, self.vocab))
        self.stated = replace(self.config.facts(), name=name, licence=licence)
        self._raw = raw
        self._ranks: Ranks | None = None
        self._libraries: dict[frozenset[str], LibraryEngine] = {}
        self._finders: dict[frozenset[str], AddedTokens | None] = {}

    @classmethod
    def from_json(cls, raw: bytes, *, name: str = "text", licence: str | None = None) -> Self:
        """Of the bytes of a tokenizer.json; ValueError when they are none."""
        return cls(parse_definition(raw), raw=raw, name=name, licence=licence)

    @classmethod
    def of(
        cls,
        vocab: TextVocab,
        pretokenizer: PreTokenizer | None = None,
        *,
        name: str = "text",
        licence: str | None = None,
        whole_first: bool = False,
    ) -> Self:
        """A byte-level tokenizer out of a vocabulary with merges or scores, e.g. what a trainer returns.

        whole_first  a pretoken that is a piece becomes that piece before any merge (tiktoken's way)
        """
        definition = definition_of(vocab, pretokenizer or PreTokenizer(), whole_first=whole_first)
        return cls(definition, vocab=vocab, name=name, licence=licence)

    @classmethod
    def from_files(
        cls, config: PlainConfig, files: Mapping[str, bytes], *, name: str, licence: str | None
    ) -> Self:
        """What `files` wrote; ValueError when it does not agree with the configuration."""
        found = cls.from_json(files[DEFINITION_FILE], name=name, licence=licence)
        if found.config != config:
            raise ValueError(f"{DEFINITION_FILE} describes {found.config}, config.json {config}")
        return found

    @cached_property
    def facts(self) -> Facts:  # pyright: ignore[reportIncompatibleMethodOverride]
        return replace(self.stated, fingerprint=self._fingerprint())

    @cached_property
    def engine(self) -> Engine:
        """tiktoken where it gives the same ids, else `tokenizers`."""
        found = self._rank_engine()
        return self._library(frozenset()) if found is None else found

    @property
    def details(self) -> dict[str, Any]:
        cut = self.pretokenizer
        named = {"engine": self.engine.name, "pre_tokenizer": "of its own" if cut is None else cut.kind}
        return {**super().details, **named}

    def join_by(self, ranks: Ranks) -> None:
        """The merges were made of these ranks, so that nobody has to find out whether they say the same."""
        self._ranks = ranks

    @property
    def pretokenizer(self) -> PreTokenizer | None:
        """How text is cut, or None where it is none of ours."""
        return recognise(self.definition.get("pre_tokenizer"))

    @property
    def drops_first_space(self) -> bool:
        return drops_first_space(self.definition)

    @cached_property
    def cuts_safely(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        cut = self.pretokenizer
        # Composing (NFC) reaches over no cut, and added tokens are looked for before there are any.
        finder = self._finder(frozenset())
        composes = all(step.get("type") == "NFC" for step in self._normalizers)
        return cut is not None and cut.cuts_before_spaces and composes and (finder is not None and not finder)

    def files(self) -> dict[str, bytes]:
        """What a folder holds besides config.json: opened by transformers, too."""
        raw = definition_bytes(self.definition) if self._raw is None else self._raw
        return {DEFINITION_FILE: raw, "tokenizer_config.json": TRANSFORMERS_CONFIG}

    def __getstate__(self) -> dict[str, Any]:
        """For workers: engines are built again there."""
        state = self.__dict__ | {"_libraries": {}}
        return {name: value for name, value in state.items() if name != "engine"}

    def _encode(self, text: str, allowed: frozenset[str]) -> list[int]:
        engine, finder = self.engine, self._finder(allowed)
        if finder is None or isinstance(engine, LibraryEngine):
            return self._library(allowed).encode(text)
        if not finder:
            return engine.encode(self._normalized(text))
        found: list[int] = []
        for part in finder.parts(text):
            if isinstance(part, int):
                found.append(part)
            else:
                found += engine.encode(self._normalized(part))
        return found

    def _encode_bytes(self, data: bytes) -> list[int]:
        return self.engine.encode_piece(data)

    def _spans(self, text: str, allowed: frozenset[str]) -> list[Span]:
        return self._library(allowed).spans(text)

    def _library(self, allowed: frozenset[str]) -> LibraryEngine:
        if allowed not in self._libraries:
            if len(self._libraries) == _KEPT_LIBRARIES:  # each holds a copy of the vocabulary
                del self._libraries[next(iter(self._libraries))]
            self._libraries[allowed] = self._made_library(allowed)
        return self._libraries[allowed]

    def _made_library(self, allowed: frozenset[str]) -> LibraryEngine:
        cut, finder = self.pretokenizer, self._finder(allowed)
        if cut is None or cut.digits != "right_to_left" or self._normalizers or finder is None or finder:
            return LibraryEngine(self.definition, self.vocab, allowed=allowed)
        # The library would look from each digit to the end of the number.
        plain = replace(cut, digits="left_to_right").to_json()
        definition = {**self.definition, "pre_tokenizer": plain}
        return LibraryEngine(definition, self.vocab, allowed=allowed, cut=cut.turn_digits)

    def _finder(self, allowed: frozenset[str]) -> AddedTokens | None:
        """What is looked for in text, or None where only `tokenizers` can find it."""
        if allowed not in self._finders:
            found = plain_tokens(self.definition, allowed)
            self._finders[allowed] = None if found is None else AddedTokens(found)
        return self._finders[allowed]

    def _rank_engine(self) -> RankEngine | None:
        model, cut = self.definition["model"], self.pretokenizer
        odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        if model.get("type") != "BPE" or any(model.get(name) for name in odd) or cut is None:
            return None
        if any(step.get("type") not in _UNICODE_FORMS for step in self._normalizers):
            return None
        ranks = self._ranks or ranks_of(self.vocab, whole_first=bool(model.get("ignore_merges")))
        return None if ranks is None else RankEngine(self.vocab, ranks, cut)

    @cached_property
    def _normalizers(self) -> list[dict[str, Any]]:
        return steps(self.definition.get("normalizer"), "normalizers")

    def _normalized(self, text: str) -> str:
        """Through the normalizer, which is one of the Unicode forms."""
        if not self._normalizers or text.isascii():
            return text
        library = require("tokenizers.normalizers", "text")
        for step in self._normalizers:
            text = getattr(library, step["type"])().normalize_str(text)
        return text

    def _fingerprint(self) -> str:
        """Of what the file says, not of how it is written."""
        told = json.dumps(self.definition, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()
