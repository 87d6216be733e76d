"""Vocabularies inside GGUF files (llama.cpp), told as a tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .gguf import read_head
from .load_wordpiece import wordpiece_definition
from .piece_lists import SPACE, Kind, PieceList, added_token, bpe_definition, unigram_definition
from .pretokenizers import PATTERNS, PreTokenizer

_GPT2 = PATTERNS["gpt2"].regex
_SINGLE_DIGITS = (r"\p{N}", _GPT2)
_LLAMA3, _QWEN2 = (PATTERNS["llama3"].regex,), (PATTERNS["qwen2"].regex,)
# tokenizer.ggml.pre -> the patterns that cut text, one after the other, as the model's own tokenizer.json has
# them. llama.cpp matches rewritten ones, which differ on a few characters (the long s in 'ſ).
_PATTERNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "roberta-bpe", "modern-bert"), (_GPT2,)
    ),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2"), _QWEN2),
    **dict.fromkeys(("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone"), _SINGLE_DIGITS),
    **dict.fromkeys(("gpt-4o", "llama4"), (PATTERNS["o200k"].regex,)),
    "tekken": (PATTERNS["tekken"].regex,),
    "qwen35": (PATTERNS["qwen35"].regex,),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    "deepseek-coder": ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"),
    "deepseek-v3": (
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
        r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
_WHOLE_FIRST = {"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "lfm2", "glm4", "tekken"}


def read_gguf(path: Path) -> tuple[dict[str, Any], str | None, str | None]:
    """The definition, and the name and licence of the model where the file has them.

    ValueError naming the file when it holds no vocabulary, or one of a kind that is not known.
    """
    head = read_head(path)
    try:
        return _definition(head), _text(head, "general.name"), _text(head, "general.license")
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _definition(head: dict[str, Any]) -> dict[str, Any]:
    model = head.get("tokenizer.ggml.model")
    makers = {"gpt2": _byte_level, "llama": _bpe, "t5": _unigram, "bert": _wordpiece, "gemma4": _gemma}
    if not isinstance(model, str) or model not in makers:
        raise ValueError(f"holds a vocabulary of kind {model!r}; known: {', '.join(makers)}")
    return makers[model](head)


def _byte_level(head: dict[str, Any]) -> dict[str, Any]:
    """GPT-2 and its heirs: pieces in the letters of bytes, and merges."""
    name = _text(head, "tokenizer.ggml.pre")
    if name not in _PATTERNS:
        raise ValueError(
            f"pre-tokenizer {name!r} (tokenizer.ggml.pre) is not known; known: {', '.join(_PATTERNS)}"
        )
    splits = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        for regex in _PATTERNS[name]
    ]
    cut = {"type": "Sequence", "pretokenizers": [*splits, PreTokenizer("none").to_json()]}
    shown = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _merged(head, normalizer=None, cut=cut, shown=shown, whole_first=name in _WHOLE_FIRST)


def _gemma(head: dict[str, Any]) -> dict[str, Any]:
    """Gemma 4: merges of characters, spaces as '▁', lines one by one, bytes for what has no piece."""
    cut = {"type": "Split", "pattern": {"Regex": r"[^\n]+|\n+"}, "behavior": "Isolated", "invert": False}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    shown = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return _merged(head, normalizer=spaces, cut=cut, shown=shown, fallback=True)


def _merged(
    head: dict[str, Any],
    *,
    normalizer: dict[str, Any] | None,
    cut: dict[str, Any],
    shown: dict[str, Any],
    whole_first: bool = False,
    fallback: bool = False,
) -> dict[str, Any]:
    pieces, kinds = _pieces(head)
    added = {Kind.UNKNOWN: True, Kind.CONTROL: True, Kind.USER_DEFINED: False}
    unknown = head.get("tokenizer.ggml.unknown_token_id") if fallback else None
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(place, pieces[place], special=added[Kind(kind)])
            for place, kind in enumerate(kinds)
            if kind in added
        ],
        "normalizer": normalizer,
        "pre_tokenizer": cut,
        "post_processor": None,
        "decoder": shown,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[unknown] if isinstance(unknown, int) and unknown < len(pieces) else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": fallback,
            "byte_fallback": fallback,
            "ignore_merges": whole_first,
            "vocab": {piece: place for place, piece in enumerate(pieces)},
            # A piece may be a space; it is never the first character that parts the two.
            "merges": [list(_halves(merge)) for merge in _strings(head, "tokenizer.ggml.merges")],
        },
    }


def _halves(merge: str) -> tuple[str, str]:
    place = merge.find(" ", 1)
    if place < 0:
        raise ValueError(f"merge {merge!r}: expected two pieces with a space between them")
    return merge[:place], merge[place + 1 :]


def _bpe(head: dict[str, Any]) -> dict[str, Any]:
    return bpe_definition(_listed(head))


def _unigram(head: dict[str, Any]) -> dict[str, Any]:
    return unigram_definition(_listed(head))


def _wordpiece(head: dict[str, Any]) -> dict[str, Any]:
    """BERT: the file marks what starts a word, with '▁', and the original what continues one, with '##'."""
    pieces, kinds = _pieces(head)
    specials = {piece for piece, kind in zip(pieces, kinds, strict=True) if kind != Kind.NORMAL}
    named = [
        piece if piece in specials else piece.removeprefix(SPACE) if piece.startswith(SPACE) else f"##{piece}"
        for piece in pieces
    ]
    unknown = head.get("tokenizer.ggml.unknown_token_id")
    if not isinstance(unknown, int) or not 0 <= unknown < len(named):
        raise ValueError(f"unknown_token_id is {unknown!r}: expected an id of the vocabulary")
    return wordpiece_definition(named, specials, named[unknown])


def _listed(head: dict[str, Any]) -> PieceList:
    pieces, kinds = _pieces(head)
    scores = head.get("tokenizer.ggml.scores")
    charsmap = head.get("tokenizer.ggml.precompiled_charsmap") or []
    return PieceList(
        pieces=pieces,
        scores=scores if isinstance(scores, list) else [],
        kinds=kinds,
        adds_space=bool(head.get("tokenizer.ggml.add_space_prefix", True)),
        squeezes_spaces=bool(head.get("tokenizer.ggml.remove_extra_whitespaces", False)),
        charsmap=bytes(byte & 0xFF for byte in charsmap),
    )


def _pieces(head: dict[str, Any]) -> tuple[list[str], list[int]]:
    pieces = _strings(head, "tokenizer.ggml.tokens")
    told = head.get("tokenizer.ggml.token_type")
    kinds: list[int] = told if isinstance(told, list) else [int(Kind.NORMAL)] * len(pieces)
    if len(kinds) != len(pieces) or not set(kinds) <= set(Kind):
        raise ValueError(f"{len(kinds)} token types for {len(pieces)} tokens: expected one each, 1 ... 6")
    return pieces, kinds


def _strings(head: dict[str, Any], key: str) -> list[str]:
    found = head.get(key)
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise ValueError(f"lacks {key}, a list of strings")
    return found


def _text(head: dict[str, Any], key: str) -> str | None:
    found = head.get(key)
    return found if isinstance(found, str) else None
