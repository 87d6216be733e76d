"""WordPiece vocabularies of BERT: the longest prefix of a word that is a piece, again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .piece_lists import added_token

_CONTINUES = "##"
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_BYTES = 64 * 2**20


def read_wordpiece(path: Path) -> dict[str, Any]:
    """The definition of a vocab.txt, one piece a line; ValueError naming the file when it is none.

    Text is lower-cased and loses its accents unless a piece has capital letters.
    """
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"{path.name}: {size} bytes, expected at most {_MAX_BYTES}")
    try:
        pieces = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no UTF-8 text ({error})") from error
    if _SPECIALS[1] not in pieces:
        raise ValueError(f"{path.name} is no vocabulary of BERT: expected a line {_SPECIALS[1]}")
    specials = {piece for piece in pieces if piece in _SPECIALS}
    return wordpiece_definition(pieces, specials)


def wordpiece_definition(pieces: Sequence[str], specials: set[str], unknown: str = "[UNK]") -> dict[str, Any]:
    """BERT's tokenizer: text cleaned and split at white space, punctuation and CJK characters.

    pieces  by id; "##" marks what continues a word
    """
    ordinary = (piece for piece in pieces if piece not in specials)
    lowers = not any("A" <= letter <= "Z" for piece in ordinary for letter in piece)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(place, piece, special=True) for place, piece in enumerate(pieces) if piece in specials
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": lowers,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": _CONTINUES, "cleanup": False},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": _CONTINUES,
            "max_input_chars_per_word": 100,
            "vocab": {piece: place for place, piece in enumerate(pieces)},
        },
    }
