"""What trainers and segmenters that need no merges claim, in tables like those of `train_report`. What did
not show at first sight is in `claim_checks`.

    python -m tokenzoo.text.text_pool data/text
    python -m tokenzoo.text.train_claims data/text        # a CPU minute

Markdown on stdout. Text that was not trained on, unless a table says so; CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import (
    compounds,
    segment,
    task_vocab,
    train_bpe,
    train_library,
    train_multi_word,
    train_myte,
    train_pathpiece,
)
from .corpus import Corpus
from .multi_word import multi_word_segmenter
from .plain import PlainTokenizer
from .pretoken_counts import Counts, count_pretokens, pooled
from .pretokenizers import PreTokenizer
from .train_report import read, section, timed
from .vocab import TextVocab

_ENDINGS = ("ing", "ed", "s", "es", "er", "ly", "ness", "ment", "able", "ation")
_LANGUAGES = ("en", "de", "el", "ja", "ko", "ru", "tr")


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


def segmenters(pool: Path) -> str:
    """Tokens of the same text under one vocabulary, and PathPiece's own vocabulary."""
    corpus = _english(pool)
    words = _words(pool)
    size = 8000
    bpe = train_bpe.train(corpus, size, progress=False)
    path, seconds = timed(lambda: train_pathpiece.train(corpus, size, start_size=2 * size, progress=False))
    trained = pooled(count_pretokens(corpus, PreTokenizer(), progress=False))
    scored = segment.with_scores(bpe, trained, segment.by_merges(bpe))
    ways = (
        ("BPE", "merges", segment.by_merges(bpe)),
        ("BPE", "greedy", segment.greedy(bpe)),
        ("BPE", "greedy from the right", segment.greedy_from_right(bpe)),
        ("BPE", "longest first", segment.longest_first(bpe)),
        ("BPE", "likeliest", segment.likeliest(scored)),
        ("BPE", "fewest", segment.fewest(bpe)),
        ("PathPiece", "fewest", segment.fewest(path)),
    )
    counts = [sum(count * len(way(word)) for word, count in words.items()) for *_, way in ways]
    rows = [
        (vocab, way, f"{count:,}", f"{count / counts[0] - 1:+.2%}")
        for (vocab, way, _), count in zip(ways, counts, strict=True)
    ]
    return section(
        f"Segmenters over one vocabulary, and PathPiece: {_size(corpus)}, {size:,} pieces",
        ("vocabulary", "segmenter", "tokens", "against merges"),
        rows,
        f"PathPiece's pieces were chosen among BPE's {2 * size:,}, in {seconds:.0f} CPU s.",
    )


def multi_word(pool: Path) -> str:
    """What runs of words save."""
    corpus = _english(pool)
    text = read(pool / "held_out/en.txt")
    base = train_bpe.train(corpus, 8000, progress=False)
    plain = PlainTokenizer.of(base).count(text)
    rows = [("BPE", "8,000", f"{plain:,}", "-")]
    for runs in (1000, 2500, 5000):
        vocab = train_multi_word.train(corpus, 8000 + runs, runs=runs, base=base, progress=False)
        count = len(multi_word_segmenter(vocab)(text.encode()))
        rows.append(
            (f"and {runs:,} runs of words", f"{len(vocab):,}", f"{count:,}", f"{1 - count / plain:.1%}")
        )
    larger = train_bpe.train(corpus, 13_000, progress=False)
    count = PlainTokenizer.of(larger).count(text)
    rows.append(("BPE", f"{len(larger):,}", f"{count:,}", f"{1 - count / plain:.1%}"))
    return section(f"Multi-word: {_size(corpus)}", ("trainer", "pieces", "tokens", "saved"), rows, "")


def task(pool: Path) -> str:
    """A unigram model of English takes in German."""
    english = Corpus.of_files(pool / "train/en/handbook.txt")
    german = Corpus.of_files(pool / "train/de/handbook.txt")
    base = train_library.train(english, 4000, model="unigram", progress=False)
    rows = []
    for size in (4000, 5000, 6000):
        vocab = base if size == 4000 else task_vocab.train(german, size, base=base, progress=False)
        tokenizer = PlainTokenizer.of(vocab)
        counts = [tokenizer.count(read(pool / f"held_out/{name}.txt")) for name in ("en", "de")]
        rows.append((f"{len(vocab):,}", *(f"{count:,}" for count in counts)))
    return section(
        "Task-adaptive: a unigram model of English, 4,000 pieces, with those of German added",
        ("pieces", "tokens, English", "tokens, German"),
        rows,
        "Ids and scores of the first 4,000 stay.",
    )


