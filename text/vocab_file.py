"""A TextVocab as JSON: for tokenizers that no tokenizer.json can describe."""

from __future__ import annotations

import json
from typing import Any

from .byte_letters import bytes_of, letters_of
from .vocab import TextVocab

_FORMAT_VERSION = 1


def vocab_bytes(vocab: TextVocab) -> bytes:
    """The file: pieces in the letters of bytes, by id, and whatever else the vocabulary has."""
    told = {
        "format_version": _FORMAT_VERSION,
        "pieces": [letters_of(piece) for piece in vocab.pieces],
        "merges": vocab.merges,
        "scores": vocab.scores,
        "specials": dict(vocab.specials),
        "unused": sorted(vocab.unused),
        "fallback": vocab.fallback,
        "unknown": vocab.unknown,
    }
    if vocab.groups:
        told["groups"] = dict(vocab.groups)
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def parse_vocab(raw: bytes) -> TextVocab:
    """The inverse; ValueError when it is no such file, or of a later version."""
    try:
        told: dict[str, Any] = json.loads(raw)
        version = told["format_version"]
        if type(version) is not int or not 1 <= version <= _FORMAT_VERSION:
            raise ValueError(f"format_version {version!r}, this tokenzoo reads 1 ... {_FORMAT_VERSION}")
        return TextVocab(
            pieces=tuple(_piece(letters) for letters in told["pieces"]),
            merges=tuple((int(left), int(right), int(product)) for left, right, product in told["merges"]),
            scores=tuple(map(float, told["scores"])),
            specials={str(name): int(place) for name, place in told["specials"].items()},
            unused=frozenset(map(int, told["unused"])),
            fallback=tuple(map(int, told["fallback"])),
            unknown=None if told["unknown"] is None else int(told["unknown"]),
            groups={str(name): tuple(map(int, ids)) for name, ids in told.get("groups", {}).items()},
        )
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no vocabulary of tokenzoo ({type(error).__name__}: {error})") from error


def _piece(letters: str) -> bytes:
    piece = bytes_of(letters)
    if piece is None:
        raise ValueError(f"piece {letters!r} is not written in the letters of bytes")
    return piece
