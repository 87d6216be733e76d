"""sentencepiece models, read without sentencepiece: a small reader of their protocol buffers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .piece_lists import Kind, PieceList, bpe_definition, unigram_definition
from .vocab import MAX_PIECES

_MAX_BYTES = 128 * 2**20
_UNIGRAM, _BPE = 1, 2
_MODELS = {_UNIGRAM: "unigram", _BPE: "bpe", 3: "word", 4: "char"}
# Numbers of fields in sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE, _SPACE_AS_SUFFIX = 3, 24
_CHARSMAP, _ADDS_SPACE, _SQUEEZES, _ESCAPES = 2, 3, 4, 5
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5


def looks_like_sentencepiece(head: bytes) -> bool:
    """Whether a file can be one: it starts with a piece."""
    return head[:1] == bytes([_PIECES << 3 | _LENGTH])


def read_sentencepiece(path: Path) -> dict[str, Any]:
    """The definition of a unigram or BPE model; ValueError naming the file when it is damaged or none.

    Ids are those that `tokenizers` gives to the same model. For BPE they are sentencepiece's own ids, except
    after a user-defined symbol, where `tokenizers` puts a space as before a text. Unigram models differ
    where two segmentations are equally likely, where text spells a byte piece ("<0x0A>"), and where a
    normalization meets a space with a combining mark.
    """
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"{path.name}: {size} bytes, expected at most {_MAX_BYTES}")
    try:
        return _definition(path.read_bytes())
    except (ValueError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"{path.name}: no readable sentencepiece model ({error})") from error


def _definition(data: bytes) -> dict[str, Any]:
    pieces: list[str] = []
    scores: list[float] = []
    kinds: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == _PIECES:
            entry = dict(_fields(value))
            pieces.append(entry.get(_PIECE, b"").decode())
            scores.append(struct.unpack("<f", entry.get(_SCORE, bytes(4)))[0])
            kinds.append(entry.get(_KIND, Kind.NORMAL))
        elif number == _TRAINER:
            trainer = dict(_fields(value))
        elif number == _NORMALIZER:
            normalizer = dict(_fields(value))
    if not 1 <= len(pieces) <= MAX_PIECES or not set(kinds) <= set(Kind):
        raise ValueError(f"{len(pieces)} pieces of kinds {sorted(set(kinds))[:8]}")
    if trainer.get(_SPACE_AS_SUFFIX) or not normalizer.get(_ESCAPES, 1):
        raise ValueError("spaces at the end of words, or not written as '▁', are not supported")
    listed = PieceList(
        pieces=pieces,
        scores=scores,
        kinds=kinds,
        adds_space=bool(normalizer.get(_ADDS_SPACE, 1)),
        squeezes_spaces=bool(normalizer.get(_SQUEEZES, 1)),
        charsmap=normalizer.get(_CHARSMAP, b""),
    )
    kind = trainer.get(_MODEL_TYPE, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        raise ValueError(f"a model of kind {_MODELS.get(kind, kind)}: expected unigram or bpe")
    return unigram_definition(listed) if kind == _UNIGRAM else bpe_definition(listed)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of every field of a message: integers, or bytes; the last of equals counts."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        size = {_EIGHT: 8, _FOUR: 4}.get(wire)
        if wire == _LENGTH:
            size, place = _varint(data, place)
        if size is None or place + size > len(data):
            raise ValueError(f"it is damaged at byte {place}")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError(f"it is damaged at byte {place}")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
