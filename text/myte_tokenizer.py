"""MYTE's bytes as a tokenizer: ids are those of MyT5, a byte of the written form each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from ..zoo.config import Config, check_range
from ..zoo.facts import Facts
from .added_tokens import AddedTokens
from .byte_letters import bytes_of, letters_of
from .myte import RAW, MorphemeBytes, lowered
from .spans import Span
from .text_tokenizer import TextTokenizer
from .vocab import TextVocab

CODES_FILE = "vocab.json"
_BYTES = 256
# The first ids of MyT5, and those behind the bytes that its training fills gaps with.
_FIRST, _EXTRA = ("<pad>", "</s>", "<unk>"), 125
_VOCAB_SIZE = len(_FIRST) + _BYTES + _EXTRA
# All codes of two, three and four bytes that begin in one of eight clusters.
_MOST_CODES = 8 * (63 + 63**2 + 63**3)


@dataclass(frozen=True)
class MyteConfig(Config):
    """What config.json says; the codes lie beside it, in vocab.json.

    morphemes  how many have a code
    """

    tokenizer_type: ClassVar[str] = "myte"

    morphemes: int = 0

    def __post_init__(self) -> None:
        check_range("morphemes", self.morphemes, 0, _MOST_CODES)

    def facts(self) -> Facts:
        return Facts(
            name="myte",
            modality="text",
            codebook_sizes=(_VOCAB_SIZE,),
            is_adaptive=True,
            is_lossless=True,
        )


class MyteTokenizer(TextTokenizer):
    """UTF-8 in which frequent morphemes of every script have short codes (Limisiewicz et al. 2024); lossless.

    An id is one byte of the written form, plus 3, as in `transformers.MyT5Tokenizer`, which gives the same
    ids under the same map, but for bytes that are no UTF-8. So `decode_bytes` is a homomorphism, and what it
    gives is the written form: marks before small letters, and codes, of which a part is no text. `restore`,
    `decode` and `decode_text` give the text; they are no homomorphism.

    codes          what `train_myte.train` returns
    name, licence  what facts and errors call it, and the licence of the codes
    """

    config_type = MyteConfig
    config: MyteConfig

    def __init__(self, codes: MorphemeBytes, *, name: str = "myte", licence: str | None = None) -> None:
        self.codes = codes
        self.config = MyteConfig(len(codes.codes))
        self.vocab = _vocab()
        self.stated = replace(self.config.facts(), name=name, licence=licence)

    @classmethod
    def from_files(
        cls, config: MyteConfig, files: Mapping[str, bytes], *, name: str, licence: str | None
    ) -> Self:
        """What `files` wrote; ValueError when it does not agree with the configuration."""
        found = cls(parse_codes(files[CODES_FILE]), name=name, licence=licence)
        if found.config != config:
            raise ValueError(
                f"{CODES_FILE} has {found.config.morphemes} morphemes, config.json {config.morphemes}"
            )
        return found

    @cached_property
    def facts(self) -> Facts:  # pyright: ignore[reportIncompatibleMethodOverride]
        return replace(self.stated, fingerprint=hashlib.sha256(self.files()[CODES_FILE]).hexdigest())

    @property
    def details(self) -> dict[str, Any]:
        return {**super().details, "morphemes": len(self.codes.codes)}

    def restore(self, ids: Sequence[int]) -> bytes:
        return self.codes.restore(self.decode_bytes(ids))

    def num_tokens(self, extent: Sequence[int]) -> int:
        return 2 * int(extent[0])

    def files(self) -> dict[str, bytes]:
        told = {letters_of(morpheme): code.hex() for morpheme, code in self.codes.codes.items()}
        return {CODES_FILE: json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()}

    def _encode(self, text: str, allowed: frozenset[str]) -> list[int]:
        found: list[int] = []
        for part in self._parts(text, allowed):
            found += [part] if isinstance(part, int) else _ids(self.codes.encode(part))
        return found

    def _encode_bytes(self, data: bytes) -> list[int]:
        return _ids(b"".join(bytes((RAW, byte)) for byte in data))

    def _spans(self, text: str, allowed: frozenset[str]) -> list[Span]:
        """Of a code the last byte stands for the whole morpheme, of a mark and of what begins a character
        nothing."""
        found: list[Span] = []
        start = 0
        for part in self._parts(text, allowed):
            if isinstance(part, int):
                size = len(self.vocab.pieces[part].decode())
                found.append((start, start + size))
            else:
                size = len(part)
                found += [(start + left, start + right) for left, right in self._part_spans(part)]
            start += size
        return found

    def _part_spans(self, text: str) -> list[Span]:
        # Characters that are told whole by the first n bytes of the small letters.
        told = [0]
        for place, letter in enumerate(text):
            told += [place] * (len(lowered(letter)) - 1) + [place + 1]
        found: list[Span] = []
        before = 0
        for code, end in self.codes.parts(lowered(text)):
            found += [(before, before)] * (len(code) - 1) + [(before, told[end])]
            before = told[end]
        return found

    def _run_offsets(self, run: str | bytes, allowed: frozenset[str], start: int) -> list[Span]:
        if isinstance(run, str):
            return super()._run_offsets(run, allowed, start)
        places = range(start, start + len(run))
        return [span for place in places for span in ((place, place), (place, place + 1))]

    def _parts(self, text: str, allowed: frozenset[str]) -> list[str | int]:
        if not allowed:
            return [text] if text else []
        return AddedTokens({name: self.vocab.specials[name] for name in allowed}).parts(text)


def parse_codes(raw: bytes) -> MorphemeBytes:
    """vocab.json of this family; ValueError when it is none."""
    try:
        told = json.loads(raw)
        return MorphemeBytes({_morpheme(letters): bytes.fromhex(code) for letters, code in told.items()})
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{CODES_FILE} holds no codes ({type(error).__name__}: {error})") from error


def _morpheme(letters: str) -> bytes:
    found = bytes_of(letters)
    if found is None:
        raise ValueError(f"morpheme {letters!r} is not written in the letters of bytes")
    return found


def _vocab() -> TextVocab:
    extra = tuple(f"<extra_id_{number}>" for number in range(_EXTRA))
    names = (*_FIRST, *extra)
    places = (*range(len(_FIRST)), *range(len(_FIRST) + _BYTES, _VOCAB_SIZE))
    return TextVocab(
        pieces=(
            *(name.encode() for name in _FIRST),
            *(bytes([byte]) for byte in range(_BYTES)),
            *(name.encode() for name in extra),
        ),
        specials=dict(zip(names, places, strict=True)),
    )


def _ids(data: bytes) -> list[int]:
    return [byte + len(_FIRST) for byte in data]
