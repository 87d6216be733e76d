"""Segmenters over one vocabulary: what each promises, against brute force and against other libraries."""

import math
import time
from collections import Counter
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text import segment, train_bpe, train_library
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretoken_counts import count_pretokens, pooled
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.vocab import TextVocab

from .real_text import trained_and_held_out

TRAINED, HELD_OUT = trained_and_held_out()
CUT = PreTokenizer()
WAYS = {
    "greedy": segment.greedy,
    "right": segment.greedy_from_right,
    "longest": segment.longest_first,
    "fewest": segment.fewest,
}
toy_pieces = st.sets(st.text("abc", min_size=2, max_size=5).map(str.encode), max_size=12).map(sorted)
toy_text = st.text("abc", max_size=12).map(str.encode)


def vocab_of(pieces, scores=()) -> TextVocab:
    return TextVocab(pieces=(*(bytes([byte]) for byte in range(256)), *pieces), scores=tuple(scores))


def every_way(vocab: TextVocab, data: bytes) -> list[list[int]]:
    """All segmentations, by brute force."""
    found = []
    for size in range(len(data)):
        for cuts in combinations(range(1, len(data)), size):
            edges = (0, *cuts, len(data))
            parts = [data[left:right] for left, right in pairwise(edges)]
            if all(part in vocab.index for part in parts):
                found.append([vocab.index[part] for part in parts])
    return found or [[]]


@pytest.fixture(scope="module")
def bpe() -> TextVocab:
    return train_bpe.train(Corpus.of_texts(TRAINED), 1500, specials=["<end>"], progress=False)


@pytest.fixture(scope="module")
def unigram() -> TextVocab:
    return train_library.train(Corpus.of_texts(TRAINED[:20]), 600, model="unigram", progress=False)


@pytest.fixture(scope="module")
def words() -> dict[bytes, int]:
    return pooled(count_pretokens(Corpus.of_texts(HELD_OUT[:12]), CUT, progress=False))


def test_known_segmentations() -> None:
    vocab = vocab_of([b"ab", b"abc", b"cde", b"bcd", b"de"])

    def shown(way, data: bytes) -> list[bytes]:
        return [vocab.pieces[each] for each in way(vocab)(data)]

    assert shown(segment.greedy, b"abcde") == [b"abc", b"de"]
    assert shown(segment.greedy_from_right, b"abcde") == [b"ab", b"cde"]
    assert shown(segment.longest_first, b"xbcdeabc") == [b"x", b"bcd", b"e", b"abc"]
    # Of two shortest ways the one whose last piece is longer.
    assert shown(segment.fewest, b"abcde") == [b"ab", b"cde"]
    for way in WAYS.values():
        assert way(vocab)(b"") == []


@settings(max_examples=150, deadline=None)
@given(toy_pieces, toy_text)
def test_the_fewest_are_the_fewest_that_there_are(pieces, data: bytes) -> None:
    vocab = vocab_of(pieces)
    ways = every_way(vocab, data)
    found = segment.fewest(vocab)(data)
    assert found in ways
    assert len(found) == min(map(len, ways))


def last_widths(vocab: TextVocab, ids) -> list[int]:
    return [len(vocab.pieces[each]) for each in reversed(ids)]


@settings(max_examples=100, deadline=None)
@given(toy_pieces, toy_text)
def test_of_equally_short_ways_the_widest_last_piece_wins(pieces, data: bytes) -> None:
    vocab = vocab_of(pieces)
    ways = every_way(vocab, data)
    shortest = [way for way in ways if len(way) == min(map(len, ways))]
    best = max(shortest, key=lambda way: last_widths(vocab, way))
    assert segment.fewest(vocab)(data) == best


def flota(vocab: TextVocab, data: bytes) -> list[int]:
    """The definition, by recursion."""
    for size in range(len(data), 0, -1):
        for start in range(len(data) - size + 1):
            if (found := vocab.index.get(data[start : start + size])) is not None:
                return [*flota(vocab, data[:start]), found, *flota(vocab, data[start + size :])]
    return []


