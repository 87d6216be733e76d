"""PathPiece's trainer: what pieces are worth, by brute force, and fewer tokens than BPE at the same size."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text import segment, train_bpe, train_pathpiece
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.pretoken_counts import count_pretokens, pooled
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.train_pathpiece import vocab_of_pieces
from tokenzoo.text.vocab import TextVocab

from .real_text import trained_and_held_out

TRAINED, HELD_OUT = trained_and_held_out()
ENGLISH = Corpus.of_texts(TRAINED[::2])


def tokens(vocab: TextVocab, way, words: dict[bytes, int]) -> int:
    encode = way(vocab)
    return sum(count * len(encode(word)) for word, count in words.items())


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.text("ab", min_size=2, max_size=4).map(str.encode), min_size=1, max_size=8).map(sorted),
    st.text("abc", min_size=1, max_size=10).map(str.encode),
)
def test_the_loss_of_a_piece_is_what_the_word_grows_by(pieces, word: bytes) -> None:
    vocab = vocab_of_pieces(pieces)
    pruning = train_pathpiece._Pruning(pieces, {word: 3})
    used = segment.fewest(vocab)(word)
    for piece in pieces:
        number = vocab.index[piece]
        if used.count(number) != 1 or sum(word.startswith(piece, place) for place in range(len(word))) != 1:
            continue  # of a piece that occurs twice the loss is an estimate
        without = vocab_of_pieces([each for each in pieces if each != piece])
        grown = len(segment.fewest(without)(word)) - len(used)
        assert pruning._losses[number] == 3 * grown


@pytest.fixture(scope="module")
def pathpiece() -> TextVocab:
    return train_pathpiece.train(ENGLISH, 1500, specials=["<end>"], progress=False)


@pytest.fixture(scope="module")
def bpe() -> TextVocab:
    return train_bpe.train(ENGLISH, 1500, specials=["<end>"], progress=False)


def test_it_takes_fewer_tokens_than_bpe_at_the_same_size(pathpiece: TextVocab, bpe: TextVocab) -> None:
    assert len(pathpiece) == len(bpe) == 1500 and pathpiece.specials == {"<end>": 1499}
    assert max(map(len, pathpiece.index)) <= 16
    trained = pooled(count_pretokens(ENGLISH, PreTokenizer(), progress=False))
    held_out = pooled(count_pretokens(Corpus.of_texts(HELD_OUT), PreTokenizer(), progress=False))
    for words in (trained, held_out):
        assert tokens(pathpiece, segment.fewest, words) < tokens(bpe, segment.by_merges, words)
        assert tokens(bpe, segment.fewest, words) < tokens(bpe, segment.by_merges, words)
    assert tokens(pathpiece, segment.fewest, trained) < 0.99 * tokens(bpe, segment.fewest, trained)


def test_it_is_deterministic_and_takes_another_beginning(bpe: TextVocab) -> None:
    small = Corpus.of_texts(TRAINED[:8])
    made = [train_pathpiece.train(small, 400, start=bpe, progress=False) for _ in range(2)]
    assert made[0] == made[1]
    assert set(made[0].pieces) < set(bpe.pieces)


def test_mistakes_are_named(bpe: TextVocab) -> None:
    with pytest.raises(ValueError, match=r"vocab_size=100: expected 256"):
        train_pathpiece.train(ENGLISH, 100, start=bpe, progress=False)
    with pytest.raises(ValueError, match="share=0"):
        train_pathpiece.train(ENGLISH, 300, share=0, progress=False)
    with pytest.raises(ValueError, match="empty"):
        train_pathpiece.train(Corpus.of_texts([""]), 300, progress=False)
