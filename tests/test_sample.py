"""Samplers of text: exact probabilities, seeds, and that no byte changes."""

import math
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text import segment, train_bpe
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.sample import BpeDropout, FewestSampler, StochasTok, UnigramSampler, encode_sampled
from tokenzoo.text.vocab import TextVocab

from .real_text import trained_and_held_out

BYTES = tuple(bytes([byte]) for byte in range(256))
DRAWS = 6000


def toy(scores: bool = False) -> TextVocab:
    """a b c ab bc abc, merges ab, bc, ab+c, a+bc."""
    pieces = (*BYTES, b"ab", b"bc", b"abc")
    a, b, c = b"abc"
    return TextVocab(
        pieces=pieces,
        merges=((a, b, 256), (b, c, 257), (256, c, 258), (a, 257, 258)),
        scores=tuple(-len(piece) / 2 - (piece == b"bc") for piece in pieces) if scores else (),
    )


def frequencies(sample, data: bytes) -> dict[tuple[int, ...], float]:
    counts = Counter(tuple(sample(data)) for _ in range(DRAWS))
    return {ids: count / DRAWS for ids, count in counts.items()}


def assert_matches(found, expected) -> None:
    """Every frequency within four standard deviations of its probability."""
    assert set(found) <= set(expected)
    assert sum(expected.values()) == pytest.approx(1)
    for ids, probability in expected.items():
        spread = math.sqrt(probability * (1 - probability) / DRAWS)
        assert found.get(ids, 0) == pytest.approx(probability, abs=4 * spread + 1e-9), ids


