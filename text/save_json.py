"""A vocabulary of ours as a plain tokenizer.json, which `tokenizers` and transformers open without us."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .byte_letters import letters_of
from .pretokenizers import PreTokenizer
from .vocab import TextVocab

# What transformers needs beside tokenizer.json, in version 4 too.
TRANSFORMERS_CONFIG = (
    b'{"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false}\n'
)


def definition_of(
    vocab: TextVocab, pretokenizer: PreTokenizer, *, whole_first: bool = False
) -> dict[str, Any]:
    """The JSON object: a byte-level BPE where the vocabulary has merges, a unigram model where it has scores.

    whole_first  a pretoken that is a piece becomes that piece, before any merge (tiktoken's way)

    ValueError when the file cannot say the same: pieces that text must not yield, two pieces of the same
    bytes, a byte that is missing.
    """
    if vocab.unused or vocab.fallback or vocab.unknown is not None:
        raise ValueError("unused, fallback and unknown pieces have no place in a byte-level tokenizer.json")
    if not vocab.covers_bytes:
        missing = next(byte for byte in range(256) if bytes([byte]) not in vocab.index)
        raise ValueError(f"byte {missing} is no piece: expected all 256, so that every text can be written")
    names = {place: name for name, place in vocab.specials.items()}
    entries = [names.get(place) or letters_of(piece) for place, piece in enumerate(vocab.pieces)]
    held = [entry for entry in entries if entry]
    if len(set(held)) < len(held):
        raise ValueError("two pieces have the same bytes, or a special has the name of a piece")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(place, name) for place, name in sorted(names.items())],
        "normalizer": None,
        "pre_tokenizer": pretokenizer.to_json(),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _unigram(vocab, entries) if vocab.scores else _bpe(vocab, entries, whole_first),
    }


def definition_bytes(definition: Mapping[str, Any]) -> bytes:
    """As the file is written: the same object gives the same bytes."""
    return json.dumps(definition, ensure_ascii=False, separators=(",", ":")).encode()


def _bpe(vocab: TextVocab, entries: list[str], whole_first: bool) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": whole_first,
        "vocab": {entry: place for place, entry in enumerate(entries) if entry},
        # Pairs as one string open in every version of the library.
        "merges": [f"{entries[left]} {entries[right]}" for left, right, _ in vocab.merges],
    }


def _unigram(vocab: TextVocab, entries: list[str]) -> dict[str, Any]:
    # The place in the list is the id, so a hole needs an entry that no text can hold.
    listed = [entry or f"\U0010ffff{place}" for place, entry in enumerate(entries)]
    return {
        "type": "Unigram",
        "unk_id": None,
        "vocab": [[entry, score] for entry, score in zip(listed, vocab.scores, strict=True)],
        "byte_fallback": False,
    }


def _special(place: int, name: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": place, "content": name, **flags}
