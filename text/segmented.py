"""Tokenizers that cut words their own way: a vocabulary behind one of our segmenters."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from .added_tokens import AddedTokens
from .engine import Segment, SegmentEngine
from .normalization import Normalization, Normalizing
from .pretokenizers import PreTokenizer
from .spans import Span, spans_of, whole_characters
from .text_tokenizer import TextTokenizer
from .vocab import MAX_PIECES, TextVocab
from .vocab_file import parse_vocab, vocab_bytes

VOCAB_FILE = "vocab.json"
# Name -> where a function lies that takes a TextVocab and returns the segmenter: bytes of a pretoken to ids.
SEGMENTERS: dict[str, str] = {
    "merges": "segment:by_merges",
    "greedy": "segment:greedy",
    "greedy-right": "segment:greedy_from_right",
    "longest": "segment:longest_first",
    "fewest": "segment:fewest",
    "likeliest": "segment:likeliest",
    "scaffold": "scaffold:scaffold_segmenter",
    "multi-word": "multi_word:multi_word_segmenter",
    "less-is-better": "less_is_better:less_is_better_segmenter",
    "root-affix": "root_affix:root_affix_segmenter",
}


@dataclass(frozen=True)
class SegmentedConfig(Config):
    """What config.json says; the vocabulary lies beside it, in vocab.json.

    vocab_size    ids, holes among them: rows of an embedding
    segmenter     a name of SEGMENTERS
    pretokenizer  no token crosses its cuts
    normalizers   applied to text, in this order, before it is cut; not to bytes that are no UTF-8
    """

    tokenizer_type: ClassVar[str] = "segmented"

    vocab_size: int
    segmenter: str
    pretokenizer: PreTokenizer = field(default_factory=PreTokenizer)
    normalizers: tuple[Normalization, ...] = ()

    def __post_init__(self) -> None:
        check_range("vocab_size", self.vocab_size, 1, MAX_PIECES)
        if self.segmenter not in SEGMENTERS:
            raise ValueError(f"unknown segmenter {self.segmenter!r}; known: {', '.join(SEGMENTERS)}")

    def facts(self) -> Facts:
        return Facts(
            name="segmented",
            modality="text",
            codebook_sizes=(self.vocab_size,),
            is_adaptive=True,
            is_lossless=Normalizing(self.normalizers).is_lossless,
        )


class SegmentedTokenizer(TextTokenizer):
    """A vocabulary of all bytes, a segmenter, a pre-tokenizer and normalizers; lossless where these are.

    With normalizers `decode_bytes` gives their normal form, marks and all, and `restore`, `decode` and
    `decode_text` the text again, as far as it can be told: what a lossy one did stays.

    name, licence  what facts and errors call it, and the licence of the vocabulary

    ValueError when a byte is no piece. No other library opens what it saves: tokenizer.json knows merges,
    unigram models and WordPiece, and `PlainTokenizer` has those.
    """

    config_type = SegmentedConfig
    config: SegmentedConfig

    def __init__(
        self,
        vocab: TextVocab,
        segmenter: str,
        pretokenizer: PreTokenizer | None = None,
        *,
        normalizers: Sequence[Normalization] = (),
        name: str = "segmented",
        licence: str | None = None,
    ) -> None:
        if not vocab.covers_bytes:
            missing = next(byte for byte in range(256) if bytes([byte]) not in vocab.index)
            raise ValueError(
                f"byte {missing} is no piece: expected all 256, so that every text can be written"
            )
        self.vocab = vocab
        self.config = SegmentedConfig(
            len(vocab), segmenter, pretokenizer or PreTokenizer(), tuple(normalizers)
        )
        self._normalizing = Normalizing(self.config.normalizers)
        self.stated = replace(self.config.facts(), name=name, licence=licence)

    @classmethod
    def from_files(
        cls, config: SegmentedConfig, files: Mapping[str, bytes], *, name: str, licence: str | None
    ) -> Self:
        """What `files` wrote; ValueError when it does not agree with the configuration."""
        found = cls(
            parse_vocab(files[VOCAB_FILE]),
            config.segmenter,
            config.pretokenizer,
            normalizers=config.normalizers,
            name=name,
            licence=licence,
        )
        if found.config != config:
            raise ValueError(
                f"{VOCAB_FILE} has {found.config.vocab_size} ids, config.json {config.vocab_size}"
            )
        return found

    @cached_property
    def facts(self) -> Facts:  # pyright: ignore[reportIncompatibleMethodOverride]
        told = json.dumps(self.config.to_dict(), sort_keys=True).encode() + vocab_bytes(self.vocab)
        return replace(self.stated, fingerprint=hashlib.sha256(told).hexdigest())

    @cached_property
    def engine(self) -> SegmentEngine:
        """The segmenter, with a memory for short pretokens."""
        module, function = SEGMENTERS[self.config.segmenter].split(":")
        make = getattr(importlib.import_module(f".{module}", __package__), function)
        segment: Segment = make(self.vocab)
        return SegmentEngine(self.config.segmenter, segment, self.config.pretokenizer)

    @property
    def details(self) -> dict[str, Any]:
        return {
            **super().details,
            "segmenter": self.config.segmenter,
            "pre_tokenizer": self.config.pretokenizer.kind,
            "normalizers": [each.kind for each in self.config.normalizers],
        }

    @property
    def cuts_safely(self) -> bool:
        return self.config.pretokenizer.cuts_before_spaces and self._normalizing.keeps_words

    def restore(self, ids: Sequence[int]) -> bytes:
        return self._normalizing.undo(self.decode_bytes(ids))

    def num_tokens(self, extent: Sequence[int]) -> int:
        return int(extent[0]) * self._normalizing.most_growth

    def files(self) -> dict[str, bytes]:
        return {VOCAB_FILE: vocab_bytes(self.vocab)}

    def _encode(self, text: str, allowed: frozenset[str]) -> list[int]:
        found: list[int] = []
        for part in self._parts(text, allowed):
            if isinstance(part, int):
                found.append(part)
            else:
                found += self.engine.encode(self._normalizing.apply(part))
        return found

    def _encode_bytes(self, data: bytes) -> list[int]:
        return self.engine.encode_piece(data)

    def _spans(self, text: str, allowed: frozenset[str]) -> list[Span]:
        found: list[Span] = []
        start = 0
        for part in self._parts(text, allowed):
            size = len(self.vocab.pieces[part].decode()) if isinstance(part, int) else len(part)
            spans = [(0, size)] if isinstance(part, int) else self._part_spans(part)
            found += [(start + left, start + right) for left, right in spans]
            start += size
        return found

    def _parts(self, text: str, allowed: frozenset[str]) -> list[str | int]:
        """Text, and the ids of specials between it."""
        if not allowed:
            return [text] if text else []
        return AddedTokens({name: self.vocab.specials[name] for name in allowed}).parts(text)

    def _part_spans(self, text: str) -> list[Span]:
        """By the last character that each id tells whole."""
        normal = self._normalizing.apply(text)
        pieces = [self.vocab.pieces[each] for each in self.engine.encode(normal)]
        ends = whole_characters(normal, [right for _, right in spans_of(pieces)])
        places = self._normalizing.places(text)
        ends = [places[end] for end in ends]
        return list(zip([0, *ends], ends, strict=False))

    def __getstate__(self) -> dict[str, Any]:
        """For workers: the engine is built again there."""
        return {name: value for name, value in self.__dict__.items() if name != "engine"}
