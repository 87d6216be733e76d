"""Pieces of several words, and a vocabulary that takes in a task."""

import os
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text import segment, task_vocab, train_bpe, train_library, train_multi_word
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.multi_word import WORDS, join, multi_word_segmenter, several_words
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.vocab import TextVocab

from .real_text import parallel, trained_and_held_out

TRAINED, HELD_OUT = trained_and_held_out()
ENGLISH = Corpus.of_texts(TRAINED[::3])


@pytest.fixture(scope="module")
def base() -> TextVocab:
    return train_bpe.train(ENGLISH, 1000, specials=["<end>"], progress=False)


@pytest.fixture(scope="module")
def multi(base: TextVocab) -> TextVocab:
    return train_multi_word.train(ENGLISH, 1300, runs=300, base=base, progress=False)


def test_the_most_frequent_runs_are_added_behind_the_base(base: TextVocab, multi: TextVocab) -> None:
    assert len(multi) == 1300 and multi.pieces[:1000] == base.pieces and multi.merges == base.merges
    counts: Counter[str] = Counter()
    for text in TRAINED[::3]:
        words = WORDS.pieces(text)
        for size in (2, 3):
            grams = zip(*(words[start:] for start in range(size)), strict=False)
            counts.update("".join(gram) for gram in grams if all(word[-1].isalpha() for word in gram))
    least = min(counts[piece.decode()] for piece in multi.pieces[1000:])
    assert sum(count > least for count in counts.values()) <= 300
    assert set(several_words(multi)) == set(multi.pieces[1000:])


def test_no_text_takes_more_tokens_and_real_text_takes_fewer(base: TextVocab, multi: TextVocab) -> None:
    way, plain = multi_word_segmenter(multi), PlainTokenizer.of(base, WORDS)
    before = after = 0
    for text in HELD_OUT:
        ids, words = way(text.encode()), plain.encode_ids(text)
        assert multi.decode(ids) == text.encode() and len(ids) <= len(words)
        before, after = before + len(words), after + len(ids)
    assert after < 0.98 * before
    # Without the runs it is the base.
    assert multi_word_segmenter(base)(HELD_OUT[0].encode()) == plain.encode_ids(HELD_OUT[0])


@settings(max_examples=80, deadline=None)
@given(data=st.one_of(st.binary(max_size=40), st.text("of the  \n", max_size=40).map(str.encode)))
def test_every_byte_string_comes_back(multi: TextVocab, data: bytes) -> None:
    assert multi.decode(multi_word_segmenter(multi)(data)) == data


def test_the_longest_run_wins_and_only_whole_words_are_joined() -> None:
    known = {b" of the": 1, b" of the same": 2, b" the same": 3}
    assert join([b" of", b" the", b" same", b" kind"], known) == [2, b" kind"]
    assert join([b" of", b" the", b" sameness"], known) == [1, b" sameness"]
    assert join([b" of", b" there"], known) == [b" of", b" there"]


def test_training_makes_its_own_base() -> None:
    small = Corpus.of_texts(TRAINED[:5])
    made = train_multi_word.train(small, 420, runs=50, progress=False)
    assert len(made) == 420 and len(several_words(made)) == 50
    assert made == train_multi_word.train(small, 420, runs=50, progress=False)
    with pytest.raises(ValueError, match="the base has 420 pieces"):
        train_multi_word.train(small, 450, runs=10, base=made, progress=False)


# Task-adaptive vocabularies


@pytest.fixture(scope="module")
def english() -> TextVocab:
    return train_library.train(
        Corpus.of_texts(TRAINED[:25]), 700, model="unigram", specials=["<end>"], progress=False
    )


def test_a_task_shortens_its_own_text_and_keeps_every_id(english: TextVocab, tmp_path: os.PathLike) -> None:
    lines = parallel()["de"]
    task = Corpus.of_texts(lines[::2])
    merged = task_vocab.train(task, 1000, base=english, progress=False)
    assert len(merged) == 1000
    assert merged.pieces[:700] == english.pieces and merged.scores[:700] == english.scores
    low, high = min(merged.scores[:700]), max(merged.scores[:700])
    assert all(low <= score <= high for score in merged.scores)
    plain, adapted = PlainTokenizer.of(english, WORDS), PlainTokenizer.of(merged, WORDS)
    before = sum(plain.count(line) for line in lines[1::2])
    after = sum(adapted.count(line) for line in lines[1::2])
    assert after < 0.75 * before
    assert all(adapted.decode_bytes(adapted.encode_ids(line)) == line.encode() for line in lines)
    # What the library finds is what our own segmenter finds.
    likeliest = segment.likeliest(merged)
    words = [word.encode() for word in WORDS.pieces(lines[1])]
    assert [each for word in words for each in likeliest(word)] == adapted.encode_ids(lines[1])
    plain.save_pretrained(tmp_path)
    assert task_vocab.train(task, 1000, base=tmp_path, progress=False) == merged


def test_merging_needs_scores_and_room(english: TextVocab, base: TextVocab) -> None:
    assert task_vocab.merge(english, english) == english
    with pytest.raises(ValueError, match="the task has no scores"):
        task_vocab.merge(english, base)
    with pytest.raises(ValueError, match="the base has 700 pieces already"):
        task_vocab.train(ENGLISH, 600, base=english, progress=False)
