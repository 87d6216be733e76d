"""Real text, nasty text and small vocabularies for the tests of text, made here in a second."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tokenzoo.text import train_root_affix
from tokenzoo.text.myte import MorphemeBytes, codes
from tokenzoo.text.myte_tokenizer import MyteTokenizer
from tokenzoo.text.normalization import Normalization
from tokenzoo.text.normalizers import CAPITAL
from tokenzoo.text.plain import PlainTokenizer
from tokenzoo.text.pretokenizers import PreTokenizer
from tokenzoo.text.segmented import SegmentedTokenizer
from tokenzoo.text.text_tokenizer import TextTokenizer
from tokenzoo.text.vocab import TextVocab

_CHECKOUT = Path(__file__).resolve().parents[1]
END = "<|endoftext|>"
NASTY = [
    "",
    " ",
    "  ",
    "   \t\n ",
    "\n\n\n",
    "a\n  ",
    "a  \nb   c",
    "\r\n\r\n x",
    "Hello, world! How's it going? I'LL see. 'tis, d'accord",
    "w048 7tuijk dsdfhu 3.14159 1234567 12,345.678",
    "Äpfel, naïve café, e\u0301, ſ'ſ İstanbul 'ſ",
    "нещо на Български; Ελληνικά; עברית; العربية",
    "កាន់តែពិសេសអាចខលចេញ हिन्दी में पाठ ไทย",
    "日本語のテキスト。中文，句子！한국어 문장",
    "🚀 (normal) 😶‍🌫️ (multiple) 👩🏽‍🚀✅",
    "\x00\x01\x7f\x85\xa0\u2028\u3000\ufeff\ufffd",
    "def f(x):\n\treturn x  # <tag attr='1'>\n    y == z !== w;;;; ////",
    f"user text with {END} and <s> [CLS] inside",
    "a" * 300 + " " * 200 + "1" * 100 + "!" * 50,
    "ＡＢＣ ﬁ ﷺ ① ½ Å",
]
# Python's Unicode is older than that of the libraries: what it does not know is left out.
letters = st.characters(exclude_categories=["Cs", "Cn"])
common = st.sampled_from([*" \n\t\r'.,!19aAzZéß日한", "  ", "'s", "'LL", "\r\n", " the", "ing", END])
texts = st.lists(letters | common, max_size=60).map("".join)


@cache
def training_texts() -> tuple[str, ...]:
    """The licence, and text in other scripts: what does not change under our hands."""
    chance = random.Random(0)
    words = [*NASTY, " ", "\n", "the cat sat on the mat. "]
    mixed = ("".join(chance.choices(words, k=5)) for _ in range(200))
    return (*(_CHECKOUT / "LICENSE").read_text(encoding="utf-8").split("\n\n"), *NASTY, *mixed)


@cache
def documents() -> tuple[str, ...]:
    """The prose and the code of this repository, cut into documents of a few kilobytes, and text in other
    scripts."""
    found = []
    for path in [*_CHECKOUT.glob("*.md"), *_CHECKOUT.glob("docs/*.md"), *_CHECKOUT.glob("zoo/*.py")]:
        whole = path.read_text(encoding="utf-8")
        found += [whole[start : start + 3000] for start in range(0, len(whole), 3000)]
    return (*found, *training_texts()[::2])


def split_of(pretokenizer: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    """The same pre-tokenizer in the library `tokenizers`, before its letters of bytes."""
    if pretokenizer.kind == "none":
        return pre_tokenizers.Sequence([])
    return pre_tokenizers.Split(Regex(pretokenizer.regex), "isolated")


@cache
def library(kind: str = "llama3", size: int = 1200) -> Tokenizer:
    """A byte-level BPE that `tokenizers` trained: `END` is id 0, then the bytes, then the merges."""
    found = Tokenizer(models.BPE())
    letters_of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found.pre_tokenizer = pre_tokenizers.Sequence([split_of(PreTokenizer(kind)), letters_of_bytes])
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END],
        show_progress=False,
    )
    found.train_from_iterator(training_texts(), trainer)
    found.encode_special_tokens = True
    return found


@cache
def small(kind: str = "llama3") -> PlainTokenizer:
    """`library` as we read it."""
    return PlainTokenizer.from_json(library(kind).to_str().encode(), name="small-text", licence="Apache-2.0")


def small_myte() -> MyteTokenizer:
    """Three morphemes with codes."""
    return MyteTokenizer(MorphemeBytes(codes([b"the", b" mat", "θα".encode()])), name="small-myte")


def small_normalized() -> SegmentedTokenizer:
    """Small letters and marked spaces."""
    told = (Normalization("case"), Normalization("space"), Normalization("triads", variant="marks"))
    pieces = (b"the", b"at", CAPITAL.encode(), "▁".encode(), "▁the".encode())
    vocab = TextVocab.of_bytes([END])
    whole = replace(vocab, pieces=(*vocab.pieces, *pieces))
    return SegmentedTokenizer(
        whole, "fewest", PreTokenizer("none"), normalizers=told, name="small-normalized"
    )


def small_roots() -> SegmentedTokenizer:
    """A few words of Turkish, by hand."""
    heads, affixes = (CAPITAL, f" {CAPITAL}", " ", "'"), ("ler", "imiz", "den", "de", "da", "i", "t")
    roots = ("ev", " ev", "kitab", " kitab", "ma")
    pieces = [bytes([byte]) for byte in range(256)]
    every = [piece.encode() for piece in dict.fromkeys((*heads, *affixes, *roots))]
    pieces += [piece for piece in every if len(piece) > 1] + [b"th"]
    index = {piece: place for place, piece in enumerate(pieces)}
    groups = {"head": heads, "affix": affixes, "root": roots}
    vocab = TextVocab(
        tuple(pieces),
        merges=((116, 104, index[b"th"]),),
        groups={name: tuple(index[piece.encode()] for piece in each) for name, each in groups.items()},
    )
    return SegmentedTokenizer(
        vocab,
        "root-affix",
        train_root_affix.PRETOKENIZER,
        normalizers=train_root_affix.NORMALIZERS,
        name="small-roots",
    )


# Those that rewrite text before they cut it.
REWRITTEN: dict[str, Callable[[], TextTokenizer]] = {
    "small-myte": small_myte,
    "small-normalized": small_normalized,
    "small-roots": small_roots,
}
