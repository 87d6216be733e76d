"""Merges and ranks: where ranks are given for merges they encode every text alike, found out by trying."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text.ranks import MAX_PIECE_BYTES, Ranks, merges_of, ranks_of, split_of
from tokenzoo.text.vocab import TextVocab

ALPHABET = [bytes([byte]) for byte in range(256)]
# Every text of up to six letters: what goes wrong goes wrong in few.
WORDS = [bytes(word) for size in range(1, 7) for word in product(b"abc", repeat=size)]


def by_merges(word: bytes, merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The merge listed first, leftmost first, until none is left."""
    parts = [word[place : place + 1] for place in range(len(word))]
    order = {pair: place for place, pair in reversed(list(enumerate(merges)))}
    while found := [(order[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in order]:
        _, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def by_ranks(word: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """tiktoken: a whole word that has a rank, else any two neighbours whose bytes have the lowest rank."""
    if word in ranks:
        return [word]
    parts = [word[place : place + 1] for place in range(len(word))]
    while found := [
        (ranks[pair], place)
        for place, pair in enumerate(left + right for left, right in pairwise(parts))
        if pair in ranks
    ]:
        _, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


@st.composite
def merge_lists(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Merges of what is there already, some of them twice over by other pairs, in a shuffled order or not."""
    pieces = [b"a", b"b", b"c"]
    merges: list[tuple[bytes, bytes]] = []
    for _ in range(draw(st.integers(1, 8))):
        pair = (draw(st.sampled_from(pieces)), draw(st.sampled_from(pieces)))
        if len(pair[0] + pair[1]) <= 6 and pair not in merges:
            merges.append(pair)
            pieces.append(pair[0] + pair[1])
    return draw(st.permutations(merges)) if draw(st.booleans()) else merges


def vocab_of(merges: list[tuple[bytes, bytes]], more: tuple[bytes, ...] = ()) -> TextVocab:
    pieces = list(dict.fromkeys([*ALPHABET, *(left + right for left, right in merges), *more]))
    ids = {piece: place for place, piece in enumerate(pieces)}
    return TextVocab(tuple(pieces), tuple((ids[a], ids[b], ids[a + b]) for a, b in merges))


def numbered(ranks: Ranks) -> dict[bytes, int]:
    return {piece: place for place, piece in enumerate((*ranks.joined, *ranks.whole))}


@settings(max_examples=100, deadline=None)
@given(merge_lists())
def test_ranks_that_are_given_say_what_the_merges_say(merges: list[tuple[bytes, bytes]]) -> None:
    ranks = ranks_of(vocab_of(merges)) if merges else None
    if ranks is None:
        return
    assert ranks.whole == ()
    for word in WORDS:
        assert by_ranks(word, numbered(ranks)) == by_merges(word, merges)


@settings(max_examples=100, deadline=None)
@given(merge_lists(), st.lists(st.sampled_from(WORDS), max_size=4))
def test_and_so_they_do_where_whole_words_come_first(
    merges: list[tuple[bytes, bytes]], more: list[bytes]
) -> None:
    vocab = vocab_of(merges, tuple(more))
    ranks = ranks_of(vocab, whole_first=True) if merges else None
    if ranks is None:
        return
    for word in WORDS:
        expected = [word] if word in vocab.index else by_merges(word, merges)
        assert by_ranks(word, numbered(ranks)) == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([word for word in WORDS if len(word) > 1]), min_size=1, max_size=9, unique=True)
)
def test_merges_of_ranks_say_what_the_ranks_say(pieces: list[bytes]) -> None:
    ranks = {piece: place for place, piece in enumerate(pieces)}
    merges = merges_of(ranks)
    for word in WORDS:
        assert by_ranks(word, ranks) == ([word] if word in ranks else by_merges(word, merges))


def test_most_lists_of_merges_have_ranks() -> None:
    """As trainers make them: each piece out of earlier ones, each reached by the text that it is."""
    trained = [(b"a", b"b"), (b"ab", b"c"), (b"b", b"c"), (b"a", b"a")]
    assert ranks_of(vocab_of(trained)) == Ranks((b"ab", b"abc", b"bc", b"aa"))
    # The merges never make "abc", since "bc" comes first; ranks would, out of "a" and "bc".
    assert ranks_of(vocab_of([(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")])) is None
    # A word to be found whole, which joining would make as well: two ways in one text, so no ranks.
    assert ranks_of(vocab_of([(b"a", b"b")], (b"abc",)), whole_first=True) is None
    assert ranks_of(vocab_of([(b"a", b"b")], (b"bcc",)), whole_first=True) == Ranks((b"ab",), (b"bcc",))


def test_a_missing_byte_or_no_merge_means_no_ranks() -> None:
    assert ranks_of(TextVocab(tuple(ALPHABET))) is None
    some = TextVocab((b"a", b"b", b"ab"), ((0, 1, 2),))
    assert ranks_of(some) is None


def test_splits_of_bytes_and_of_characters() -> None:
    ranks = {b"ab": 0, b"bc": 1, b"abc": 2, "éa".encode(): 3}
    assert split_of(b"abc", ranks) == 2 and split_of(b"a", ranks) is None
    assert split_of("éa".encode(), ranks, by_character=True) == 2
    assert split_of("éa".encode(), ranks) is None  # its first two bytes have no rank
    assert merges_of({"éa".encode(): 0}, by_character=True) == [("é".encode(), b"a")]


def test_endless_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match=f"piece of {MAX_PIECE_BYTES + 1} bytes: expected at most"):
        merges_of({b"a" * (MAX_PIECE_BYTES + 1): 0})
