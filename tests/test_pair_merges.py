"""Merges against the definition, written out, and against the trainer of `tokenizers`."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text.byte_letters import LETTERS, letters_of
from tokenzoo.text.pair_merges import PairMerges
from tokenzoo.text.pretokenizers import PreTokenizer

from .real_text import english

CORPORA = st.dictionaries(
    st.binary(min_size=0, max_size=12).map(lambda b: bytes(97 + x % 3 for x in b)),
    st.integers(1, 5),
    min_size=1,
    max_size=12,
)
ORDERS = {
    "ids": lambda pieces, pair: tuple(-each for each in pair),
    "text": lambda pieces, pair: (pieces[pair[0]], pieces[pair[1]]),
    "short": lambda pieces, pair: (
        -len(pieces[pair[0]] + pieces[pair[1]]),
        tuple(-byte for byte in pieces[pair[0]] + pieces[pair[1]]),
    ),
}


def byte_pieces() -> list[bytes]:
    return [bytes([byte]) for byte in range(256)]


def pairs_of(words: dict[tuple[int, ...], int]) -> Counter[tuple[int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def joined(word: tuple[int, ...], pair: tuple[int, int], product: int) -> tuple[int, ...]:
    out: list[int] = []
    place = 0
    while place < len(word):
        if word[place : place + 2] == pair:
            out.append(product)
            place += 2
        else:
            out.append(word[place])
            place += 1
    return tuple(out)


def by_definition(corpus: dict[bytes, int], tie: str, steps: int, least: int):
    """Count all pairs anew at every step: the merges, and the words in the end."""
    words = [(tuple(word), count) for word, count in corpus.items()]
    pieces, merges = byte_pieces(), []
    for _ in range(steps):
        counts: Counter[tuple[int, int]] = Counter()
        for word, count in words:
            counts.update({pair: times * count for pair, times in pairs_of({word: 1}).items()})
        if not counts or max(counts.values()) < least:
            break
        pair = max(
            counts, key=lambda pair: (counts[pair], ORDERS[tie](pieces, pair), tuple(-x for x in pair))
        )
        product = find_or_add(pieces, pieces[pair[0]] + pieces[pair[1]])
        merges.append((*pair, product))
        words = [(joined(word, pair, product), count) for word, count in words]
    return merges, [word for word, _ in words if word]


def find_or_add(pieces: list[bytes], piece: bytes) -> int:
    if piece not in pieces:
        pieces.append(piece)
    return pieces.index(piece)


def grown(state: PairMerges, pieces: list[bytes], steps: int) -> list[tuple[int, int, int]]:
    merges = []
    while len(merges) < steps and (pair := state.best()) is not None:
        product = find_or_add(pieces, pieces[pair.left] + pieces[pair.right])
        state.merge(pair.left, pair.right, product)
        merges.append((pair.left, pair.right, product))
    return merges


@pytest.mark.parametrize("tie", ["ids", "text", "short"])
@settings(max_examples=60, deadline=None)
@given(corpus=CORPORA, least=st.integers(1, 3))
def test_the_merges_are_those_of_the_definition(tie, corpus: dict[bytes, int], least: int) -> None:
    pieces = byte_pieces()
    state = PairMerges.of_words(corpus, pieces, tie=tie, min_frequency=least)
    merges, words = by_definition(corpus, tie, steps=15, least=least)
    assert grown(state, pieces, 15) == merges
    assert [tuple(word.tolist()) for word in state.words()] == words
    counts = [count for word, count in corpus.items() if word]
    assert state.tokens == sum(len(word) * count for word, count in zip(words, counts, strict=True))
    expected: Counter[int] = Counter()
    for word, count in zip(words, counts, strict=True):
        expected.update({each: times * count for each, times in Counter(word).items()})
    found = state.frequencies(len(pieces))
    assert {each: int(found[each]) for each in np.flatnonzero(found)} == expected


@pytest.mark.parametrize("least", [0, 2])
def test_the_merges_are_those_of_tokenizers(least: int) -> None:
    import tokenizers as library

    cut = PreTokenizer("gpt2")
    definition = {"version": "1.0", "added_tokens": [], "pre_tokenizer": cut.to_json()}
    definition["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    tokenizer = library.Tokenizer.from_str(json.dumps(definition))
    trainer = library.trainers.BpeTrainer(
        vocab_size=3000, min_frequency=least, initial_alphabet=list(LETTERS), show_progress=False
    )
    tokenizer.train_from_iterator(english(), trainer)
    expected = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    # The library numbers the bytes by their letters, and of equal pairs takes the smallest numbers.
    order = sorted(range(256), key=LETTERS.__getitem__)
    pieces = [bytes([byte]) for byte in order]
    counts = Counter(piece.encode() for text in english() for piece in cut.pieces(text))
    ids = np.argsort(order)[np.frombuffer(b"".join(counts), np.uint8)]
    lengths = np.array([len(word) for word in counts])
    state = PairMerges(ids, lengths, np.array(list(counts.values())), pieces, min_frequency=least)
    merges = grown(state, pieces, 3000 - 256)
    assert len(merges) == 2744
    assert [(letters_of(pieces[left]), letters_of(pieces[right])) for left, right, _ in merges] == expected


def test_a_run_of_one_byte_counts_every_pair_and_is_joined_from_the_left() -> None:
    pieces = [*byte_pieces(), b"aa"]
    state = PairMerges.of_words({b"aaaaa": 2}, pieces)
    assert state.best() is not None and state.best().count == 8
    assert state.merge(97, 97, 256) == 4
    assert [word.tolist() for word in state.words()] == [[256, 256, 97]]
    assert (state.count(256, 256), state.count(256, 97), state.tokens) == (2, 2, 6)


def test_ranked_pairs_come_in_order_and_change_nothing() -> None:
    words = {b"abab": 3, b"bc": 5, b"cd": 1}
    state = PairMerges.of_words(words, byte_pieces())
    ranked = state.ranked(3)
    assert [(chr(p.left) + chr(p.right), p.count) for p in ranked] == [("ab", 6), ("bc", 5), ("ba", 3)]
    assert state.ranked(3) == ranked and state.best() == ranked[0]


def test_what_is_refused_or_rare_is_never_best() -> None:
    words = {b"ab": 9, b"cd": 3, b"ef": 1}
    state = PairMerges.of_words(words, byte_pieces(), min_frequency=2, allows=lambda piece: piece != b"ab")
    pair = state.best()
    assert pair is not None and (pair.left, pair.right, pair.count) == (ord("c"), ord("d"), 3)
    state.merge(pair.left, pair.right, 256)
    assert state.best() is None


def test_one_byte_over_and_over_makes_no_endless_pieces() -> None:
    pieces = byte_pieces()
    grown(PairMerges.of_words({b"a" * 100_000: 1}, pieces), pieces, 100)
    assert max(map(len, pieces)) == 1024


def test_a_piece_made_in_two_ways_is_counted_whole() -> None:
    pieces = [*byte_pieces(), b"ab", b"bc", b"abc"]
    state = PairMerges.of_words({b"abcx": 2, b"ybcx": 3, b"zabc": 1}, pieces, complete=True)
    state.merge(ord("a"), ord("b"), 256)
    state.merge(ord("b"), ord("c"), 257)
    state.merge(256, ord("c"), 258)
    assert state.count(258, ord("x")) == 2
    other = PairMerges.of_words({b"abcx": 2, b"dabcx": 5}, pieces, complete=True)
    for left, right, product in ((ord("d"), ord("a"), 259), (ord("a"), ord("b"), 256), (256, ord("c"), 258)):
        other.merge(left, right, product)
    assert other.count(258, ord("x")) == 2


def test_a_tie_rule_that_is_none() -> None:
    with pytest.raises(ValueError, match="tie rule 'first': expected one of ids, short, text"):
        PairMerges.of_words({b"ab": 1}, byte_pieces(), tie="first")
