"""Trainers on pair merges and those of the library: each shows what it is for, on real text."""

import math
from collections import Counter

import numpy as np
import pytest

from tokenzoo.text import (
    train_bpe,
    train_kl3m,
    train_library,
    train_lz,
    train_parity,
    train_scaffold,
    train_superbpe,
)
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.segmented import SegmentedTokenizer
from tokenzoo.text.vocab import TextVocab

from .real_text import parallel, trained_and_held_out

TRAINED, HELD_OUT = trained_and_held_out()
ENGLISH = Corpus.of_texts(TRAINED)
WORDS = PreTokenizer("superbpe_words")


def tokens(vocab: TextVocab, cut: PreTokenizer, texts) -> int:
    tokenizer = PlainTokenizer.of(vocab, cut)
    return sum(tokenizer.count(text) for text in texts)


@pytest.fixture(scope="module")
def bpe() -> TextVocab:
    return train_bpe.train(ENGLISH, 2000, pretokenizer=WORDS, specials=["<end>"], progress=False)


@pytest.fixture(scope="module")
def superbpe() -> TextVocab:
    return train_superbpe.train(ENGLISH, 2000, transition=1000, specials=["<end>"], progress=False)


def test_bpe_has_the_size_asked_for_and_encodes_without_loss(bpe: TextVocab) -> None:
    assert len(bpe) == 2000 and len(bpe.merges) == 2000 - 257 and bpe.specials == {"<end>": 1999}
    assert bpe.pieces[:256] == tuple(bytes([byte]) for byte in range(256))
    tokenizer = PlainTokenizer.of(bpe, WORDS)
    for text in HELD_OUT[:3]:
        ids = tokenizer.encode_ids(text)
        assert tokenizer.decode_bytes(ids) == text.encode()
        assert len(ids) < len(text.encode()) / 2.5


def test_max_piece_bytes_is_the_longest_piece() -> None:
    vocab = train_bpe.train(ENGLISH, 600, max_piece_bytes=3, progress=False)
    assert max(map(len, vocab.pieces)) == 3 and len(vocab) == 600


# SuperBPE


def test_superbpe_is_bpe_up_to_the_transition_and_all_of_it_without_a_second_stage(
    bpe: TextVocab, superbpe: TextVocab
) -> None:
    assert superbpe.merges[: 1000 - 256] == bpe.merges[: 1000 - 256]
    assert superbpe.merges[1000 - 256] != bpe.merges[1000 - 256]
    assert len(superbpe) == len(bpe) == len(set(superbpe.pieces))
    only_first = train_superbpe.train(ENGLISH, 2000, transition=1999, specials=["<end>"], progress=False)
    assert only_first == bpe


def test_superwords_have_at_most_four_words_no_colon_and_late_ids(superbpe: TextVocab) -> None:
    assert all(len(piece.split()) == 1 for piece in superbpe.pieces[:1000] if piece.strip())
    late = [piece for piece in superbpe.pieces[1000:1999] if len(piece.split()) > 1]
    assert len(late) > 100
    assert max(len(piece.split()) for piece in late) <= 4 and not any(b":" in piece for piece in late)
    assert {b" of the", b" in the"} <= set(late)
    two = train_superbpe.train(ENGLISH, 1200, transition=1000, max_words=2, progress=False)
    assert max(len(piece.split()) for piece in two.pieces) == 2


def test_superbpe_saves_tokens_on_text_it_has_not_seen(bpe: TextVocab, superbpe: TextVocab) -> None:
    plain = tokens(bpe, WORDS, HELD_OUT)
    assert tokens(superbpe, train_superbpe.PRETOKENIZER, HELD_OUT) < 0.96 * plain
    early = train_superbpe.train(ENGLISH, 2000, transition=300, specials=["<end>"], progress=False)
    assert tokens(superbpe, train_superbpe.PRETOKENIZER, HELD_OUT) < tokens(
        early, train_superbpe.PRETOKENIZER, HELD_OUT
    ), "the best transition lies inside"


