"""KL3M's recipes (ALEA Institute 2025, arXiv 2503.17247): BPE for a domain; pieces of a few characters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from .corpus import Corpus
from .merge_run import MergeRun
from .pair_merges import PairMerges
from .pretoken_counts import count_pretokens, digest, pooled
from .pretokenizers import PATTERNS, PreTokenizer
from .train_bpe import log_in, state_in
from .train_bpe import train as train_bpe
from .vocab import TextVocab

SPECIALS = ("<|start|>", "<|end|>", "<|pad|>", "<|unk|>", "<|sep|>", "<|cls|>", "<|mask|>")
# What cuts text for `train_characters`.
CHARACTERS = PreTokenizer("gpt2")
_RUNS = range(2, 9)
# More often than any pair of a corpus, so that custom pieces come first; their sums stay within int64.
_FIRST = 1 << 48


def custom_pieces() -> tuple[str, ...]:
    """What law and finance write again and again: runs of white space and of signs, marks of HTML, Markdown
    and JSON, citations, years."""
    runs = [sign * length for sign in " \n\t-=_.*#" for length in _RUNS]
    tags = [
        f"<{slash}{tag}>"
        for tag in ("p", "br", "div", "span", "table", "tr", "td", "li")
        for slash in ("", "/")
    ]
    signs = ['{"', '"}', '":', '",', "](", "](http", "**", "```", "§§", " §", "¶"]
    citations = [
        "U.S.C.",
        "C.F.R.",
        "Fed. Reg.",
        "F.2d",
        "F.3d",
        "F. Supp.",
        "S. Ct.",
        "et seq.",
        " v. ",
        "Inc.",
        "LLC",
    ]
    years = [str(year) for year in range(1950, 2031)]
    return tuple(dict.fromkeys((*runs, *tags, *signs, *citations, *years)))


def domain_pretokenizer(custom: Sequence[str] = custom_pieces()) -> PreTokenizer:
    """That of Llama 3, but where a pretoken would begin with a custom piece, that piece is one, the longest
    first. What begins with a letter takes a space before it along; a number is cut out whole or not."""
    ordered = sorted(custom, key=lambda piece: (-len(piece), piece))
    numbers = [piece for piece in ordered if piece.isdecimal()]
    words = [_escaped(piece) for piece in ordered if piece[:1].isalpha()]
    signs = [_escaped(piece) for piece in ordered if not piece[:1].isalpha() and not piece.isdecimal()]
    parts = [
        *([rf"(?<!\p{{N}})(?:{'|'.join(numbers)})(?!\p{{N}})"] if numbers else []),
        *([rf" ?(?:{'|'.join(words)})"] if words else []),
        *signs,
        PATTERNS["llama3"].regex,
    ]
    return PreTokenizer("pattern", pattern="|".join(parts))


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in ".*+?()[]{}|^$\\" else letter for letter in text)


def train_domain(
    corpus: Corpus,
    vocab_size: int,
    *,
    custom: Sequence[str] = custom_pieces(),
    min_frequency: int = 10,
    specials: Sequence[str] = SPECIALS,
    pad: bool = False,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """BPE on one domain, for text cut by `domain_pretokenizer(custom)`.

    custom         pieces that are there whatever the corpus says, with the few they are joined from
    min_frequency  rarer pairs are not joined
    pad            specials "<|reserved_N|>" fill up to a power of two
    specials, folder, progress
                   as of `train_bpe.train`
    """
    counts = pooled(
        count_pretokens(corpus, domain_pretokenizer(custom), state=state_in(folder), progress=progress)
    )
    identity = ["kl3m", digest([counts]), *custom, min_frequency]
    spaced = [f" {piece}" for piece in custom if piece[:1].isalpha()]
    planted = counts | {
        piece.encode(): counts.get(piece.encode(), 0) + _FIRST for piece in (*custom, *spaced)
    }
    with MergeRun(
        vocab_size, identity=identity, specials=specials, log=log_in(folder), progress=progress
    ) as run:
        run.grow(PairMerges.of_words(planted, run.pieces, min_frequency=min_frequency), run.size)
        if missing := [piece for piece in custom if piece.encode() not in run]:
            raise ValueError(
                f"vocab_size={vocab_size} leaves no room for {len(missing)} custom pieces; "
                "make it larger, or give fewer"
            )
        vocab = run.vocab()
    return _padded(vocab) if pad else vocab


def train_characters(
    corpus: Corpus,
    vocab_size: int = 4096,
    *,
    max_characters: int = 3,
    min_frequency: int = 10,
    specials: Sequence[str] = SPECIALS,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """BPE with pieces of at most `max_characters` bytes, for text cut by `CHARACTERS`, GPT-2's pre-tokenizer.

    An error of a scanner or a typist changes the pieces near it and no others. KL3M has 4096, 8192 and 16384
    pieces of up to 2, 3 and 4 characters, which it counts in bytes as here.
    """
    return train_bpe(
        corpus,
        vocab_size,
        pretokenizer=CHARACTERS,
        min_frequency=min_frequency,
        max_piece_bytes=max_characters,
        specials=specials,
        folder=folder,
        progress=progress,
    )


def _padded(vocab: TextVocab) -> TextVocab:
    count = len(vocab)
    names = [f"<|reserved_{number}|>" for number in range((1 << (count - 1).bit_length()) - count)]
    places = {name: count + number for number, name in enumerate(names)}
    pieces = (*vocab.pieces, *(name.encode() for name in names))
    return replace(vocab, pieces=pieces, specials={**vocab.specials, **places})
