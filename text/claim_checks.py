"""Claims of papers that did not show at first sight, under the papers' conditions as far as texts allow.

    python -m tokenzoo.text.text_pool data/text
    python -m tokenzoo.text.claim_checks data/text        # ten CPU minutes

Markdown on stdout. Of the papers only abstracts and the dossier of this project were at hand: what a claim
says stands with each function, and a verdict below each table in docs/text_trainers.md.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..zoo.loading import load
from . import (
    segment,
    train_bpe,
    train_byte_span,
    train_less_is_better,
    train_lz,
    train_root_affix,
    train_scaffold,
)
from .corpus import Corpus
from .less_is_better import less_is_better_segmenter
from .measure_boundaries import boundary_scores
from .measure_entropy import renyi_efficiency
from .measure_lexicon import emitted_pieces, share_of_pieces
from .measure_turkish import Turkish
from .normalizers import CAPITAL, CAPITALS
from .plain import PlainTokenizer
from .pretokenizers import PreTokenizer
from .segmented import SegmentedTokenizer
from .text_tokenizer import TextTokenizer
from .train_claims import boundaries, inflected
from .train_report import Row, read, section, timed, used
from .vocab import TextVocab

# A line is all the context that Less-is-Better has; BPE under the same cuts is its match.
_LINES = PreTokenizer("pattern", pattern=r"[^\n]*\n|[^\n]+")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pool", type=Path, help="what tokenzoo.text.text_pool wrote")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="a section, repeatable; default: all"
    )
    options = parser.parse_args(argv)
    for name in options.only or SECTIONS:
        print(SECTIONS[name](options.pool), flush=True)
    return 0


def less_is_better(pool: Path) -> str:
    """Yang 2024 (arXiv 2403.00417): fewer tokens and types than existing word and BPE tokenizers."""
    english, unseen = read(pool / "train/en/help.txt")[:400_000], read(pool / "held_out/en.txt")
    chinese, held_out = read(pool / "train/zh/help.txt")[:300_000], read(pool / "held_out/zh.txt")
    joined = re.compile(r"[ \t]")
    rows: list[Row] = []
    for name, text, test, longest in (
        ("English", english, unseen, 12),
        ("English without spaces", joined.sub("", english), joined.sub("", unseen), 12),
        ("Chinese without spaces", joined.sub("", chinese), joined.sub("", held_out), 24),
    ):
        corpus, lines = Corpus.of_texts([text]), [piece.encode() for piece in _LINES.pieces(test)]
        for size in (2000, 4000, 8000):
            lib, seconds = timed(
                lambda corpus=corpus, size=size, longest=longest: train_less_is_better.train(
                    corpus, size, max_piece_bytes=longest, progress=False
                )
            )
            bpe = train_bpe.train(corpus, size, pretokenizer=_LINES, max_piece_bytes=longest, progress=False)
            cut = PreTokenizer("gpt2")
            usual = train_bpe.train(corpus, size, pretokenizer=cut, progress=False)
            in_words = PlainTokenizer.of(usual, cut)
            ways: tuple[tuple[str, Callable[[bytes], Sequence[int]]], ...] = (
                (f"Less-is-Better, {seconds:.0f} CPU s", less_is_better_segmenter(lib)),
                ("BPE", segment.by_merges(bpe)),
                ("BPE as usual, within words", in_words.encode_ids),
            )
            for trainer, encode in ways:
                ids = [each for line in lines for each in encode(line)]
                types = len(set(ids))
                rows.append(
                    (name, f"{size:,}", trainer, f"{len(ids):,}", f"{types:,}", f"{len(ids) + types:,}")
                )
    heads = ("text", "pieces", "trainer", "tokens", "types", "together")
    note = "The first two see lines whole, with the same longest piece."
    return section("Less-is-Better against BPE without pretokens", heads, rows, note)


def byte_span(pool: Path) -> str:
    """Goriely et al. 2025: nearer to morphemes than BPE in English, at 16,000 pieces and more."""
    corpus = Corpus.of_files(pool / "train/en")
    words = inflected(corpus)
    rows: list[Row] = []
    for size in (8000, 16_000):
        for rule in ("monotonic", "combined"):
            vocab = train_byte_span.train(corpus, size, rule=rule, order=6, min_frequency=2, progress=False)
            rows.append((f"ByteSpan, {rule}, entropy", *boundaries(vocab, segment.greedy, words)))
        bpe = train_bpe.train(corpus, size, progress=False)
        rows.append(("BPE, merges", *boundaries(bpe, segment.by_merges, words)))
        rows.append(("BPE, greedy", *boundaries(bpe, segment.greedy, words)))
    return section(
        f"ByteSpan at the sizes of the paper: {corpus.size / 1e6:.1f} MB of English, {len(words):,} words",
        ("trainer", "pieces", "precision", "recall", "F1"),
        rows,
        "Six bytes of context; the paper's predictor is a small neural model.",
    )


def lz(pool: Path) -> str:
    """Erdogan et al. 2026: compresses better than BPE; 15.8 % better than bytes (a summary by others)."""
    corpus = Corpus.of_files(pool / "train/en/help.txt")
    cut, size, sample = PreTokenizer("gpt2"), 1500, 1 << 17
    texts = {
        "sample": train_lz.sample_words(corpus, cut, sample),
        "held out": [piece.encode() for piece in cut.pieces(read(pool / "held_out/en.txt"))],
        "manual": [piece.encode() for piece in cut.pieces(read(pool / "other/en.txt")[:400_000])],
    }
    rows: list[Row] = []
    for name, candidates in (("bytes", 0), ("BPE", 1), ("LZ-aware, 4 candidates", 4)):
        vocab = TextVocab.of_bytes()
        if candidates:
            vocab = train_lz.train(
                corpus, size, candidates=candidates, sample_bytes=sample, pretokenizer=cut, progress=False
            )
        figures = []
        for pieces in texts.values():
            stream = train_lz.TokenStream(pieces)
            for merge in vocab.merges:
                stream.merge(*merge)
            bits = train_lz.lz78_bits(stream.ids.tolist(), len(vocab))
            figures.append(f"{bits / sum(map(len, pieces)):.4f}")
        rows.append((name, *figures))
    return section(
        f"LZ-aware BPE with a larger sample: {size:,} pieces, {sample:,} bytes",
        ("trainer", *(f"bits/byte, {name}" for name in texts)),
        rows,
        "LZ78 over the ids, as the trainer counts.",
    )


def scaffold(pool: Path) -> str:
    """Lian et al. 2025: fewer rare pieces, so a more even use of the vocabulary."""
    corpus = Corpus.of_files(pool / "train/en")
    text, cut = "".join(text for _, text, _ in corpus.walk()), PreTokenizer("gpt2")
    rows: list[Row] = []
    for size in (16_000,):
        plain = PlainTokenizer.of(train_bpe.train(corpus, size, pretokenizer=cut, progress=False), cut)
        vocab = train_scaffold.train(corpus, size, pretokenizer=cut, progress=False)
        made: tuple[tuple[str, TextTokenizer], ...] = (
            ("BPE", plain),
            ("Scaffold-BPE", SegmentedTokenizer(vocab, "scaffold", cut)),
        )
        for name, tokenizer in made:
            counts = used(tokenizer, text, size)
            bits = _entropy(counts)
            figures = (f"{bits:.4f}", f"{1 - bits / math.log2(size):.4f}", f"{bits * counts.sum() / 8e6:.4f}")
            renyi = (f"{renyi_efficiency(counts, order=order, size=size):.4f}" for order in (0.5, 2.5))
            rows.append((name, f"{size:,}", f"{counts.sum():,}", *figures, *renyi))
    return section(
        f"Scaffold-BPE, how evenly pieces are used: {corpus.size / 1e6:.1f} MB",
        (
            *("trainer", "pieces", "tokens", "entropy, bits", "redundancy", "entropy of all tokens, MB"),
            *("Renyi efficiency, order 0.5", "order 2.5"),
        ),
        rows,
        "Of the text that was trained on. Redundancy is one minus entropy over its largest value.",
    )


def root_affix(pool: Path) -> str:
    """Bayram et al. 2025: 90 % of the tokens of Turkish are words, 86 % are roots or morphemes."""
    corpus, text = Corpus.of_files(pool / "train/tr"), read(pool / "held_out/tr.txt")
    turkish = Turkish()
    words = sorted(set(re.findall(r"[^\W\d_]+", text)))
    table = turkish.table(words)
    turkish = Turkish(affixes=turkish.affixes_of(words))
    bundled = load("bpe-40k")
    assert isinstance(bundled, TextTokenizer)
    made: list[tuple[str, TextTokenizer]] = [
        (f"BPE of many languages, {len(bundled.vocab.pieces):,} pieces", bundled),
        ("BPE", PlainTokenizer.of(train_bpe.train(corpus, 8000, progress=False))),
    ]
    ways: tuple[tuple[str, Literal["zeyrek"] | None], ...] = (
        ("root-affix", None),
        ("root-affix, ways by zeyrek", "zeyrek"),
    )
    for name, analyser in ways:
        vocab = train_root_affix.train(corpus, 8000, analyser=analyser, progress=False)
        made.append(
            (
                name,
                SegmentedTokenizer(
                    vocab,
                    "root-affix",
                    train_root_affix.PRETOKENIZER,
                    normalizers=train_root_affix.NORMALIZERS,
                ),
            )
        )
    rows: list[Row] = []
    marks = dict.fromkeys(map(ord, CAPITAL + CAPITALS))
    for name, tokenizer in made:
        ids = tokenizer.encode_ids(text)
        shown = (piece.decode(errors="replace") for piece in emitted_pieces([ids], tokenizer.vocab.pieces))
        pieces = sorted({piece.translate(marks).strip().encode() for piece in shown} - {b""})
        shares = [share_of_pieces(pieces, accepts) for accepts in (turkish.is_word, turkish.is_pure)]
        score = boundary_scores(tokenizer, table).f1
        percents = (f"{share.percent:.1f} %" for share in shares)
        rows.append((name, f"{len(ids):,}", f"{score:.3f}", *percents, f"{shares[0].total:,}"))
    return section(
        f"Roots and affixes: {corpus.size / 1e6:.1f} MB of Turkish, 8,000 pieces, {len(table):,} words",
        ("trainer", "tokens", "morpheme F1", "%TR", "%Pure", "of unique tokens"),
        rows,
        "Judged by zeyrek, which the last line was trained with. Marks of capitals do not count as tokens.",
    )


SECTIONS: Mapping[str, Callable[[Path], str]] = {
    "less-is-better": less_is_better,
    "byte-span": byte_span,
    "lz": lz,
    "scaffold": scaffold,
    "root-affix": root_affix,
}


def _entropy(counts: np.ndarray) -> float:
    chances = counts[counts > 0] / counts.sum()
    return float(-(chances * np.log2(chances)).sum())


if __name__ == "__main__":
    sys.exit(main())
