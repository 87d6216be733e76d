"""Text to ids under a vocabulary of Scaffold-BPE: all merges first, then what scaffolds stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .plain import PlainTokenizer
from .pretokenizers import PreTokenizer
from .vocab import TextVocab


def scaffold_segmenter(vocab: TextVocab) -> Callable[[bytes], list[int]]:
    """The ids of one pretoken: by the merges of the whole vocabulary, each scaffold replaced by its parts."""
    every = PlainTokenizer.of(replace(vocab, unused=frozenset()), PreTokenizer("none"))
    merged, parts = every.engine.encode_piece, scaffold_parts(vocab)
    # tiktoken panics on nothing.
    return lambda piece: (
        [part for each in merged(piece) for part in parts.get(each, (each,))] if piece else []
    )


def scaffold_parts(vocab: TextVocab) -> dict[int, tuple[int, ...]]:
    """What each unused piece is written with: the fewest pieces in use, the longest first among equals."""
    return {scaffold: _fewest(vocab.pieces[scaffold], vocab) for scaffold in sorted(vocab.unused)}


def _fewest(data: bytes, vocab: TextVocab) -> tuple[int, ...]:
    best: list[tuple[int, ...]] = [()] * (len(data) + 1)
    for start in range(len(data) - 1, -1, -1):
        ends = range(min(len(data), start + vocab.longest), start, -1)
        found = [
            (vocab.index[data[start:end]], *best[end])
            for end in ends
            if data[start:end] in vocab.index and (best[end] or end == len(data))
        ]
        best[start] = min(found, key=len, default=())
    if data and not best[0]:
        raise ValueError(f"the pieces in use cannot write {data!r}")
    return best[0]