@settings(max_examples=150, deadline=None)
@given(toy_pieces, st.text("abc", max_size=30).map(str.encode))
def test_longest_first_is_the_recursion_of_its_definition(pieces, data: bytes) -> None:
    vocab = vocab_of(pieces)
    assert segment.longest_first(vocab)(data) == flota(vocab, data)


@settings(max_examples=100, deadline=None)
@given(toy_pieces, toy_text, st.randoms(use_true_random=False))
def test_the_likeliest_has_the_largest_sum_of_scores(pieces, data: bytes, random) -> None:
    vocab = vocab_of(pieces, [-random.randint(1, 64) / 8 for _ in range(256 + len(pieces))])
    totals = [sum(vocab.scores[each] for each in way) for way in every_way(vocab, data)]
    found = segment.likeliest(vocab)(data)
    assert vocab.decode(found) == data
    assert sum(vocab.scores[each] for each in found) == max(totals)


def test_the_likeliest_is_what_the_library_finds(unigram: TextVocab, words) -> None:
    way, tokenizer = segment.likeliest(unigram), PlainTokenizer.of(unigram, PreTokenizer("none"))
    for word in words:
        assert way(word) == tokenizer.encode_ids(word), word


def test_merges_are_what_the_library_does(bpe: TextVocab, words) -> None:
    way, tokenizer = segment.by_merges(bpe), PlainTokenizer.of(bpe, PreTokenizer("none"))
    assert all(way(word) == tokenizer.encode_ids(word) for word in words)


def test_no_way_over_a_real_vocabulary_is_shorter_than_the_fewest(bpe: TextVocab, words) -> None:
    scored = segment.with_scores(bpe, words, segment.by_merges(bpe))
    ways = {name: way(bpe) for name, way in WAYS.items()}
    ways |= {"merges": segment.by_merges(bpe), "likeliest": segment.likeliest(scored)}
    totals: Counter[str] = Counter()
    for word, count in words.items():
        found = {name: way(word) for name, way in ways.items()}
        assert all(bpe.decode(ids) == word for ids in found.values())
        assert len(found["fewest"]) == min(map(len, found.values()))
        totals.update({name: count * len(ids) for name, ids in found.items()})
    # They differ: five ways out of one vocabulary, not one under five names.
    assert totals["fewest"] < totals["merges"] and totals["fewest"] < totals["greedy"]
    assert len(set(totals.values())) >= 4


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_every_byte_string_comes_back(bpe: TextVocab, data: bytes) -> None:
    scored = segment.with_scores(bpe, {b"the": 3}, segment.greedy(bpe))
    for way in (*(make(bpe) for make in WAYS.values()), segment.by_merges(bpe), segment.likeliest(scored)):
        ids = way(data)
        assert bpe.decode(ids) == data
        assert bpe.specials["<end>"] not in ids


def test_scores_are_the_logarithms_of_frequencies() -> None:
    vocab = vocab_of([b"ab"])
    scored = segment.with_scores(vocab, {b"abc": 5, b"c": 2}, segment.greedy(vocab))
    total = 257 + 5 + 5 + 2
    assert scored.scores[256] == pytest.approx(math.log(6 / total))
    assert scored.scores[ord("c")] == pytest.approx(math.log(8 / total))
    assert sum(math.exp(score) for score in scored.scores) == pytest.approx(1)


def test_a_long_word_takes_linear_time(bpe: TextVocab) -> None:
    scored = segment.with_scores(bpe, {}, segment.greedy(bpe))
    data = b"internationalization" * 5000
    for way in (*(make(bpe) for make in WAYS.values()), segment.likeliest(scored)):
        start = time.process_time()
        assert bpe.decode(way(data)) == data
        assert time.process_time() - start < 3


def test_what_cannot_be_segmented_is_an_error() -> None:
    partial = TextVocab(pieces=(b"a", b"b"))
    for make in (*WAYS.values(), segment.by_merges, segment.likeliest):
        with pytest.raises(ValueError, match="byte 0 is no piece"):
            make(partial)
    with pytest.raises(ValueError, match="no scores"):
        segment.likeliest(vocab_of([]))
    with pytest.raises(ValueError, match="no merges"):
        segment.by_merges(vocab_of([]))