def test_a_transition_that_leaves_no_room() -> None:
    with pytest.raises(ValueError, match=r"transition=2001: expected 256 ... 2000 pieces"):
        train_superbpe.train(ENGLISH, 2000, transition=2001, progress=False)


# Scaffold-BPE


def frequencies(tokenizer: PlainTokenizer | SegmentedTokenizer, texts) -> Counter[int]:
    return Counter(each for text in texts for each in tokenizer.encode_ids(text))


def test_scaffolds_are_never_yielded_and_the_rest_is_used_more_evenly() -> None:
    cut = PreTokenizer("gpt2")
    vocab = train_scaffold.train(ENGLISH, 2000, pretokenizer=cut, progress=False)
    plain = PlainTokenizer.of(train_bpe.train(ENGLISH, 2000, pretokenizer=cut, progress=False), cut)
    tokenizer = SegmentedTokenizer(vocab, "scaffold", cut)
    assert len(vocab.pieces) - len(vocab.unused) == 2000 and len(vocab.unused) > 100
    assert vocab.unused == set(range(2000, len(vocab))), "what text yields has dense ids"
    trained = frequencies(tokenizer, TRAINED)
    assert not set(trained) & vocab.unused
    assert all(tokenizer.decode_bytes(tokenizer.encode_ids(text)) == text.encode() for text in HELD_OUT)
    plainly = frequencies(plain, TRAINED)
    least = min(trained[each] for each in range(256, 2000))
    rare = sum(plainly[each] < least for each in range(256, 2000))
    assert rare > 100 and min(plainly[each] for each in range(256, 2000)) < least / 10
    held_out = [frequencies(each, HELD_OUT) for each in (tokenizer, plain)]
    unseen = [sum(counts[each] < 2 for each in range(256, 2000)) for counts in held_out]
    assert unseen[0] < unseen[1]


def test_a_scaffold_that_the_queue_falls_to_is_a_piece_again() -> None:
    texts = ["abc " * 10 + "ab " * 4 + "xy " * 6]
    with_scaffold = train_scaffold.train(
        Corpus.of_texts(texts), 258, pretokenizer=PreTokenizer("gpt2"), progress=False
    )
    assert b"ab" not in [with_scaffold.pieces[each] for each in range(258)]
    assert [with_scaffold.pieces[each] for each in with_scaffold.unused] != []


# Parity-aware BPE


def gini(costs) -> float:
    """Gini coefficient: 0 when all are equal."""
    ordered = np.sort(np.asarray(costs, float))
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def split(start: int, step: int) -> Corpus:
    return Corpus.of_texts({name: lines[start::step] for name, lines in parallel().items()})


def costs(vocab: TextVocab) -> list[int]:
    """Tokens of the held-out paragraphs of every language."""
    return [tokens(vocab, PreTokenizer(), lines[2::3]) for lines in parallel().values()]


def test_parity_makes_languages_cost_alike_at_little_loss() -> None:
    corpus, development = split(0, 3), split(1, 3)
    assert len(corpus.domains) == 13
    plain = costs(train_bpe.train(corpus, 2000, progress=False))
    fair = costs(train_parity.train(corpus, 2000, parallel=development, progress=False))
    hybrid = costs(train_parity.train(corpus, 2000, parallel=development, warm_up=800, progress=False))
    assert gini(fair) < 0.6 * gini(plain) and gini(fair) <= gini(hybrid) < gini(plain)
    assert max(fair) / min(fair) < 0.8 * max(plain) / min(plain)
    assert sum(fair) < 1.06 * sum(plain)


def test_parity_on_one_language_is_bpe() -> None:
    corpus = Corpus.of_texts({"de": parallel()["de"]})
    assert train_parity.train(corpus, 500, progress=False) == train_bpe.train(corpus, 500, progress=False)


