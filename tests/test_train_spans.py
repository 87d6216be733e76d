"""ByteSpan and its n-grams; Less-is-Better."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text import segment, train_bpe, train_byte_span, train_less_is_better
from tokenzoo.text.byte_ngrams import ByteNgrams
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.less_is_better import choose, less_is_better_segmenter
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretoken_counts import count_pretokens, pooled
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.train_byte_span import spans
from tokenzoo.text.train_pathpiece import vocab_of_pieces
from tokenzoo.text.vocab import TextVocab

from .real_text import trained_and_held_out

TRAINED, HELD_OUT = trained_and_held_out()
ENGLISH = Corpus.of_texts(TRAINED)
# Without the indents and tables of its pages, 100 kB.
PROSE = [" ".join(text.split()) for text in TRAINED[::3]]


# N-grams


@pytest.fixture(scope="module")
def words() -> dict[bytes, int]:
    return pooled(count_pretokens(Corpus.of_texts(TRAINED[:12]), PreTokenizer(), progress=False))


def test_ngrams_are_witten_and_bells() -> None:
    model = ByteNgrams({b"ab": 2, b"ac": 1}, order=0)
    uniform = 1 / 256
    # Six bytes, three kinds; the start of a word was a, three times of three.
    everywhere = (3 + 3 * uniform) / (6 + 3)
    assert model.surprisals(b"a")[0] == pytest.approx(-math.log2((3 + everywhere) / (3 + 1)))
    assert model.surprisals(b"ab")[1] == pytest.approx(-math.log2((2 + 3 * uniform) / (6 + 3)))


@pytest.mark.parametrize("order", [0, 2, 5])
def test_both_ways_to_ask_for_probabilities_agree(words, order: int) -> None:
    model = ByteNgrams(words, order=order)
    for word in (b" combination", b"\xff\xfe unseen", b"x"):
        chances = [model.distribution(word[:place]) for place in range(len(word))]
        assert np.allclose([chance.sum() for chance in chances], 1)
        told = [-math.log2(chance[byte]) for chance, byte in zip(chances, word, strict=True)]
        assert model.surprisals(word) == pytest.approx(told)
        entropies = [-(chance * np.log2(chance)).sum() for chance in chances]
        assert model.entropies(word) == pytest.approx(entropies)


def test_longer_contexts_foresee_more(words) -> None:
    bits = []
    for order in (0, 1, 3):
        model = ByteNgrams(words, order=order)
        bits.append(sum(count * sum(model.surprisals(word)) for word, count in words.items()))
    assert bits[0] > bits[1] > bits[2]


# ByteSpan


def test_spans_of_hand_made_signals() -> None:
    signal = [5.0, 3.0, 4.0, 1.0, 2.0, 0.5]
    assert spans(b"abcdef", signal, "global", 3.5) == [b"ab", b"cdef"]
    assert spans(b"abcdef", signal, "monotonic", 0) == [b"ab", b"cd", b"ef"]
    assert spans(b"abcdef", signal, "combined", 2.5) == [b"ab", b"cdef"]
    # The space stays with what it stands before; nothing else is above the threshold.
    assert spans(b" ab", [1.0, 9.0, 9.0], "global", 5) == [b" a", b"b"]
    assert spans(b"", [], "global", 1) == []
    assert spans(b"abc", [1.0] * 3, "global", float("inf")) == [b"abc"]


@given(word=st.binary(max_size=20), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_spans_joined_are_the_word(word: bytes, seed: int) -> None:
    signal = np.random.default_rng(seed).random(len(word)).tolist()
    for rule in ("global", "monotonic", "combined"):
        assert b"".join(spans(word, signal, rule, 0.4)) == word


def test_a_constant_signal_makes_whole_words_of_it() -> None:
    made = train_byte_span.train(
        Corpus.of_texts(["one two two"] * 30), 260, rule="global", percentile=100,
        signal=lambda word: [-float(len(word) > 9)] * len(word), progress=False,
    )  # fmt: skip
    # Nothing lies under the only value there is: every byte but that after a space stands alone.
    assert made.pieces[256:] == (b" t",)


def boundaries(vocab: TextVocab, way, words) -> tuple[float, float]:
    """Precision and recall of the place where a stem ends and a suffix begins."""
    encode = way(vocab)
    hits = told = 0
    for stem, suffix in words:
        ends, place = set(), 0
        for each in encode(f" {stem}{suffix}".encode()):
            place += len(vocab.pieces[each])
            ends.add(place)
        ends -= {1, 1 + len(stem) + len(suffix)}
        hits += 1 + len(stem) in ends
        told += len(ends)
    return hits / told, hits / len(words)


def test_its_boundaries_are_nearer_to_morphemes_than_those_of_bpe() -> None:
    known = Counter(re.findall("[a-z]{4,}", "\n".join(TRAINED)))
    endings = ("ing", "ed", "s", "ly", "ness", "ment", "able", "er")
    pairs = ((word[: -len(end)], end) for word in known for end in endings if word.endswith(end))
    inflected = [(stem, end) for stem, end in pairs if known[stem] > 2]
    made = train_byte_span.train(ENGLISH, 1000, progress=False)
    bpe = train_bpe.train(ENGLISH, len(made), progress=False)
    precision, recall = boundaries(made, segment.greedy, inflected)
    bpe_precision, bpe_recall = boundaries(bpe, segment.by_merges, inflected)
    assert len(inflected) > 200
    assert precision > bpe_precision and recall > bpe_recall


def test_training_by_spans_is_deterministic_and_names_mistakes() -> None:
    small = Corpus.of_texts(TRAINED[:10])
    made = [train_byte_span.train(small, 400, specials=["<end>"], progress=False) for _ in range(2)]
    assert made[0] == made[1] and made[0].specials == {"<end>": len(made[0]) - 1}
    with pytest.raises(ValueError, match="rule 'local'"):
        train_byte_span.train(small, 400, rule="local", progress=False)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="vocab_size=9"):
        train_byte_span.train(small, 9, progress=False)


# Less-is-Better


def test_the_second_longest_is_read_where_it_reads_on_better() -> None:
    ranks = {b"therea": 0, b"there": 1, b"area": 2, b"the": 3}
    # "therea" would leave "r", "e" and "a" unknown; "there" reads on with "area".
    assert choose(b"therearea", 0, ranks, 6).chunk == b"there"
    assert choose(b"therea", 0, ranks, 6).chunk == b"therea"
    assert choose(b"xyz", 0, ranks, 6).chunk == b"x"


@pytest.fixture(scope="module")
def less() -> TextVocab:
    return train_less_is_better.train(Corpus.of_texts(PROSE), 3000, progress=False)


def test_it_takes_fewer_tokens_than_bpe_and_types_and_tokens_together_too(less: TextVocab) -> None:
    assert len(less) == 3000 and max(map(len, less.pieces)) <= 12
    bpe = train_bpe.train(Corpus.of_texts(PROSE), 3000, progress=False)
    read, plain = less_is_better_segmenter(less), PlainTokenizer.of(bpe)
    text = "\n".join(PROSE)
    ours, theirs = read(text.encode()), plain.encode_ids(text)
    assert less.decode(ours) == text.encode()
    assert len(ours) + len(set(ours)) < len(theirs) + len(set(theirs))
    assert len(ours) <= len(segment.greedy(less)(text.encode()))


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=40))
def test_every_byte_string_comes_back(less: TextVocab, data: bytes) -> None:
    assert less.decode(less_is_better_segmenter(less)(data)) == data


def test_a_seed_decides_and_an_empty_corpus_is_an_error() -> None:
    small = Corpus.of_texts(TRAINED[:6])
    made = [train_less_is_better.train(small, 600, seed=seed, progress=False) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    with pytest.raises(ValueError, match="empty"):
        train_less_is_better.train(Corpus.of_texts([""]), 600, progress=False)


def test_pieces_come_in_the_order_given() -> None:
    made = vocab_of_pieces([b"zz", b"aa"], ["<s>"])
    assert made.pieces[256:] == (b"zz", b"aa", b"<s>") and made.specials == {"<s>": 258}
