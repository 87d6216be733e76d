"""Segmenters: several ways from the bytes of a pretoken to ids, all over one vocabulary (Uzan et al. 2024).

Each function takes a vocabulary in which every byte is a piece and returns bytes -> ids, or raises
ValueError.
Time and memory grow with the bytes times the longest piece that matches, never with their square.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace

from .plain import PlainTokenizer
from .pretokenizers import PreTokenizer
from .trie import Trie
from .vocab import TextVocab

Segment = Callable[[bytes], list[int]]

_FAR = (1 << 31) - 1


def by_merges(vocab: TextVocab) -> Segment:
    """As BPE was trained: the merge of the lowest rank, the leftmost first, until none is left."""
    _check(vocab)
    if not vocab.merges:
        raise ValueError("the vocabulary has no merges: segment it greedily, by length or by likelihood")
    if vocab.unused:
        raise ValueError("merges would yield unused ids: segment this vocabulary by the segmenter 'scaffold'")
    merged = PlainTokenizer.of(vocab, PreTokenizer("none")).engine.encode_piece
    return lambda data: list(merged(data)) if data else []  # tiktoken panics on nothing


def greedy(vocab: TextVocab) -> Segment:
    """The longest piece at the start, then the longest at what is left, as WordPiece does."""
    _check(vocab)
    trie = Trie(vocab.index)
    return lambda data: _greedy(trie, data)


def greedy_from_right(vocab: TextVocab) -> Segment:
    """The longest piece at the end, then the longest at the end of what is left."""
    _check(vocab)
    trie = Trie(vocab.index, backwards=True)
    return lambda data: _greedy(trie, data[::-1])[::-1]


def longest_first(vocab: TextVocab) -> Segment:
    """The longest piece anywhere, the leftmost of equals; then the same on both sides of it (FLOTA, Hofmann
    et al. 2022)."""
    _check(vocab)
    trie = Trie(vocab.index)
    return lambda data: _longest_first(trie, data)


def fewest(vocab: TextVocab) -> Segment:
    """As few pieces as can be, by dynamic programming (PathPiece, Schmidt et al. 2024); of several such ways
    the one whose last piece is longest, then the last but one, and so on."""
    _check(vocab)
    trie = Trie(vocab.index)
    return lambda data: _fewest(trie, data)


def likeliest(vocab: TextVocab) -> Segment:
    """The largest sum of scores, by Viterbi's algorithm (Kudo 2018); of several the one whose last piece is
    longest. The vocabulary needs scores: `with_scores` estimates them for any."""
    check_scores(vocab)
    trie = Trie(vocab.index)
    return lambda data: _likeliest(trie, vocab.scores, data)


def with_scores(vocab: TextVocab, counts: Mapping[bytes, int], segment: Segment) -> TextVocab:
    """The same vocabulary with log probabilities, from how often `segment` uses each piece.

    counts  pretokens and how often each occurs, as `pretoken_counts` gives them

    Each piece that text may yield is counted once more than it occurs, so that none is impossible; ids that
    text never yields share the least score.
    """
    used = [1] * len(vocab)
    for word, count in counts.items():
        for each in segment(word):
            used[each] += count
    known = vocab.index.values()
    total = math.log(sum(used[each] for each in known))
    scores = [-total] * len(vocab)
    for each in known:
        scores[each] = math.log(used[each]) - total
    return replace(vocab, scores=tuple(scores))


def check_scores(vocab: TextVocab) -> None:
    """ValueError unless the vocabulary covers all bytes and has scores."""
    _check(vocab)
    if not vocab.scores:
        raise ValueError("the vocabulary has no scores: estimate them by `with_scores`")


def _check(vocab: TextVocab) -> None:
    if not vocab.covers_bytes:
        missing = next(byte for byte in range(256) if bytes([byte]) not in vocab.index)
        raise ValueError(f"byte {missing} is no piece: a segmenter needs all 256")


def _greedy(trie: Trie, data: bytes) -> list[int]:
    found: list[int] = []
    start, size = 0, len(data)
    while start < size:
        start, piece = trie.longest(data, start, size)
        found.append(piece)
    return found


def _longest_first(trie: Trie, data: bytes) -> list[int]:
    size = len(data)
    # Places by the length of the longest piece that starts there; lengths are visited from the longest down.
    # A place whose piece runs into one that is taken falls to a shorter length, never to a longer.
    by_length: dict[int, array[int]] = {}
    for start in range(size):
        end, _ = trie.longest(data, start, size)
        by_length.setdefault(end - start, array("l")).append(start)
    taken = bytearray(size)
    chosen = array("l", bytes(array("l").itemsize * size))
    for length in range(max(by_length, default=0), 0, -1):
        for start in sorted(by_length.pop(length, ())):
            if taken[start]:
                continue
            wall = taken.find(1, start, start + length)
            if wall < 0:
                taken[start : start + length] = b"\1" * length
                chosen[start] = length
            else:
                end, _ = trie.longest(data, start, wall)
                by_length.setdefault(end - start, array("l")).append(start)
    found: list[int] = []
    start = 0
    while start < size:
        start, piece = trie.longest(data, start, start + chosen[start])
        found.append(piece)
    return found


def _fewest(trie: Trie, data: bytes) -> list[int]:
    size, steps, ids = len(data), trie.steps, trie.ids
    counts = array("i", [_FAR]) * (size + 1)
    widths = array("i", [0]) * (size + 1)
    counts[0] = 0
    for start in range(size):
        count, node = counts[start] + 1, 0
        for place in range(start, size):
            node = steps.get(node << 8 | data[place], -1)
            if node < 0:
                break
            # Starts come in order: the first of equals is the widest.
            if ids[node] >= 0 and count < counts[place + 1]:
                counts[place + 1], widths[place + 1] = count, place + 1 - start
    return walk_back(trie, data, widths)


def _likeliest(trie: Trie, scores: tuple[float, ...], data: bytes) -> list[int]:
    size, steps, ids = len(data), trie.steps, trie.ids
    best = array("d", [-math.inf]) * (size + 1)
    widths = array("i", [0]) * (size + 1)
    best[0] = 0.0
    for start in range(size):
        before, node = best[start], 0
        for place in range(start, size):
            node = steps.get(node << 8 | data[place], -1)
            if node < 0:
                break
            if (piece := ids[node]) >= 0 and (score := before + scores[piece]) > best[place + 1]:
                best[place + 1], widths[place + 1] = score, place + 1 - start
    return walk_back(trie, data, widths)


def walk_back(trie: Trie, data: bytes, widths: array[int]) -> list[int]:
    """The ids of a way through `data`: a piece that ends at e is widths[e] long."""
    found: list[int] = []
    end = len(data)
    while end:
        start = end - widths[end]
        found.append(trie.longest(data, start, end)[1])
        end = start
    return found[::-1]
