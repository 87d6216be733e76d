"""MYTE's bytes, and vocabularies of split compounds."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.text import compounds, myte, segment, train_library, train_myte
from tokenzoo.text.corpus import Corpus
from tokenzoo.text.myte import MorphemeBytes

from .real_text import parallel

LANGUAGES = ("de", "el", "en", "ja", "ko", "ru", "tr")


@pytest.fixture(scope="module")
def languages() -> MorphemeBytes:
    texts = {language: parallel()[language][::2] for language in LANGUAGES}
    return train_myte.train(Corpus.of_texts(texts), 300, progress=False)


def test_the_example_of_the_paper() -> None:
    # tokenize("roughly at 12."), with the code that the official map has for "rough".
    bytes_ = MorphemeBytes({b"rough": bytes.fromhex("5282a393")})
    assert bytes_.encode("roughly at 12.").hex(" ") == "52 82 a3 93 6c 79 20 61 74 20 31 32 2e"
    assert bytes_.decode(bytes.fromhex("415282a3932e")) == "Rough."


def test_capitals_are_marked_and_come_back() -> None:
    bytes_ = MorphemeBytes({})
    assert bytes_.encode("The Ωmega ß İ") == b"Athe " + "Aωmega ß İ".encode()
    assert bytes_.decode(bytes_.encode("ABC Éa ǅ K")) == "ABC Éa ǅ K"


def test_codes_are_given_by_use_and_script() -> None:
    ranked = [f"morph{number}".encode() for number in range(100)]
    found = myte.codes([b"ab", "ωμε".encode(), *ranked])
    assert b"ab" not in found  # nothing is shorter
    assert found["ωμε".encode()] == bytes([0x43, 0x80])
    two = [code for code in found.values() if len(code) == 2]
    assert len(two) == 63 + 1 and found[b"morph0"] == b"\x42\x80" and found[b"morph63"] == b"\x4a\x80\x80"
    assert all(myte.is_code(code) for code in found.values())
    assert max(code[-1] for code in found.values()) == 0xBE


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(), st.text("aAbBßİiωΩABthe ин語")))
def test_every_text_comes_back_and_grows_by_no_more_than_its_capitals(
    languages: MorphemeBytes, text: str
) -> None:
    written = languages.encode(text)
    assert languages.decode(written) == text
    assert len(written) <= len(myte.lowered(text))


def test_all_languages_get_shorter_and_nearer_to_each_other(languages: MorphemeBytes) -> None:
    plain, written = {}, {}
    for language in LANGUAGES:
        text = "\n".join(parallel()[language][1::2])
        plain[language], written[language] = len(text.encode()), len(languages.encode(text))
        assert languages.decode(languages.encode(text)) == text
        assert written[language] < plain[language]
    gap = {
        name: max(sizes.values()) / min(sizes.values())
        for name, sizes in (("plain", plain), ("myte", written))
    }
    assert gap["myte"] < gap["plain"]


# Its constructor leaves the file open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_bytes_are_rewritten_as_transformers_does(languages: MorphemeBytes, tmp_path: Path) -> None:
    import transformers

    def shown(data: bytes) -> str:
        return data.hex(" ")

    texts = [text for language in LANGUAGES for text in parallel()[language][1::8]]
    letters = sorted(set("".join(texts)))
    maps = {
        "decompose_map": {
            shown(letter.encode()): shown(myte.lowered(letter))
            for letter in letters
            if myte.lowered(letter) != letter.encode()
        },
        "merge_map": {shown(morpheme): shown(code) for morpheme, code in languages.codes.items()},
    }
    (tmp_path / "byte_maps.json").write_text(json.dumps(maps))
    official = transformers.MyT5Tokenizer(vocab_file=str(tmp_path / "byte_maps.json"))
    for text in texts:
        assert " ".join(official.tokenize(text)) == shown(languages.encode(text))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="expected a shorter code"):
        MorphemeBytes({b"abc": b"ab"})
    with pytest.raises(ValueError, match="same code"):
        MorphemeBytes({b"abc": b"\x42\x80", b"abd": b"\x42\x80"})
    assert MorphemeBytes({}).decode(b"a\x42\x80b") == "ab"  # a code that stands for nothing
    with pytest.raises(ValueError, match="per_language=0"):
        train_myte.train(Corpus.of_texts(["a"]), 0)


# Compounds

WORDS = {"arbeit": 50, "zeit": 90, "haus": 60, "tür": 5, "türen": 9, "datei": 40, "name": 70, "dateiname": 3}


def test_words_are_split_where_the_parts_are_more_frequent() -> None:
    split = compounds.FrequentParts(WORDS)
    assert split("Arbeitszeit") == ["Arbeits", "zeit"]
    assert split("Dateiname") == ["Datei", "name"]
    assert split("Arbeitszeithaus") == ["Arbeits", "zeit", "haus"]
    assert split("Haus") == ["Haus"] and split("Unbekanntes") == ["Unbekanntes"]
    # As frequent as it is, the whole is better.
    assert compounds.FrequentParts({**WORDS, "dateiname": 100})("Dateiname") == ["Dateiname"]


def test_without_cuts_it_is_the_library_and_with_them_no_piece_crosses_one() -> None:
    german = Corpus.of_texts(parallel()["de"])
    plain = train_library.train(german, 500, model="unigram", progress=False)
    assert compounds.train(german, 500, splitter=lambda word: [word], progress=False) == plain
    corpus = Corpus.of_texts(["Dateiname Dateiname Dateipfad namenlos Pfadname Name Pfad Datei " * 4] * 20)
    split = compounds.train(corpus, 320, progress=False)
    encode = segment.likeliest(split)
    assert [split.pieces[each] for each in encode(b" Dateiname")] == [b" Datei", b"name"]
    assert b" Dateiname" not in split.pieces
    with pytest.raises(ValueError, match="expected its letters"):
        compounds.train(corpus, 320, splitter=lambda word: [word[1:]], progress=False)


def test_real_compounds_are_cut_where_their_parts_meet() -> None:
    corpus = Corpus.of_texts(parallel()["de"])
    split = compounds.frequent_parts(corpus, progress=False)
    words = {
        word for text in parallel()["de"] for word in text.split() if word.isalpha() and len(split(word)) > 1
    }
    vocabs = {
        "split": compounds.train(corpus, 700, splitter=split, progress=False),
        "plain": train_library.train(corpus, 700, model="unigram", progress=False),
    }
    crossed = {name: 0 for name in vocabs}
    for name, vocab in vocabs.items():
        encode = segment.likeliest(vocab)
        for word in words:
            place, ends = 0, set()
            for each in encode(f" {word}".encode()):
                place += len(vocab.pieces[each])
                ends.add(place)
            cuts = {1 + len("".join(split(word)[:part]).encode()) for part in range(1, len(split(word)))}
            crossed[name] += not cuts <= ends
    assert len(words) > 20
    assert crossed["split"] < 0.7 * crossed["plain"]