def myte(pool: Path) -> str:
    """Bytes of the same text, by language."""
    corpus = Corpus.of_files({name: pool / f"train/{name}/help.txt" for name in _LANGUAGES}).limited(1 << 19)
    start = time.process_time()
    made = train_myte.train(corpus, 2000, progress=False)
    seconds = time.process_time() - start
    texts = {name: read(pool / f"parallel/held_out/{name}.txt") for name in _LANGUAGES}
    plain = {name: len(text.encode()) for name, text in texts.items()}
    written = {name: len(made.encode(text)) for name, text in texts.items()}
    rows = [
        (
            how,
            *(f"{size / plain['en']:.2f}" for size in sizes.values()),
            f"{max(sizes.values()) / min(sizes.values()):.2f}",
        )
        for how, sizes in (("UTF-8", plain), ("MYTE", written))
    ]
    return section(
        f"MYTE: {len(made.codes):,} morphemes of {len(_LANGUAGES)} languages, in {seconds:.0f} CPU s",
        ("bytes, English in UTF-8 = 1", *_LANGUAGES, "longest/shortest"),
        rows,
        "The same paragraphs in every language.",
    )


def compound(pool: Path) -> str:
    """How often a compound is cut where its parts meet."""
    corpus = Corpus.of_files(pool / "train/de/handbook.txt")
    splitter = compounds.frequent_parts(corpus, progress=False)
    letters = Counter(re.findall(r"[^\W\d_]{8,}", read(pool / "held_out/de.txt")))
    words = {word: parts for word in letters if len(parts := splitter(word)) > 1}
    rows = []
    for name, vocab in (
        ("unigram", train_library.train(corpus, 4000, model="unigram", progress=False)),
        ("of split words", compounds.train(corpus, 4000, splitter=splitter, progress=False)),
    ):
        encode = segment.likeliest(vocab)
        whole = 0
        for word, parts in words.items():
            cuts = {1 + len("".join(parts[:number]).encode()) for number in range(1, len(parts))}
            whole += cuts <= _ends(vocab, encode(f" {word}".encode()))
        count = PlainTokenizer.of(vocab).count(read(pool / "held_out/de.txt"))
        rows.append((name, f"{whole / len(words):.1%}", f"{count:,}"))
    return section(
        f"CompoundPiece, by frequent parts: {_size(corpus)} of German, {len(words)} compounds",
        ("trainer", "cut where the parts meet", "tokens"),
        rows,
        "Compounds are what the splitter takes for some: this judges what is made of its cuts, not them.",
    )


SECTIONS: Mapping[str, Callable[[Path], str]] = {
    "segmenters": segmenters,
    "multi-word": multi_word,
    "task": task,
    "myte": myte,
    "compound": compound,
}


def _english(pool: Path) -> Corpus:
    return Corpus.of_files(pool / "train/en/help.txt").limited(2 << 20)


def _words(pool: Path) -> Counts:
    return pooled(count_pretokens(Corpus.of_files(pool / "held_out/en.txt"), PreTokenizer(), progress=False))


def _size(corpus: Corpus) -> str:
    return f"{corpus.size / 1e6:.1f} MB"


def _s(seconds: float) -> str:
    return f"{seconds:.1f}"


def inflected(corpus: Corpus) -> list[tuple[str, str]]:
    """Words that are another word of the corpus and an ending: stem and ending."""
    known = Counter(
        word for _, text, _ in corpus.walk() for word in re.findall(r"(?<![^\W_])[a-z]{4,}(?![^\W_])", text)
    )
    pairs = ((word[: -len(end)], end) for word in sorted(known) for end in _ENDINGS if word.endswith(end))
    return [(stem, end) for stem, end in pairs if len(stem) > 3 and known[stem] > 3]


def _ends(vocab: TextVocab, ids: Sequence[int]) -> set[int]:
    found, place = set(), 0
    for each in ids:
        place += len(vocab.pieces[each])
        found.add(place)
    return found


def boundaries(
    vocab: TextVocab, way: Callable[[TextVocab], segment.Segment], words: Sequence[tuple[str, str]]
) -> tuple[str, str, str, str]:
    """Pieces; precision, recall and F1 of the place between stem and ending among all cuts inside words."""
    encode = way(vocab)
    hits = told = 0
    for stem, end in words:
        ends = _ends(vocab, encode(f" {stem}{end}".encode())) - {1, 1 + len(stem) + len(end)}
        hits += 1 + len(stem) in ends
        told += len(ends)
    precision, recall = hits / max(told, 1), hits / len(words)
    both = 2 * precision * recall / max(precision + recall, 1e-9)
    return (f"{len(vocab):,}", *(f"{figure:.3f}" for figure in (precision, recall, both)))  # pyright: ignore


if __name__ == "__main__":
    sys.exit(main())