def test_a_window_and_ratios_keep_a_language_back() -> None:
    corpus = Corpus.of_texts({name: parallel()[name] for name in ("de", "ja")})
    free = train_parity.train(corpus, 700, progress=False)
    held = train_parity.train(corpus, 700, window=train_parity.Window(20, 1.0), progress=False)
    wanted = train_parity.train(corpus, 700, ratios={"de": 4.0}, progress=False)

    def german(vocab: TextVocab) -> int:
        return sum(piece.isascii() for piece in vocab.pieces[256:])

    assert german(free) < german(wanted)
    assert abs(german(held) - 222) < 30, "each has half of the merges"


def test_a_language_without_pairs_is_passed_over() -> None:
    corpus = Corpus.of_texts({"a": ["xyz"], "b": ["ab ab ab abc abc"]})
    vocab = train_parity.train(
        corpus, 259, parallel=corpus, pretokenizer=PreTokenizer("gpt2"), progress=False
    )
    assert vocab.pieces[256:] == (b"ab", b" ab", b" abc")


def test_parity_refuses_languages_that_differ() -> None:
    corpus = Corpus.of_texts({"a": ["x"]})
    with pytest.raises(ValueError, match="parallel text and corpus differ in their languages: b"):
        train_parity.train(corpus, 300, parallel=Corpus.of_texts({"a": ["x"], "b": ["y"]}), progress=False)
    with pytest.raises(ValueError, match="ratios for c: the corpus has a"):
        train_parity.train(corpus, 300, ratios={"c": 1.0}, progress=False)
    with pytest.raises(ValueError, match="expected a length and a share of at least 1"):
        train_parity.Window(share=0.5)


# Compression-aware BPE


def test_lz78_counts_phrases() -> None:
    # a | ab | aba | abab is "aabaabaabab": 4 phrases; the last one of "aabaa" is not new, and counts.
    assert train_lz.lz78_bits(b"aababaabab", 2) == pytest.approx(4 * 1 + math.log2(24))
    assert train_lz.lz78_bits(b"aaba", 2) == pytest.approx(3 * 1 + math.log2(6))
    assert train_lz.lz78_bits(b"", 2) == 0


def test_lz_aware_bpe_is_as_cheap_for_its_coder_as_bpe_and_cheaper_than_bytes() -> None:
    """That it is cheaper than BPE does not show: docs/text_trainers.md has the figures."""
    cut = PreTokenizer("gpt2")
    one = train_lz.train(ENGLISH, 340, candidates=1, pretokenizer=cut, progress=False)
    assert one == train_bpe.train(ENGLISH, 340, pretokenizer=cut, progress=False)
    aware = train_lz.train(ENGLISH, 340, sample_bytes=50_000, pretokenizer=cut, progress=False)

    def bits(vocab: TextVocab) -> float:
        sample = train_lz.TokenStream(train_lz.sample_words(ENGLISH, cut, 50_000))
        for merge in vocab.merges:
            sample.merge(*merge)
        return train_lz.lz78_bits(sample.ids.tolist(), 340)

    assert bits(aware) == pytest.approx(bits(one), rel=0.01) and aware != one
    assert bits(aware) < 0.95 * bits(TextVocab.of_bytes())
    sample = train_lz.sample_words(Corpus.of_texts(["a b " * 500_000] * 2), cut, 50_000)
    assert 50_000 <= sum(map(len, sample)) < 51_000, "two long texts give as much as was asked for"
    with pytest.raises(ValueError, match="candidates=0: expected at least 1"):
        train_lz.train(ENGLISH, 340, candidates=0, progress=False)


# KL3M


def test_the_domain_recipe_has_its_custom_pieces_as_single_tokens() -> None:
    vocab = train_kl3m.train_domain(ENGLISH, 2048, pad=True, progress=False)
    assert len(vocab) == 2048
    tokenizer = PlainTokenizer.of(vocab, train_kl3m.domain_pretokenizer())
    for piece in (" " * 7, "\n\n\n", "-----", "</table>", " U.S.C.", "1999", " S. Ct."):
        ids = tokenizer.encode_ids(f"see{piece}see")
        assert vocab.pieces[ids[1]] == piece.encode(), piece
    plain = PlainTokenizer.of(train_bpe.train(ENGLISH, 2048, progress=False))
    legal = (
        "See 42 U.S.C. § 1983; Smith v. Jones, 461 F.3d 11 (1999), 12 S. Ct. 4.\n\n\n    <td>Fed. Reg.</td>"
    )
    assert tokenizer.count(legal) < 0.8 * plain.count(legal)
    assert tokenizer.decode_bytes(tokenizer.encode_ids(legal)) == legal.encode()


