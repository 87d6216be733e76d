"""A tokenizer.json behind the interface: every verb, specials, offsets, saving for transformers."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenzoo
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.vocab import TextVocab

from .text_samples import END, NASTY, documents, library, small, texts

LOSSY = {  # BERT's, of a few pieces
    "added_tokens": [
        {"id": place, "content": name, "special": True, "normalized": False}
        for place, name in enumerate(("[UNK]", "[CLS]"))
    ],
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {
            name: place for place, name in enumerate(("[UNK]", "[CLS]", "play", "##ing", "cafe", "!", "日"))
        },
    },
}


def halves() -> PlainTokenizer:
    """'é' is one piece and '🚀' two halves."""
    pieces = (*TextVocab.of_bytes().pieces, b"\xc3\xa9", b"\xf0\x9f", b"\x9a\x80")
    merges = ((0xC3, 0xA9, 256), (0xF0, 0x9F, 257), (0x9A, 0x80, 258))
    return PlainTokenizer.of(TextVocab(pieces, merges))


def lossy() -> PlainTokenizer:
    for entry in LOSSY["added_tokens"]:
        entry |= {"single_word": False, "lstrip": False, "rstrip": False}
    return PlainTokenizer(LOSSY)


@settings(deadline=None)
@given(st.binary(max_size=80) | texts.map(str.encode))
def test_all_bytes_come_back(data: bytes) -> None:
    ids = small().encode_ids(data)
    assert small().decode_bytes(ids) == data
    spans = small().offsets(data)
    assert len(spans) == len(ids) and b"".join(data[left:right] for left, right in spans) == data
    assert small().decode(small().encode([data])) == [data]


@settings(deadline=None)
@given(st.lists(st.integers(0, 1199)), st.lists(st.integers(0, 1199)))
def test_decode_bytes_is_a_homomorphism(left: list[int], right: list[int]) -> None:
    tokenizer = small()
    assert tokenizer.decode_bytes(left + right) == tokenizer.decode_bytes(left) + tokenizer.decode_bytes(
        right
    )


@settings(deadline=None)
@given(texts)
def test_characters_that_ids_stand_for(text: str) -> None:
    """As `tokenizers` tells them: ids that share a character each have all of it."""
    encoded = library().encode(text, add_special_tokens=False)
    assert small().char_offsets(text) == encoded.offsets
    for (left, right), (first, last) in zip(small().offsets(text), encoded.offsets, strict=True):
        assert text.encode()[left:right] in text[first:last].encode()


def test_offsets_in_words() -> None:
    tokenizer = halves()
    assert tokenizer.encode_ids("é🚀") == [256, 257, 258]
    assert tokenizer.offsets("é🚀") == [(0, 2), (2, 4), (4, 6)]
    assert tokenizer.char_offsets("é🚀") == [(0, 1), (1, 2), (1, 2)]
    assert tokenizer.offsets("") == tokenizer.char_offsets("") == []


def test_specials_only_when_asked() -> None:
    tokenizer = small()
    text = f"one{END}two"
    assert tokenizer.specials == {END: 0}
    assert (
        0 not in tokenizer.encode_ids(text)
        and tokenizer.decode_bytes(tokenizer.encode_ids(text)) == text.encode()
    )
    asked = [*tokenizer.encode_ids("one"), 0, *tokenizer.encode_ids("two")]
    for allow in ("all", END, [END], {END: 0}):
        assert tokenizer.encode_ids(text, allow=allow) == asked
        assert tokenizer.encode([text.encode()], allow=allow).ids.tolist() == [asked]
    assert tokenizer.decode_bytes(asked) == text.encode()
    assert (3, 3 + len(END)) in tokenizer.offsets(text, allow="all")
    with pytest.raises(ValueError, match=rf"no special token '<s>'; known: {END[:2]}"):
        tokenizer.encode_ids(text, allow="<s>")


def test_added_tokens_that_are_not_special_are_found_as_tokenizers_finds_them() -> None:
    from tokenizers import AddedToken, Tokenizer

    peer = Tokenizer.from_str(library().to_str())
    peer.add_tokens(
        [AddedToken("<think>", normalized=False), AddedToken("<think>ing", normalized=False), "  "]
    )
    peer.encode_special_tokens = True
    tokenizer = PlainTokenizer.from_json(peer.to_str().encode())
    assert (
        tokenizer.engine.name == "tiktoken" and tokenizer.specials == {END: 0} and not tokenizer.cuts_safely
    )
    for text in [*NASTY, "<think>", "a<think>ings<think> b", "   x", f"<thin<think>{END}"]:
        assert tokenizer.encode_ids(text) == peer.encode(text, add_special_tokens=False).ids
    stripping = Tokenizer.from_str(library().to_str())
    stripping.add_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    stripping.encode_special_tokens = True
    tokenizer = PlainTokenizer.from_json(stripping.to_str().encode())
    assert not tokenizer.facts.is_lossless
    for text in ("a  <mask> b", "<mask>", *NASTY):
        assert tokenizer.encode_ids(text) == stripping.encode(text, add_special_tokens=False).ids


def test_normalized_text_keeps_the_offsets_of_the_original() -> None:
    definition = {**small().definition, "normalizer": {"type": "NFC"}}
    tokenizer = PlainTokenizer(definition)
    assert tokenizer.engine.name == "tiktoken" and not tokenizer.facts.is_lossless
    composed, decomposed = "é là", "e\u0301 la\u0300"
    assert tokenizer.encode_ids(decomposed) == tokenizer.encode_ids(composed) == small().encode_ids(composed)
    assert tokenizer.offsets(composed) == small().offsets(composed)
    assert max(right for _, right in tokenizer.offsets("x" + decomposed)) <= len(decomposed.encode()) + 1
    assert tokenizer.char_offsets("xe\u0301")[0] == (0, 1)


def test_a_lossy_tokenizer_says_so() -> None:
    tokenizer = lossy()
    assert not tokenizer.facts.is_lossless and tokenizer.engine.name == "tokenizers"
    assert tokenizer.encode_ids("Playing Café!日x") == [2, 3, 4, 5, 6, 0]
    assert tokenizer.decode_bytes([2, 3, 4, 5]) == b" playing cafe !"
    assert tokenizer.decode_text([2, 3, 4, 5]) == "playing cafe !"
    assert tokenizer.decode(tokenizer.encode(["Playing"])) == [b"playing"]
    assert tokenizer.offsets("é Play") == [(0, 2), (3, 7)]
    assert tokenizer.encode_ids("[CLS]") == [0, 0, 0] and tokenizer.encode_ids("[CLS]", allow="all") == [1]
    assert tokenizer.encode_ids(b"play\xff!") == [2, 5]  # U+FFFD is cleaned away
    assert tokenizer.offsets(b"play\xff!") == [(0, 4), (5, 6)]


def test_counting_and_cutting() -> None:
    tokenizer = small()
    text = documents()[0]
    ids = tokenizer.encode_ids(text)
    assert tokenizer.count(text) == len(ids)
    for count in (0, 1, 7, len(ids), len(ids) + 9):
        kept = tokenizer.truncate(text, count)
        assert kept == text[: len(kept)]
        assert tokenizer.decode_bytes(ids[:count]).decode(errors="ignore") == kept
        assert tokenizer.truncate(text.encode(), count) == tokenizer.decode_bytes(ids[:count])
    assert halves().truncate("🚀🚀", 1) == "" and halves().truncate("🚀🚀".encode(), 1) == b"\xf0\x9f"
    with pytest.raises(ValueError, match="count=-1: expected 0 or more"):
        tokenizer.truncate(text, -1)


def test_only_the_start_of_a_long_text_is_encoded() -> None:
    tokenizer = PlainTokenizer(small().definition)
    asked: list[int] = []
    encode = tokenizer.engine.encode
    tokenizer.engine.encode = lambda text: asked.append(len(text)) or encode(text)
    text = "words and words and words " * 100_000
    assert (
        tokenizer.truncate(text, 10) == tokenizer.decode_bytes(small().encode_ids(text[:200])[:10]).decode()
    )
    assert sum(asked) < 10_000


@settings(deadline=None)
@given(st.lists(texts, max_size=8), st.integers(0, 60))
def test_what_is_kept_are_the_first_tokens(parts: list[str], count: int) -> None:
    text = " ".join(parts)
    kept = small().truncate(text, count)
    told = small().decode_bytes(small().encode_ids(text)[:count])
    assert text.startswith(kept) and told.startswith(kept.encode()) and len(told) - len(kept.encode()) < 4


def test_ids_from_a_model_become_text() -> None:
    tokenizer = small()
    ids = tokenizer.encode_ids("on the mat")
    tokens = tokenizer.stamp([ids, ids[:1]])
    assert tokens.extents.tolist() == [[10], [len(tokenizer.decode_bytes(ids[:1]))]]
    assert tokenizer.decode(tokens)[0] == b"on the mat"
    assert halves().decode_text([104, 257]) == "h\ufffd"
    with pytest.raises(UnicodeDecodeError):
        halves().decode_text([257], errors="strict")


def test_ids_out_of_range_are_refused() -> None:
    tokenizer = small()
    for wrong in ([1200], [3, -1], [2**70]):
        with pytest.raises(ValueError, match=rf"id {wrong[-1]} is out of range: expected 0 \.\.\. 1199"):
            tokenizer.decode_bytes(wrong)
    with pytest.raises(ValueError, match=r"small-text takes 0 \.\.\. 1199 there"):
        tokenizer.stamp([[1200]])
    holed = PlainTokenizer.of(TextVocab((*small().vocab.pieces, b"", b"zz"), small().vocab.merges))
    with pytest.raises(ValueError, match="id 1200 is out of range: no piece has this id"):
        holed.decode_bytes([1200])


def test_texts_that_are_none_are_refused() -> None:
    tokenizer = small()
    for call in (tokenizer.encode_ids, tokenizer.offsets, tokenizer.count, lossy().encode_ids):
        with pytest.raises(
            ValueError, match="lone surrogate at character 2, which UTF-8 cannot hold; pass bytes"
        ):
            call("ab\ud800")
        with pytest.raises(TypeError, match="text item is a int: expected str or bytes"):
            call(3)  # pyright: ignore[reportArgumentType]
    assert tokenizer.decode_bytes(tokenizer.encode_ids("\x00a\x00")) == b"\x00a\x00"


def test_transformers_opens_what_is_saved(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    small().save_pretrained(tmp_path / "small")
    plain = AutoTokenizer.from_pretrained(tmp_path / "small", split_special_tokens=True)
    for text in [*NASTY, *documents()[::7]]:
        assert plain(text, add_special_tokens=False)["input_ids"] == small().encode_ids(text)
        assert plain.decode(small().encode_ids(text)) == text


def test_what_is_saved_is_what_was_read(tmp_path: Path) -> None:
    raw = library().to_str(pretty=True).encode()
    tokenizer = PlainTokenizer.from_json(raw, name="mine", licence="MIT")
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == raw
    told = json.loads((tmp_path / "config.json").read_text())
    assert (told["tokenizer_type"], told["vocab_size"], told["is_lossless"]) == ("text", 1200, True)
    loaded = tokenzoo.load(tmp_path)
    assert isinstance(loaded, PlainTokenizer) and loaded.facts == tokenizer.facts
    assert loaded.facts.fingerprint == small().facts.fingerprint  # however it is written
    assert loaded.facts.name == "mine" and loaded.facts.licence == "MIT"


def test_a_tokenizer_travels_to_workers() -> None:
    tokenizer = PlainTokenizer(small().definition)
    ids = tokenizer.encode_ids("the cat")
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode_ids("the cat") == ids and copy.facts == tokenizer.facts


def test_ids_need_no_torch(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "small")
    code = (
        f"import sys, tokenzoo; tokenizer = tokenzoo.load({str(tmp_path / 'small')!r}); "
        "ids = tokenizer.encode_ids('the café'); tokenizer.decode_bytes(ids); "
        "tokenizer.char_offsets('café'); tokenizer.truncate('the cat', 1); "
        "counter = tokenizer.counter(); counter.append('a b'); "
        "print(counter.count, tokenizer.facts.vocab_size, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(small().count("a b")), "1200", "False"]


def test_a_vocabulary_that_tokenizer_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="byte 0 is no piece: expected all 256"):
        PlainTokenizer.of(TextVocab((b"a", b"b", b"ab"), ((0, 1, 2),)))
    alphabet = TextVocab.of_bytes().pieces
    with pytest.raises(ValueError, match="two pieces have the same bytes"):
        PlainTokenizer.of(TextVocab((*alphabet, b"a")))
    with pytest.raises(ValueError, match="unused, fallback and unknown pieces have no place"):
        PlainTokenizer.of(TextVocab((*alphabet, b"ab"), ((97, 98, 256),), unused=frozenset([256])))


def test_scores_make_a_unigram_model() -> None:
    alphabet = TextVocab.of_bytes([END])
    pieces = (*alphabet.pieces, b"th", b"the", b" the", b" cat")
    scores = (*[-10.0] * 257, -5.0, -4.0, -3.0, -3.0)
    vocab = TextVocab(pieces, scores=scores, specials=alphabet.specials)
    tokenizer = PlainTokenizer.of(vocab, PreTokenizer("gpt2"))
    assert [vocab.pieces[each] for each in tokenizer.encode_ids("the the cats\n")] == [
        b"the",
        b" the",
        b" cat",
        b"s",
        b"\n",
    ]
    assert tokenizer.facts.is_lossless is True
    assert tokenizer.decode_bytes(tokenizer.encode_ids(b"\xff\x00the")) == b"\xff\x00the"


def test_tokens_of_another_vocabulary_are_refused() -> None:
    tokens = small("gpt2").encode(["the cat"])
    with pytest.raises(ValueError, match="made by small-text"):
        small().decode(tokens)
    assert torch.equal(small().stamp(tokens.values).values, tokens.values)
