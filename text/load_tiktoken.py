"""Ranks of tiktoken: one piece a line in base64, and its rank, which is its id."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .plain import PlainTokenizer
from .pretokenizers import PreTokenizer
from .ranks import Ranks, merges_of
from .vocab import MAX_PIECES, TextVocab

_MAX_BYTES = 128 * 2**20
_END = "<|endoftext|>"
_CL100K = {_END: 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260}
_LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(2, 246)),
)


@dataclass(frozen=True)
class _Known:
    """What the file does not say: its name, how text is cut, and the specials."""

    name: str
    pretokenizer: PreTokenizer
    specials: Mapping[str, int]


# By the SHA-256 of the file.
_KNOWN = {
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": _Known(
        "r50k_base", PreTokenizer("gpt2"), {_END: 50256}
    ),
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": _Known(
        "p50k_base", PreTokenizer("gpt2"), {_END: 50256}
    ),
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": _Known(
        "cl100k_base", PreTokenizer("cl100k"), {**_CL100K, "<|endofprompt|>": 100276}
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": _Known(
        "o200k_base", PreTokenizer("o200k"), {_END: 199999, "<|endofprompt|>": 200018}
    ),
    "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55": _Known(
        "llama3", PreTokenizer("llama3"), {name: 128000 + place for place, name in enumerate(_LLAMA3)}
    ),
}


def looks_like_tiktoken(head: bytes) -> bool:
    """Whether a file that starts so can be one."""
    piece, _, rank = head.partition(b"\n")[0].strip().partition(b" ")
    return bool(piece) and rank.isdigit()


def load_tiktoken(
    path: str | Path,
    pretokenizer: PreTokenizer | None = None,
    specials: Mapping[str, int] | None = None,
    *,
    name: str = "text",
    licence: str | None = None,
) -> PlainTokenizer:
    """The tokenizer of a file of ranks, with the ids that tiktoken gives.

    pretokenizer, specials  not in the file; known for r50k_base, p50k_base, cl100k_base, o200k_base and
                            Llama 3, which are told by their hashes

    ValueError naming the file when it is damaged, lacks a byte, or is not known and no `pretokenizer` is
    given.
    """
    path = Path(path)
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"{path.name}: {size} bytes, expected at most {_MAX_BYTES}")
    data = path.read_bytes()
    known = _KNOWN.get(hashlib.sha256(data).hexdigest())
    if pretokenizer is None:
        if known is None:
            raise ValueError(
                f"{path.name}: how text is cut is not in the file, and this one is not known; say it: "
                'load_tiktoken(path, PreTokenizer("cl100k"), specials={"<|endoftext|>": 100257})'
            )
        name, pretokenizer = known.name, known.pretokenizer
        specials = known.specials if specials is None else specials
    try:
        ranks = _parse(data)
        vocab = _vocab(ranks, specials or {})
        tokenizer = PlainTokenizer.of(vocab, pretokenizer, name=name, licence=licence, whole_first=True)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    formed = [vocab.pieces[product] for _, _, product in vocab.merges]
    others = {piece for piece in ranks if len(piece) > 1} - set(formed)
    tokenizer.join_by(Ranks(tuple(formed), tuple(sorted(others))))
    return tokenizer


def _parse(data: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            coded, rank = line.split()
            piece, place = base64.b64decode(coded, validate=True), int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"line {number} is no piece in base64 and a rank") from error
        if not piece or piece in ranks or not 0 <= place < MAX_PIECES:
            raise ValueError(f"line {number} has an empty piece, one that came before, or rank {place}")
        ranks[piece] = place
    return ranks


def _vocab(ranks: Mapping[bytes, int], specials: Mapping[str, int]) -> TextVocab:
    highest = max((*ranks.values(), *specials.values()), default=0)
    if highest >= MAX_PIECES or min(specials.values(), default=0) < 0:
        raise ValueError(f"id {highest} of a special: expected 0 ... {MAX_PIECES - 1}")
    pieces = [b""] * (1 + highest)
    for piece, rank in (*ranks.items(), *((name.encode(), place) for name, place in specials.items())):
        if pieces[rank]:
            raise ValueError(f"rank {rank} is there twice: {pieces[rank]!r} and {piece!r}")
        pieces[rank] = piece
    merges = ((ranks[left], ranks[right], ranks[left + right]) for left, right in merges_of(ranks))
    return TextVocab(tuple(pieces), tuple(merges), specials=dict(specials))
