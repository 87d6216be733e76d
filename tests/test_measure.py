"""Measures of text tokenizers, against values worked out by hand."""

from itertools import pairwise
from math import inf, log2
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenzoo.text.bytes import ByteTokenizer
from tokenzoo.text.measure_boundaries import boundaries, boundary_scores, parts_of_word, read_morphemes
from tokenzoo.text.measure_cognition import Decision, chunkability, plausibility, read_decisions
from tokenzoo.text.measure_entropy import (
    capacity_utilisation,
    conditional_entropy,
    frequencies,
    renyi_efficiency,
    renyi_entropy,
)
from tokenzoo.text.measure_laws import (
    Break,
    homomorphism_break,
    is_proper,
    is_right_inverse,
    proper_share,
)
from tokenzoo.text.measure_length import bytes_per_token, fertility
from tokenzoo.text.measure_lexicon import Share, emitted_pieces, share_of_pieces
from tokenzoo.text.measure_parallel import gini, premiums, spread
from tokenzoo.text.measure_undertrained import distances_to_unused, undertrained_candidates
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.vocab import TextVocab

from .real_text import parallel

BYTES = ByteTokenizer()


def merged(*merges: tuple[bytes, bytes]) -> PlainTokenizer:
    """Bytes and these merges, by rank."""
    pieces = [bytes([byte]) for byte in range(256)]
    listed = []
    for left, right in merges:
        pieces.append(left + right)
        listed.append((pieces.index(left), pieces.index(right), len(pieces) - 1))
    return PlainTokenizer.of(TextVocab(pieces=tuple(pieces), merges=tuple(listed)))


def test_lengths_pool_texts() -> None:
    texts = ["één twee", "drie"]  # 10 and 4 bytes, 3 words
    ids = [[1, 2, 3], [4]]
    assert bytes_per_token(texts, ids) == 3.5
    assert fertility(texts, ids) == pytest.approx(4 / 3)
    with pytest.raises(ValueError, match="1 sequences of ids for 2 texts"):
        bytes_per_token(texts, [[1]])
    with pytest.raises(ValueError, match="no tokens"):
        bytes_per_token([""], [[]])
    with pytest.raises(ValueError, match="no words"):
        fertility(["  "], [[1]])


def test_entropies_of_four_types() -> None:
    counts = frequencies([[7, 7, 7, 5], [7, 5, 9, 3]])
    assert counts.tolist() == [4, 2, 1, 1]
    assert renyi_entropy(counts, 0) == 2
    assert renyi_entropy(counts, 1) == 1.75
    assert renyi_entropy(counts, 2) == pytest.approx(log2(64 / 22))
    assert renyi_entropy(counts, inf) == 1
    assert renyi_efficiency(counts, 1) == 0.875
    assert capacity_utilisation(counts, 16) == 1.75 / 4
    assert renyi_entropy(np.array([5])) == 0
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="expected 0 or more"):
            renyi_entropy(counts, bad)
    with pytest.raises(ValueError, match="no tokens"):
        renyi_entropy(np.array([0, 0]))
    with pytest.raises(ValueError, match="the 4 types"):
        renyi_efficiency(counts, size=3)


def test_renyi_efficiency_is_that_of_tokenization_scorer() -> None:
    """Figures of tokenization-scorer 1.1.8 on the bytes of this text, by power."""
    counts = frequencies(line.encode() for line in parallel()["en"])
    for order, expected in ((2.5, 0.5911291686990915), (3.0, 0.5685229615045498), (1.0, 0.7173757215956338)):
        assert renyi_efficiency(counts, order) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20))
def test_renyi_entropy_falls_with_its_order(counts: list[int]) -> None:
    values = [renyi_entropy(np.array(counts), order) for order in (0, 0.5, 1, 2.5, inf)]
    assert all(left >= right - 1e-9 for left, right in pairwise(values))


def test_conditional_entropies() -> None:
    assert conditional_entropy([[0, 0, 1, 1]], 0) == 1
    assert conditional_entropy([[0, 1, 0, 1, 0, 1]], 1) == pytest.approx(0)
    # After 0 comes 0 or 1, after 1 comes 1: two places in three, a bit each.
    assert conditional_entropy([[0, 0, 1, 1]], 1) == pytest.approx(2 / 3)
    # No context runs on into the next text.
    assert conditional_entropy([[0, 1], [1, 0], [0, 1]], 1) == pytest.approx(0)
    with pytest.raises(ValueError, match="longer than 2"):
        conditional_entropy([[0, 1]], 2)


