"""Roots, affixes and merges in one vocabulary: Turkish words in their morphemes."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenzoo
from tokenzoo.text import train_bpe, train_root_affix
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.measure_boundaries import boundary_scores
from tokenzoo.text.measure_lexicon import emitted_pieces, share_of_pieces
from tokenzoo.text.measure_turkish import Turkish
from tokenzoo.text.normalizers import CAPITAL
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.root_affix import root_affix_segmenter
from tokenzoo.text.segmented import SegmentedTokenizer
from tokenzoo.text.turkish_affixes import affixes
from tokenzoo.text.vocab import TextVocab

from .real_text import parallel
from .text_samples import small_roots


def pieces(tokenizer: SegmentedTokenizer, text: str) -> list[str]:
    return [
        tokenizer.vocab.pieces[each].decode().replace(CAPITAL, "^") for each in tokenizer.encode_ids(text)
    ]


def test_words_are_parted_by_hand() -> None:
    tokenizer = small_roots()
    assert pieces(tokenizer, "evlerimizden") == ["ev", "ler", "imiz", "den"]
    assert pieces(tokenizer, "Evde kitablerde") == ["^", "ev", "de", " kitab", "ler", "de"]
    assert pieces(tokenizer, " Evi") == [" ^", "ev", "i"]
    # After an apostrophe affixes need no root; without one they are no word, and merges write them.
    assert pieces(tokenizer, "ma'da") == ["ma", "'", "da"]
    assert pieces(tokenizer, "dath") == ["d", "a", "th"]
    # The fewest affixes, the longest first.
    assert pieces(tokenizer, "evit") == ["ev", "i", "t"]


def test_rules_become_spellings() -> None:
    found = affixes()
    assert {"lar", "ler", "ı", "i", "u", "ü", "yor", "dık", "tik", "tiğ", "ecek", "acağ"} <= found
    assert not {"lır", "eca", "imız"} & found and len(found) == 402
    assert all(affix == affix.lower() for affix in found)


@cache
def trained(analyser: Any = None) -> SegmentedTokenizer:
    vocab = train_root_affix.train(
        Corpus.of_texts(parallel()["tr"][::2]), 1500, analyser=analyser, specials=["<end>"], progress=False
    )
    return SegmentedTokenizer(
        vocab, "root-affix", train_root_affix.PRETOKENIZER, normalizers=train_root_affix.NORMALIZERS
    )


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(), st.text("evlrimzdnIİıi' AbB.1"), st.binary(max_size=20)))
def test_everything_comes_back(text: str | bytes) -> None:
    tokenizer = trained()
    assert tokenizer.facts.is_lossless
    data = text.encode() if isinstance(text, str) else text
    assert tokenizer.restore(tokenizer.encode_ids(text)) == data


def test_it_is_nearer_to_morphemes_than_bpe() -> None:
    """The claim of the paper, on pages that were not trained on: more of the tokens are roots or affixes."""
    corpus, text = Corpus.of_texts(parallel()["tr"][::2]), "\n".join(parallel()["tr"][1::2])
    plain = PlainTokenizer.of(train_bpe.train(corpus, 1500, progress=False))
    turkish = Turkish()
    words = sorted({word for word in text.split() if word.isalpha()})
    table = turkish.table(words)
    turkish = Turkish(affixes=turkish.affixes_of(words))
    scores, pure = {}, {}
    for name, tokenizer in (("bpe", plain), ("ours", trained())):
        scores[name] = boundary_scores(tokenizer, table).f1
        used = emitted_pieces([tokenizer.encode_ids(text)], tokenizer.vocab.pieces)
        pure[name] = share_of_pieces(used, turkish.is_pure).percent
    assert len(table) > 150
    assert scores["ours"] > scores["bpe"] + 0.05 and pure["ours"] > pure["bpe"] + 3, (scores, pure)


def test_an_analyser_says_which_ways_there_are() -> None:
    told = {"evler": [("ev", "ler")], "eve": [("eve",)]}
    corpus = Corpus.of_texts(["evler eve evde"] * 4)
    vocab = train_root_affix.train(
        corpus, 320, roots=0.9, analyser=lambda word: told.get(word, ()), progress=False
    )
    tokenizer = SegmentedTokenizer(
        vocab, "root-affix", train_root_affix.PRETOKENIZER, normalizers=train_root_affix.NORMALIZERS
    )
    assert pieces(tokenizer, "evler eve") == ["ev", "ler", " eve"]


def test_roots_may_be_given_and_it_saves_and_loads(tmp_path: Path) -> None:
    corpus = Corpus.of_texts(["kitap kitaplar kalem"] * 5)
    vocab = train_root_affix.train(
        corpus, 300, roots=["kitap", "kalem"], affixes=["lar"], specials=["<end>"], progress=False
    )
    tokenizer = SegmentedTokenizer(
        vocab, "root-affix", train_root_affix.PRETOKENIZER, normalizers=train_root_affix.NORMALIZERS
    )
    assert pieces(tokenizer, "Kitaplar kalem") == ["^", "kitap", "lar", " kalem"]
    tokenizer.save_pretrained(tmp_path)
    again: Any = tokenzoo.load(tmp_path)
    assert again.vocab == vocab and again.encode_ids("Kitaplar") == tokenizer.encode_ids("Kitaplar")
    assert vocab.specials == {"<end>": len(vocab) - 1}


def test_mistakes_are_named() -> None:
    corpus = Corpus.of_texts(["ev evler"] * 3)
    with pytest.raises(ValueError, match="vocab_size=262: expected"):
        train_root_affix.train(corpus, 262, roots=["ev", "evler"], progress=False)
    with pytest.raises(ValueError, match=r"roots=1\.5: expected a share between 0 and 1"):
        train_root_affix.train(corpus, 400, roots=1.5, progress=False)
    with pytest.raises(ValueError, match="analyser 'zemberek': expected 'zeyrek'"):
        train_root_affix.train(corpus, 400, analyser="zemberek", progress=False)  # pyright: ignore
    with pytest.raises(ValueError, match="the vocabulary has no group 'head'"):
        root_affix_segmenter(TextVocab.of_bytes())
    with pytest.raises(ValueError, match="group 'root': id 999"):
        TextVocab((b"a",), groups={"root": (999,)})
