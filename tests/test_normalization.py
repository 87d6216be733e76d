"""Normalizers behind `Tokenizer`: text is rewritten, cut, encoded, and comes back."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenzoo
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.normalization import Normalization, Normalizing
from tokenzoo.text.normalizers import CAPITAL, CAPITALS, ESCAPE, CaseMarkers
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.segmented import SegmentedTokenizer
from tokenzoo.text.vocab import TextVocab

from .real_text import parallel
from .text_samples import END, small_normalized, texts

CASE, SPACE, TRIADS = Normalization("case"), Normalization("space"), Normalization("triads")
MARKS = f"{CAPITAL}{CAPITALS}{ESCAPE}▁\ue0e0\ue0e8"


def made(*told: Normalization, pieces: tuple[bytes, ...] = (), **options: Any) -> SegmentedTokenizer:
    alphabet = TextVocab.of_bytes([END])
    vocab = TextVocab((*alphabet.pieces, *pieces), specials=alphabet.specials)
    return SegmentedTokenizer(vocab, "fewest", normalizers=told, **options)


def test_ids_tell_the_normal_form_and_decoding_the_text() -> None:
    tokenizer = made(CASE, pieces=(CAPITAL.encode(), CAPITALS.encode(), b"the", b"nato"))
    ids = tokenizer.encode_ids("The-NATO the")
    capital, capitals = CAPITAL.encode(), CAPITALS.encode()
    assert [tokenizer.vocab.pieces[each] for each in ids] == [
        *(capital, b"the", b"-", capitals, b"nato", b" ", b"the")
    ]
    told = tokenizer.decode_bytes(ids)
    assert told == CaseMarkers().apply("The-NATO the").encode()
    assert tokenizer.restore(ids) == b"The-NATO the" and tokenizer.decode_text(ids) == "The-NATO the"
    assert tokenizer.decode(tokenizer.encode(["The-NATO the"])) == [b"The-NATO the"]
    for cut in range(len(ids)):
        assert tokenizer.decode_bytes(ids[:cut]) + tokenizer.decode_bytes(ids[cut:]) == told


@settings(max_examples=50, deadline=None)
@given(st.one_of(texts, st.text("aAİIıiß 1.0▁" + MARKS), st.binary(max_size=30)))
def test_everything_comes_back(text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    for told in ((CASE,), (SPACE,), (TRIADS,), (CASE, SPACE, TRIADS), (TRIADS, CASE), (SPACE, SPACE)):
        tokenizer = made(*told, pieces=(b"the", CAPITAL.encode(), "▁".encode()))
        assert tokenizer.facts.is_lossless
        ids = tokenizer.encode_ids(text)
        assert tokenizer.restore(ids) == data
        assert len(ids) <= tokenizer.num_tokens([len(data)])
        spans = tokenizer.offsets(text)
        assert len(spans) == len(ids) and (not ids or (spans[0][0], spans[-1][1]) == (0, len(data)))
        assert all(before[1] == after[0] for before, after in pairwise(spans))
        if isinstance(text, str):
            for count in (1, 2, len(ids)):
                assert tokenizer.truncate(text, count) == text[: len(tokenizer.truncate(text, count))]


def test_offsets_go_by_the_last_mark_of_a_letter() -> None:
    tokenizer = made(CASE, pieces=(CAPITAL.encode(), "été".encode(), b" un"))
    text = "Un Été"
    assert tokenizer.offsets(text) == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 3), (3, 8)]
    assert tokenizer.char_offsets(text) == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 3), (3, 6)]
    assert tokenizer.truncate(text, 5) == "Un " and tokenizer.truncate(text, 6) == text
    triads = made(TRIADS, pieces=("234\ue0e0".encode(), b"567"), pretokenizer=PreTokenizer("none"))
    assert triads.offsets("1234567") == [(0, 0), (0, 0), (0, 0), (0, 1), (1, 4), (4, 7)]


def test_specials_are_looked_for_in_the_text_itself() -> None:
    tokenizer = made(CASE)
    attack = f"A{END}B"
    assert tokenizer.specials[END] not in tokenizer.encode_ids(attack)
    ids = tokenizer.encode_ids(attack, allow="all")
    assert ids.count(tokenizer.specials[END]) == 1 and tokenizer.restore(ids) == attack.encode()
    assert tokenizer.offsets(attack, allow="all")[-5:] == [(1, 14), (14, 14), (14, 14), (14, 14), (14, 15)]


def test_the_two_letters_i_of_turkish() -> None:
    plain, turkish = CaseMarkers(), CaseMarkers("tr")
    assert plain.apply("Işık İz") == f"{CAPITAL}işık İz"
    assert turkish.apply("Işık İz IĞDIR") == f"{CAPITAL}ışık {CAPITAL}iz {CAPITALS}ığdır"
    for text in ("Işık İz IĞDIR iI ıİ İI", *parallel()["tr"]):
        assert turkish.undo(turkish.apply(text)) == text


@pytest.mark.parametrize("language", ["de", "el", "ja", "ru", "tr"])
def test_real_text_in_parts_is_real_text(language: str) -> None:
    tokenizer = made(CASE, pieces=(CAPITAL.encode(),))
    assert tokenizer.cuts_safely and not made(SPACE).cuts_safely and not made(TRIADS).cuts_safely
    text = "\n".join(parallel()[language])
    counter = tokenizer.counter()
    for start in range(0, len(text), 100):
        counter.append(text[start : start + 100])
    assert counter.count == tokenizer.count(text)


def test_uroman_is_lossy_and_says_so() -> None:
    tokenizer = made(Normalization("uroman"), pieces=(b"igor",))
    assert not tokenizer.facts.is_lossless
    ids = tokenizer.encode_ids("Игорь\nЯ")
    assert tokenizer.decode_text(ids) == "Igor\nYa"
    assert tokenizer.offsets("Игорь\nЯ")[-3:] == [(0, 11), (11, 11), (11, 13)]
    # What is reversible is undone, whatever lies beside it.
    both = made(CASE, Normalization("uroman"))
    assert both.decode_text(both.encode_ids("Игорь")).lower() == "igor" and not both.facts.is_lossless


def test_saved_it_loads_with_its_normalizers(tmp_path: Path) -> None:
    tokenizer = small_normalized()
    tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["normalizers"] == [
        {"kind": "case", "language": None, "variant": "fixed"},
        {"kind": "space", "language": None, "variant": "fixed"},
        {"kind": "triads", "language": None, "variant": "marks"},
    ]
    again: Any = tokenzoo.load(tmp_path)
    text = "The cat, 12345. THE END▁"
    assert again.config == tokenizer.config and again.facts == tokenizer.facts
    assert again.encode_ids(text) == tokenizer.encode_ids(text) and again.details["normalizers"][0] == "case"
    config["normalizers"][0]["kind"] = "os.system"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"unknown normalizer 'os\.system'"):
        tokenzoo.load(tmp_path)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown normalizer 'nfc'; known: case, space, triads, uroman"):
        Normalization("nfc")
    with pytest.raises(ValueError, match="'space' knows no language 'tr'"):
        Normalization("space", language="tr")
    with pytest.raises(ValueError, match="'case' has no variant 'marks'"):
        Normalization("case", variant="marks")


def test_a_corpus_is_seen_in_its_normal_form() -> None:
    corpus = Corpus.of_texts({"en": ["The cat"]})
    seen = Normalizing((CASE,)).corpus(corpus)
    assert [text for _, text, _ in seen.walk()] == [f"{CAPITAL}the cat"]
    assert seen.identity != corpus.identity and Normalizing(()).corpus(corpus) is corpus