def test_costs_over_languages() -> None:
    costs = {"en": 100, "tr": 150, "zh": 80}
    assert premiums(costs, "en") == {"en": 1.0, "tr": 1.5, "zh": 0.8}
    assert spread(costs.values()) == 150 / 80
    assert gini([3, 3, 3]) == 0
    assert gini([0, 0, 1]) == pytest.approx(2 / 3)
    assert gini([4, 2, 3, 1]) == 0.25
    with pytest.raises(ValueError, match="no costs of the reference 'de'"):
        premiums(costs, "de")
    for bad in ([], [-1, 2], [0, 0]):
        with pytest.raises(ValueError, match="costs"):
            gini(bad)
        with pytest.raises(ValueError, match="costs"):
            spread(bad)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12).filter(any))
def test_gini_is_the_mean_difference(costs: list[int]) -> None:
    count, mean = len(costs), sum(costs) / len(costs)
    expected = sum(abs(a - b) for a in costs for b in costs) / (2 * count * count * mean)
    assert gini(costs) == pytest.approx(expected)


def test_shares_of_unique_pieces() -> None:
    pieces = (b" cat", b"cat", b"xq", b"\xc3", b" ", b"dog")
    emitted = emitted_pieces([[0, 1, 0], [2, 3, 4]], pieces)
    assert emitted == [b" cat", b"cat", b"xq", b"\xc3", b" "]
    share = share_of_pieces(emitted, {"cat", "dog"}.__contains__)
    assert share == Share(2, 5)
    assert share.percent == 40


def test_boundaries_of_words(tmp_path: Path) -> None:
    tokenizer = merged((b" ", b"u"), (b" u", b"n"), (b"d", b"o"), (b"o", b"k"), (b"i", b"n"), (b"in", b"g"))
    assert parts_of_word(tokenizer, "undoing") == [b"un", b"do", b"ing"]
    assert parts_of_word(tokenizer, "ok") == [b"ok"]
    assert boundaries(["un", "do", "ing"]) == {2, 4}
    assert boundaries(["é", "", "a"]) == {2}
    table = tmp_path / "table.txt"
    table.write_text("# English\nun do ing\n\ndo ings\nundo ing\n")
    morphemes = read_morphemes(table)
    assert morphemes == {"undoing": ("un", "do", "ing"), "doings": ("do", "ings")}
    scores = boundary_scores(tokenizer, morphemes)
    # un|do|ing twice right; do|ing|s once right, once not.
    assert (scores.hits, scores.made, scores.gold, scores.words, scores.skipped) == (3, 4, 3, 2, 0)
    assert (scores.precision, scores.recall) == (0.75, 1.0)
    assert scores.f1 == pytest.approx(6 / 7)
    assert boundary_scores(BYTES, morphemes).recall == 1
    with pytest.raises(ValueError, match="do not join"):
        boundary_scores(tokenizer, {"feet": ("foot", "s")})
    with pytest.raises(ValueError, match="empty"):
        boundary_scores(tokenizer, {})


def test_words_that_tokens_do_not_spell_are_skipped() -> None:
    class SmallLetters(ByteTokenizer):
        def encode_ids(self, text: str | bytes) -> list[int]:
            return super().encode_ids(text.lower())

    scores = boundary_scores(SmallLetters(), {"Undo": ("Un", "do"), "redo": ("re", "do")})
    assert (scores.words, scores.skipped, scores.gold) == (1, 1, 1)


def test_plausibility_of_a_tokenizer_that_thinks_as_readers_do(tmp_path: Path) -> None:
    assert chunkability("word", 1) == 0.75
    table = tmp_path / "decisions.csv"
    table.write_text(
        "word,is_word,reaction_time,accuracy\n"
        "abcd,1,500,0.9\nefgh,1,600,0.8\nijkl,1,700,0.8\n"
        "mnop,0,800,0.7\nqrst,0,700,0.8\nuvwx,0,600,0.9\n"
    )
    decisions = read_decisions(table)
    assert decisions[0] == Decision("abcd", True, 500.0, 0.9)
    tokens = {"abcd": 1, "efgh": 2, "ijkl": 3, "mnop": 1, "qrst": 2, "uvwx": 3}
    found = plausibility(decisions, tokens.__getitem__)
    assert found.word_time == pytest.approx(-1)
    assert found.word_accuracy == pytest.approx(3**0.5 / 2)
    assert found.other_time == pytest.approx(1)
    assert found.other_accuracy == pytest.approx(-1)
    assert found.score == pytest.approx((3 + 3**0.5 / 2) / 4)
    with pytest.raises(ValueError, match="reaction times of non-words"):
        plausibility(decisions[:3], tokens.__getitem__)
    with pytest.raises(ValueError, match="differ"):
        plausibility(decisions, lambda word: 1)


