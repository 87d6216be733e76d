"""MYTE's map of morphemes (Limisiewicz et al. 2024): a few thousand for every language, from its own text.

The official map takes them from Morfessor, an unsupervised model of morphemes. Here they are the pieces of a
BPE vocabulary of each language, which is learned in seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from . import train_bpe
from .corpus import Corpus, Source
from .myte import MorphemeBytes, codes
from .pretoken_counts import count_pretokens
from .pretokenizers import PreTokenizer
from .segment import by_merges

_SHORTEST = 3


def train(
    corpus: Corpus,
    per_language: int = 4096,
    *,
    pretokenizer: PreTokenizer | None = None,
    progress: bool = True,
) -> MorphemeBytes:
    """Codes for the morphemes of a corpus whose domains are languages.

    per_language  morphemes of three bytes or more taken of each, at most
    pretokenizer  no morpheme crosses its cuts; by default that of Llama 3
    progress      a bar on stderr for each language

    A morpheme is worth the share of the bytes of its language that it saves. So a language with little text,
    or with letters of many bytes, gets short codes like any other. ValueError when a language has no text.
    """
    if per_language < 1:
        raise ValueError(f"per_language={per_language}: expected 1 or more")
    cut = pretokenizer or PreTokenizer()
    worth: dict[bytes, float] = {}
    for language, sources in corpus.domains.items():
        own = Corpus({language: tuple(map(_Lowered, sources))}, corpus.limit_bytes)
        for morpheme, share in _morphemes(own, language, per_language, cut, progress).items():
            worth[morpheme] = worth.get(morpheme, 0.0) + share
    return MorphemeBytes(codes(sorted(worth, key=lambda morpheme: (-worth[morpheme], morpheme))))


@dataclass(frozen=True)
class _Lowered:
    """A source in small letters."""

    source: Source

    @property
    def name(self) -> str:
        return f"{self.source.name} in small letters"

    @property
    def size(self) -> int:
        return self.source.size

    def read(self, offset: int) -> Iterator[tuple[str, int]]:
        return ((text.lower(), after) for text, after in self.source.read(offset))


def _morphemes(
    corpus: Corpus, language: str, most: int, pretokenizer: PreTokenizer, progress: bool
) -> dict[bytes, float]:
    """The pieces that save most, and the share of the bytes of the language that each saves."""
    vocab = train_bpe.train(corpus, most + 256, pretokenizer=pretokenizer, progress=progress)
    segment = by_merges(vocab)
    saved: Counter[bytes] = Counter()
    total = 0
    for word, count in count_pretokens(corpus, pretokenizer, progress=False)[language].items():
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