def dropout_distribution(vocab: TextVocab, ids: tuple[int, ...], dropout: float) -> dict:
    """By the definition: of the possible merges, best first, the first that is not dropped is made."""
    possible = sorted(
        (*vocab.ranks[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in vocab.ranks
    )
    possible = [(rank, place, product) for rank, product, place in possible]
    found: dict[tuple[int, ...], float] = defaultdict(float)
    passed = 1.0
    for _, place, product in sorted(possible):
        joined = (*ids[:place], product, *ids[place + 2 :])
        for after, probability in dropout_distribution(vocab, joined, dropout).items():
            found[after] += passed * (1 - dropout) * probability
        passed *= dropout
    found[ids] += passed
    return found


@pytest.mark.parametrize("data", [b"abc", b"ababc", b"bcabab"])
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropout_has_the_probabilities_of_its_definition(data: bytes, dropout: float) -> None:
    vocab = toy()
    sample = BpeDropout(vocab, np.random.default_rng(0), dropout=dropout)
    assert_matches(frequencies(sample, data), dropout_distribution(vocab, tuple(data), dropout))


@pytest.fixture(scope="module")
def bpe() -> TextVocab:
    return train_bpe.train(
        Corpus.of_texts(trained_and_held_out()[0][:20]), 800, specials=["<end>"], progress=False
    )


def test_without_dropout_it_is_bpe_and_with_nothing_else_it_is_bytes(bpe: TextVocab) -> None:
    text = trained_and_held_out()[1][0][:3000]
    merged = segment.by_merges(bpe)
    never = BpeDropout(bpe, np.random.default_rng(0), dropout=0)
    always = BpeDropout(bpe, np.random.default_rng(0), dropout=1)
    for piece in PreTokenizer().pieces(text):
        assert never(piece.encode()) == merged(piece.encode())
        assert always(piece.encode()) == list(piece.encode())
    sometimes = BpeDropout(bpe, np.random.default_rng(0), dropout=0.3)
    assert len(merged(text.encode())) < len(sometimes(text.encode())) < len(text.encode())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_unigram_sampling_has_the_probabilities_of_the_model(alpha: float) -> None:
    vocab = toy(scores=True)
    a, b, c = b"abc"
    ways = [(a, b, c), (256, c), (a, 257), (258,)]
    weights = [math.exp(alpha * sum(vocab.scores[each] for each in way)) for way in ways]
    expected = {way: weight / sum(weights) for way, weight in zip(ways, weights, strict=True)}
    assert_matches(
        frequencies(UnigramSampler(vocab, np.random.default_rng(1), alpha=alpha), b"abc"), expected
    )


def test_a_large_alpha_is_the_likeliest(bpe: TextVocab) -> None:
    scored = segment.with_scores(bpe, {b" the": 9, b" of": 5, b"ation": 2}, segment.greedy(bpe))
    sample, best = UnigramSampler(scored, np.random.default_rng(0), alpha=1e5), segment.likeliest(scored)
    for word in (b" the", b" otherwise", b" combination"):
        total = sum(scored.scores[each] for each in sample(word))
        assert total == pytest.approx(sum(scored.scores[each] for each in best(word)), abs=1e-3)


def test_fewest_by_chance_is_as_short_and_visits_all_equals() -> None:
    vocab = TextVocab(pieces=(*BYTES, b"ab", b"bc"))
    a, c = b"ac"
    found = frequencies(FewestSampler(vocab, np.random.default_rng(2)), b"abc")
    assert_matches(found, {(256, c): 0.5, (a, 257): 0.5})


def test_stochastok_splits_uniformly() -> None:
    vocab = toy()
    a, b, c = b"abc"
    split = StochasTok(vocab, np.random.default_rng(3), rate=1)
    assert split.splits(258) == [(a, 257), (256, c)] and split.splits(a) == []
    found = frequencies(lambda data: split([vocab.index[data]]), b"abc")
    assert_matches(found, {(a, 257): 0.5, (256, c): 0.5})
    # Two strikes on one token: the second hits either half, and only a half of two bytes can break.
    twice = StochasTok(vocab, np.random.default_rng(3), rate=2)
    found = frequencies(lambda data: twice([vocab.index[data]]), b"abc")
    assert_matches(found, {(a, 257): 0.25, (256, c): 0.25, (a, b, c): 0.5})


def test_stochastok_at_rate_zero_is_the_identity_and_never_splits_specials(bpe: TextVocab) -> None:
    ids = [*segment.by_merges(bpe)(b" the combination of arguments"), bpe.specials["<end>"]]
    assert StochasTok(bpe, np.random.default_rng(0), rate=0)(ids) == ids
    found = StochasTok(bpe, np.random.default_rng(0), rate=20)(ids)
    assert found[-1] == bpe.specials["<end>"] and bpe.decode(found) == bpe.decode(ids)
    assert len(ids) < len(found)
    some = StochasTok(bpe, np.random.default_rng(0), rate=0.5)(ids)
    assert len(some) - len(ids) <= 0.5 * len(ids)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=30), seed=st.integers(0, 2**31))
def test_no_sampler_changes_a_byte_and_seeds_repeat(bpe: TextVocab, data: bytes, seed: int) -> None:
    scored = segment.with_scores(bpe, {}, segment.greedy(bpe))
    for make in (
        lambda generator: BpeDropout(bpe, generator, dropout=0.4),
        lambda generator: UnigramSampler(scored, generator, alpha=0.3),
        lambda generator: FewestSampler(bpe, generator),
    ):
        ids = make(np.random.default_rng(seed))(data)
        assert bpe.decode(ids) == data
        assert make(np.random.default_rng(seed))(data) == ids


def test_generators_of_torch_serve_too(bpe: TextVocab) -> None:
    text = "The combination of arguments, otherwise. " * 4

    def ids(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return encode_sampled(text, PreTokenizer(), BpeDropout(bpe, generator, dropout=0.5))

    assert ids(0) == ids(0) != ids(1)
    assert bpe.decode(ids(1)) == text.encode()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"dropout=1\.5"):
        BpeDropout(toy(), np.random.default_rng(0), dropout=1.5)
    with pytest.raises(ValueError, match="needs a vocabulary of merges"):
        BpeDropout(TextVocab(pieces=BYTES), np.random.default_rng(0))
    with pytest.raises(ValueError, match="alpha=-1"):
        UnigramSampler(toy(scores=True), np.random.default_rng(0), alpha=-1)
    with pytest.raises(TypeError, match="expected numpy's or torch's"):
        BpeDropout(toy(), 7)  # pyright: ignore[reportArgumentType]