def test_the_domain_recipe_pads_and_says_when_custom_pieces_do_not_fit() -> None:
    vocab = train_kl3m.train_domain(
        Corpus.of_texts(["aa aa " * 20]), 1000, custom=["§ §"], pad=True, progress=False
    )
    assert len(vocab) == 512 and "<|reserved_0|>" in vocab.specials and b"\xc2\xa7 \xc2\xa7" in vocab.pieces
    with pytest.raises(ValueError, match=r"vocab_size=300 leaves no room for \d+ custom pieces"):
        train_kl3m.train_domain(ENGLISH, 300, progress=False)


def test_an_error_changes_the_characters_near_it_alone() -> None:
    vocab = train_kl3m.train_characters(ENGLISH, 1024, max_characters=3, specials=(), progress=False)
    assert max(map(len, vocab.pieces)) == 3 and len(vocab) == 1024
    tokenizer = PlainTokenizer.of(vocab, train_kl3m.CHARACTERS)
    plain = PlainTokenizer.of(train_bpe.train(ENGLISH, 1024, progress=False))
    text = "The interpreter evaluates each expression of the statement before assignment takes place."
    changed: dict[str, list[int]] = {"characters": [], "bpe": []}
    for place, letter in enumerate(text):
        wrong = text[:place] + ("l" if letter != "l" else "1") + text[place + 1 :]
        for name, each in (("characters", tokenizer), ("bpe", plain)):
            cuts = {end for _, end in each.offsets(text)} ^ {end for _, end in each.offsets(wrong)}
            changed[name].append(max((abs(end - place) for end in cuts), default=0))
    assert np.mean(changed["characters"]) < np.mean(changed["bpe"])


# The library


@pytest.mark.parametrize("model", ["bpe", "unigram", "wordpiece"])
def test_the_trainers_of_tokenizers(model, recwarn: pytest.WarningsRecorder) -> None:
    corpus = Corpus.of_texts(TRAINED[::6])
    vocab = train_library.train(corpus, 600, model=model, specials=["<end>"], progress=False)
    assert vocab == train_library.train(corpus, 600, model=model, specials=["<end>"], progress=False)
    assert len(vocab) == 600 and vocab.covers_bytes and vocab.specials == {"<end>": 599}
    assert (len(vocab.merges) > 0, len(vocab.scores) > 0) == (model == "bpe", model == "unigram")
    if model != "wordpiece":
        tokenizer = PlainTokenizer.of(vocab)
        assert tokenizer.decode_bytes(tokenizer.encode_ids(HELD_OUT[0])) == HELD_OUT[0].encode()


def test_the_library_and_ours_agree_on_what_is_too_long_too_small_and_empty() -> None:
    corpus = Corpus.of_texts(TRAINED[::6])
    library = train_library.train(corpus, 400, max_piece_bytes=3, progress=False)
    ours = train_bpe.train(corpus, 400, max_piece_bytes=3, progress=False)
    assert max(map(len, library.pieces)) == max(map(len, ours.pieces)) == 3
    with pytest.raises(ValueError, match="vocab_size=200: expected at least 256"):
        train_library.train(corpus, 200, progress=False)
    with pytest.raises(ValueError, match="the corpus is empty"):
        train_library.train(Corpus.of_texts([""]), 300, progress=False)
    with pytest.raises(ValueError, match="model 'bep': expected one of bpe, unigram, wordpiece"):
        train_library.train(corpus, 300, model="bep", progress=False)
