"""Text to ids under a vocabulary with pieces of several words: those first, then each word by its merges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from .pretokenizers import PreTokenizer
from .segment import by_merges
from .spans import runs
from .vocab import TextVocab

# How text is cut into words here; the tokenizer itself takes the whole text for one pretoken.
WORDS = PreTokenizer()
WHOLE = PreTokenizer("none")
_REMEMBERED_WORDS, _REMEMBERED_BYTES = 1 << 16, 64


def multi_word_segmenter(vocab: TextVocab) -> Callable[[bytes], list[int]]:
    """The ids of a text: from left to right the longest run of words that is one piece, else the next word.

    Only whole words of WORDS are joined, so that no text takes more ids than without the pieces of several.
    """
    known = several_words(vocab)
    encode_word = by_merges(vocab)
    cached = lru_cache(maxsize=_REMEMBERED_WORDS)(encode_word)

    def remembered(word: bytes) -> list[int]:
        return cached(word) if len(word) <= _REMEMBERED_BYTES else encode_word(word)

    def segment(data: bytes) -> list[int]:
        found: list[int] = []
        for run in runs(data):
            if isinstance(run, bytes):
                found += encode_word(run)
                continue
            for part in join([word.encode() for word in WORDS.pieces(run)], known):
                found += [part] if isinstance(part, int) else remembered(part)
        return found

    return segment


def join(words: list[bytes], known: Mapping[bytes, int]) -> list[bytes | int]:
    """Words, those that are one piece together as its id.

    known  pieces of two words or more; of those that start at a word the longest counts
    """
    longest = max(map(len, known), default=0)
    found: list[bytes | int] = []
    place = 0
    while place < len(words):
        joined, best = words[place], place + 1
        part: bytes | int = words[place]
        for after in range(place + 1, len(words)):
            joined += words[after]
            if len(joined) > longest:
                break
            if (piece := known.get(joined)) is not None:
                part, best = piece, after + 1
        found.append(part)
        place = best
    return found


def several_words(vocab: TextVocab) -> dict[bytes, int]:
    """The pieces that are several words of WORDS and that no merge makes."""
    made = {product for _, _, product in vocab.merges}
    found: dict[bytes, int] = {}
    for piece, number in vocab.index.items():
        if number in made or len(piece) < 2:
            continue
        text = piece.decode(errors="ignore")
        if text.encode() == piece and len(WORDS.pieces(text)) > 1:
            found[piece] = number
    return found
