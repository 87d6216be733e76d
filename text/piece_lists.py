"""Lists of pieces with scores and kinds, as sentencepiece and GGUF files hold them, as a tokenizer.json."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .ranks import merges_of

SPACE = "▁"


class Kind(IntEnum):
    """What a piece is for; the numbers of sentencepiece and of GGUF."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class PieceList:
    """What such a file says.

    pieces, scores, kinds  one each, by id; pieces hold '▁' for a space
    adds_space             a space is put before the text
    squeezes_spaces        runs of spaces become one, and those at the ends go
    charsmap               sentencepiece's compiled normalization; b"" for none
    """

    pieces: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    adds_space: bool = True
    squeezes_spaces: bool = False
    charsmap: bytes = b""

    def __post_init__(self) -> None:
        if not len(self.pieces) == len(self.scores) == len(self.kinds):
            raise ValueError(
                f"{len(self.pieces)} pieces, {len(self.scores)} scores and {len(self.kinds)} kinds: "
                "expected as many"
            )
        if len(set(self.pieces)) < len(self.pieces):
            raise ValueError("a piece is there twice")

    @property
    def unknown(self) -> int | None:
        """The id for what nothing covers."""
        return next((place for place, kind in enumerate(self.kinds) if kind == Kind.UNKNOWN), None)

    @property
    def has_bytes(self) -> bool:
        """Whether each of the 256 bytes has a piece."""
        return sum(kind == Kind.BYTE for kind in self.kinds) == 256


def bpe_definition(listed: PieceList) -> dict[str, Any]:
    """sentencepiece's BPE: of two neighbours the ones are joined whose joined piece has the highest score."""
    ranked = [place for place, kind in enumerate(listed.kinds) if kind == Kind.NORMAL]
    ranked.sort(key=lambda place: (-listed.scores[place], place))
    ranks = {listed.pieces[place].encode(): rank for rank, place in enumerate(ranked)}
    merges = [[left.decode(), right.decode()] for left, right in merges_of(ranks, by_character=True)]
    unknown = listed.unknown
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None if unknown is None else listed.pieces[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": listed.has_bytes,
        "ignore_merges": False,
        "vocab": {piece: place for place, piece in enumerate(listed.pieces)},
        "merges": merges,
    }
    return _definition(listed, model, None)


def unigram_definition(listed: PieceList) -> dict[str, Any]:
    """The likeliest segmentation, by the sum of scores."""
    model = {
        "type": "Unigram",
        "unk_id": listed.unknown,
        "vocab": [list(entry) for entry in zip(listed.pieces, listed.scores, strict=True)],
        "byte_fallback": listed.has_bytes,
    }
    # Text is cut at spaces unless a piece goes over one; the space before the text is there already.
    words = all(SPACE not in piece[1:] for piece in listed.pieces)
    cut = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": True}
    return _definition(listed, model, cut if words else None)


def _normalizers(listed: PieceList) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if listed.charsmap:
        charsmap = base64.b64encode(listed.charsmap).decode()
        found.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if listed.squeezes_spaces:
        found.append(_replace({"Regex": r"\A +| +\z"}, ""))
        found.append(_replace({"Regex": " {2,}"}, " "))
    if listed.adds_space:
        found.append({"type": "Prepend", "prepend": SPACE})
    return [*found, _replace({"String": " "}, SPACE)]


def _definition(listed: PieceList, model: dict[str, Any], cut: dict[str, Any] | None) -> dict[str, Any]:
    decoders: list[dict[str, Any]] = [_replace({"String": SPACE}, " ")]
    if listed.has_bytes:
        decoders.append({"type": "ByteFallback"})
    decoders.append({"type": "Fuse"})
    if listed.adds_space:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    kept = {Kind.UNKNOWN: True, Kind.CONTROL: True, Kind.USER_DEFINED: False}
    added = [
        added_token(place, listed.pieces[place], special=kept[Kind(kind)])
        for place, kind in enumerate(listed.kinds)
        if kind in kept
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(listed)},
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def added_token(place: int, name: str, *, special: bool) -> dict[str, Any]:
    """An entry of `added_tokens`, found in text exactly as it is spelled."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": place, "content": name, **flags, "special": special}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}