def test_tables_of_decisions_that_are_none(tmp_path: Path) -> None:
    table = tmp_path / "decisions.csv"
    table.write_text("word,rt\na,1\n")
    with pytest.raises(ValueError, match="no column accuracy, is_word, reaction_time"):
        read_decisions(table)
    table.write_text("word,is_word,reaction_time,accuracy\na,1,2,0.5\nb,yes,2,0.5\n")
    with pytest.raises(ValueError, match="line 3"):
        read_decisions(table)


def test_decoding_is_a_homomorphism_or_is_not() -> None:
    tokenizer = merged((b" ", b"a"), (b" a", b"b"))
    ids = [tokenizer.encode_ids(text) for text in ("é ab", " ab", "ab ab")]
    parts = [[each] for sequence in ids for each in sequence]
    assert homomorphism_break(tokenizer.decode_bytes, [*ids, *parts]) is None
    # As sentencepiece decodes to strings: without the first space.
    stripped = homomorphism_break(lambda ids: tokenizer.decode_bytes(ids).removeprefix(b" "), ids)
    assert stripped == Break(tuple(ids[0]), tuple(ids[1]))
    # Half a character becomes a replacement sign.
    halves = homomorphism_break(lambda ids: tokenizer.decode_bytes(ids).decode(errors="replace"), parts)
    assert halves == Break((0xC3,), (0xA9,))


def test_a_text_has_one_proper_sequence() -> None:
    tokenizer = merged((b"a", b"b"))
    assert is_proper(tokenizer, [256, 97])
    assert not is_proper(tokenizer, [97, 98, 97])
    assert is_proper(tokenizer, [0xFF])
    assert proper_share(tokenizer, [[256], [97, 98], [97], []]) == 0.75
    with pytest.raises(ValueError, match="no sequences"):
        proper_share(tokenizer, [])


@given(st.binary())
def test_encoding_is_a_right_inverse(data: bytes) -> None:
    assert is_right_inverse(merged((b"a", b"b")), data)


def test_candidates_for_undertrained_tokens() -> None:
    # "abc" is made of "ab" + "c" before "bc" can be: "a" + "bc" is never joined.
    tokenizer = merged((b"a", b"b"), (b"b", b"c"), (b"a", b"bc"))
    found = undertrained_candidates(tokenizer.vocab, tokenizer.encode_ids, [tokenizer.encode_ids("abc bc")])
    assert found.partial == tuple(range(128, 256))
    assert found.unreachable == (258,)
    assert set(range(259)) - set(found.unseen) == {256, 99, 32, 257}


def test_a_space_put_first_makes_nothing_unreachable() -> None:
    """As sentencepiece models encode: "a" becomes " a", but "\\na" ends in "a"."""
    vocab = TextVocab(pieces=(b"a", b" a", b"\n"))
    ids = {"a": [1], "\na": [2, 0], " a": [1], "\n": [2]}
    assert undertrained_candidates(vocab, lambda text: ids.get(text, []), [[0, 1, 2]]).unreachable == ()


def test_specials_and_holes_are_no_candidates() -> None:
    vocab = TextVocab(pieces=(b"a", b"", b"<end>", b"b"), specials={"<end>": 2})
    found = undertrained_candidates(vocab, lambda text: [0] if text == "a" else [3], [[0]])
    assert (found.partial, found.unreachable, found.unseen) == ((), (), (3,))


def test_distances_to_unused_embeddings() -> None:
    table = np.array([[2.0, 0.0], [4.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    assert distances_to_unused(table, [0, 1]).tolist() == pytest.approx([0, 0, 1, 2, 1, 0.4])
    for embeddings, unused in ((table, []), (table, [6]), (table[0], [0])):
        with pytest.raises(ValueError, match="expected"):
            distances_to_unused(embeddings, unused)
