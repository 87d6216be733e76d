"""MYTE's map of morphemes (Limisiewicz et al. 2024): a few thousand for every language, from its own text.

The official map takes them from Morfessor, an unsupervised model of morphemes. Here they are the pieces of a
BPE vocabulary of each language, which is learned in seconds.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from . import train_bpe
from .corpus import Corpus, Mapped
from .myte import MorphemeBytes, codes
from .pretoken_counts import count_pretokens, pooled
from .pretokenizers import PreTokenizer
from .segment import by_merges

_SHORTEST = 3
_SMALL = Mapped.by(str.lower, "in small letters")


def train(
    corpus: Corpus,
    per_language: int = 4096,
    *,
    pretokenizer: PreTokenizer | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> MorphemeBytes:
    """Codes for the morphemes of a corpus whose domains are languages.

    per_language  morphemes of three bytes or more taken of each, at most
    pretokenizer  no morpheme crosses its cuts; by default that of Llama 3
    folder        for counts and steps of each language: a training that was stopped goes on from there
    progress      a bar on stderr for each language

    A morpheme is worth the share of the bytes of its language that it saves. So a language with little text,
    or with letters of many bytes, gets short codes like any other. ValueError when a language has no text.
    """
    if per_language < 1:
        raise ValueError(f"per_language={per_language}: expected 1 or more")
    cut = pretokenizer or PreTokenizer()
    worth: dict[bytes, float] = {}
    for number, (language, sources) in enumerate(corpus.domains.items()):
        place = None if folder is None else Path(folder) / f"language-{number}"
        own = Corpus({language: sources}, corpus.limit_bytes).mapped(_SMALL)
        for morpheme, share in _morphemes(own, per_language, cut, place, progress).items():
            worth[morpheme] = worth.get(morpheme, 0.0) + share
    return MorphemeBytes(codes(sorted(worth, key=lambda morpheme: (-worth[morpheme], morpheme))))


def _morphemes(
    corpus: Corpus, most: int, pretokenizer: PreTokenizer, folder: Path | None, progress: bool
) -> dict[bytes, float]:
    """The pieces that save most, and the share of the bytes of the language that each saves."""
    vocab = train_bpe.train(corpus, most + 256, pretokenizer=pretokenizer, folder=folder, progress=progress)
    segment = by_merges(vocab)
    saved: Counter[bytes] = Counter()
    total = 0
    counts = count_pretokens(corpus, pretokenizer, state=train_bpe.state_in(folder), progress=False)
    for word, count in pooled(counts).items():
        total += count * len(word)
        for piece in map(vocab.pieces.__getitem__, segment(word)):
            if len(piece) >= _SHORTEST and _is_text(piece):
                saved[piece] += count * (len(piece) - 2)
    return {piece: count / total for piece, count in saved.most_common(most)}


def _is_text(piece: bytes) -> bool:
    """Whole characters."""
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True
