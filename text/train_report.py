"""What the trainers of text claim, measured on real text: docs/text_trainers.md.

    python -m tokenzoo.text.text_pool data/text
    python -m tokenzoo.text.train_report data/text --out docs/text_trainers.md    # ten CPU minutes

Times are CPU seconds of one process on one thread, all in the same run. Figures of compression are of text
that was not trained on, unless a table says so.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import train_bpe, train_kl3m, train_library, train_parity, train_scaffold, train_superbpe
from .corpus import Corpus
from .measure_entropy import renyi_efficiency
from .measure_parallel import gini, spread
from .plain import PlainTokenizer
from .pretokenizers import PreTokenizer
from .segmented import SegmentedTokenizer
from .text_pool import PARALLEL
from .text_tokenizer import TextTokenizer
from .vocab import TextVocab

_WORDS = PreTokenizer("superbpe_words")
Row = Sequence[object]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pool", type=Path, help="what tokenzoo.text.text_pool wrote")
    parser.add_argument("--out", type=Path, help="file to write; default: stdout")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="a section, repeatable; default: all"
    )
    options = parser.parse_args(argv)
    # On several threads CPU seconds would hold what they wait for each other.
    os.environ["RAYON_NUM_THREADS"] = "1"
    chosen = options.only or list(SECTIONS)
    parts = [_HEAD.format(machine=_machine())]
    for name in tqdm(chosen, desc="sections", file=sys.stderr):
        parts.append(SECTIONS[name](options.pool))
        if options.out is not None:
            options.out.write_text("\n".join(parts), encoding="utf-8")
    if options.out is None:
        print("\n".join(parts))
    return 0


def speed(pool: Path) -> str:
    """CPU seconds of ours and of the library on the same text, and whether the merges are the same."""
    corpus = mixture(pool, 1_600_000)
    rows = []
    for name, train in (
        ("tokenizers, BPE", lambda: train_library.train(corpus, 32_000, pretokenizer=_WORDS, progress=False)),
        ("ours, BPE", lambda: train_bpe.train(corpus, 32_000, pretokenizer=_WORDS, progress=False)),
        (
            "ours, SuperBPE, first stage alone",
            lambda: train_superbpe.train(corpus, 16_000, transition=16_000, progress=False),
        ),
        (
            "ours, SuperBPE, both stages",
            lambda: train_superbpe.train(corpus, 32_000, transition=16_000, progress=False),
        ),
    ):
        vocab, seconds = timed(train)
        rows.append((name, len(vocab), f"{seconds:.1f}"))
    return section(
        f"Speed: {corpus.size / 1e6:.1f} MB in {len(corpus.domains)} languages, 32,000 pieces",
        ("trainer", "pieces", "CPU s"),
        rows,
        "`tests/test_pair_merges.py` holds our merges against those of `tokenizers` under one tie rule: "
        "identical. The second stage reads the text once more, as runs of words.",
    )


def superbpe(pool: Path) -> str:
    """Bytes a token of BPE and SuperBPE on English, by transition."""
    corpus = Corpus.of_files(pool / "train" / "en")
    texts = {"help pages": read(pool / "held_out/en.txt"), "manual pages": read(pool / "other/en.txt")}
    plain = PlainTokenizer.of(train_bpe.train(corpus, 32_000, pretokenizer=_WORDS, progress=False), _WORDS)
    counts = {name: plain.count(text) for name, text in texts.items()}
    rows: list[Row] = [
        ("BPE", "-", *(f"{len(texts[n].encode()) / c:.2f}" for n, c in counts.items()), "-", "-")
    ]
    for transition in (3200, 8_000, 12_800, 19_200, 25_600):
        vocab = train_superbpe.train(corpus, 32_000, transition=transition, progress=False)
        tokenizer = PlainTokenizer.of(vocab, train_superbpe.PRETOKENIZER)
        now = {name: tokenizer.count(text) for name, text in texts.items()}
        per_token = (f"{len(texts[n].encode()) / c:.2f}" for n, c in now.items())
        rows.append(("SuperBPE", transition, *per_token, *(f"{1 - now[n] / counts[n]:.1%}" for n in now)))
    heads = (
        "trainer",
        "transition",
        "bytes/token, help",
        "bytes/token, manual",
        "saved, help",
        "saved, manual",
    )
    return section(
        f"SuperBPE: {corpus.size / 1e6:.1f} MB of English, 32,000 pieces",
        heads,
        rows,
        "Manual pages are another kind of text than what was trained on. The best transition lies inside.",
    )


def parity(pool: Path) -> str:
    """How alike the same text costs in 17 languages."""
    corpus = Corpus.of_files({name: pool / "train" / name / "help.txt" for name in PARALLEL}).limited(700_000)
    development = Corpus.of_files({name: pool / f"parallel/development/{name}.txt" for name in PARALLEL})
    texts = {name: read(pool / f"parallel/held_out/{name}.txt") for name in PARALLEL}
    size = 16_000

    def fair(warm_up: int = 0, window: train_parity.Window | None = None) -> TextVocab:
        return train_parity.train(
            corpus, size, parallel=development, warm_up=warm_up, window=window, progress=False
        )

    rows = []
    for name, train in (
        ("BPE", lambda: train_bpe.train(corpus, size, progress=False)),
        ("parity-aware", fair),
        ("parity-aware, 8,000 global merges first", lambda: fair(warm_up=8_000)),
        ("parity-aware, window of 100", lambda: fair(window=train_parity.Window())),
    ):
        vocab, seconds = timed(train)
        tokenizer = PlainTokenizer.of(vocab)
        costs = [tokenizer.count(text) for text in texts.values()]
        rows.append((name, f"{gini(costs):.4f}", f"{spread(costs):.2f}", f"{sum(costs):,}", f"{seconds:.0f}"))
    return section(
        f"Parity-aware BPE: {len(PARALLEL)} languages, {corpus.size / 1e6:.1f} MB, {size:,} pieces",
        ("trainer", "Gini of costs", "dearest/cheapest", "tokens in all", "CPU s"),
        rows,
        "Costs are tokens of the same held-out paragraphs in each language; others choose the next merge.",
    )


def scaffold(pool: Path) -> str:
    """How often pieces are used, with and without scaffolds."""
    corpus = Corpus.of_files(pool / "train" / "en")
    trained, unseen = "".join(text for _, text, _ in corpus.walk()), read(pool / "held_out/en.txt")
    cut, size = PreTokenizer("gpt2"), 16_000
    vocab = train_scaffold.train(corpus, size, pretokenizer=cut, progress=False)
    tokenizers: dict[str, TextTokenizer] = {
        "BPE": PlainTokenizer.of(train_bpe.train(corpus, size, pretokenizer=cut, progress=False), cut),
        "Scaffold-BPE": SegmentedTokenizer(vocab, "scaffold", cut),
    }
    frequencies = {name: used(each, trained, size) for name, each in tokenizers.items()}
    least = int(frequencies["Scaffold-BPE"][256:].min())
    rows = []
    for name, tokenizer in tokenizers.items():
        counts, held_out = frequencies[name], used(tokenizer, unseen, size)
        rare = int((counts[256:] < least).sum())
        per_token = len(unseen.encode()) / held_out.sum()
        even = (f"{renyi_efficiency(each, size=size):.4f}" for each in (counts, held_out))
        rows.append((name, rare, int(counts[256:].min()), *even, f"{per_token:.3f}"))
    heads = (
        "trainer",
        f"pieces used less than {least} times",
        "least used",
        "Renyi efficiency, trained",
        "Renyi efficiency, held out",
        "bytes/token",
    )
    return section(
        f"Scaffold-BPE: {corpus.size / 1e6:.1f} MB, {size:,} pieces, {len(vocab.unused):,} scaffolds",
        heads,
        rows,
        "Counts are of the text that was trained on. Renyi efficiency (order 2.5) hangs on the most frequent "
        "pieces, which are the same in both: the rise that the paper reports is not to be seen here.",
    )


def kl3m(pool: Path) -> str:
    """A vocabulary for one domain beside one for all, and what an error in the text does to pieces."""
    domain = Corpus.of_files(pool / "train/en/help.txt")
    general = Corpus.of_files([pool / "train/en/handbook.txt", pool / "train/en/wordnet.txt"])
    unseen = read(pool / "held_out/en.txt")
    cut = train_kl3m.domain_pretokenizer()
    rows = []
    for name, vocab, how in (
        ("BPE on handbook and WordNet", train_bpe.train(general, 8192, progress=False), PreTokenizer()),
        ("KL3M's recipe on help pages", train_kl3m.train_domain(domain, 8192, progress=False), cut),
        (
            "characters, up to 3 bytes",
            train_kl3m.train_characters(domain, 4096, max_characters=3, progress=False),
            train_kl3m.CHARACTERS,
        ),
    ):
        tokenizer = PlainTokenizer.of(vocab, how)
        per_token = len(unseen.encode()) / tokenizer.count(unseen)
        rows.append((name, len(vocab), f"{per_token:.2f}", f"{moved(tokenizer, unseen[:2000]):.2f}"))
    return section(
        "KL3M's recipes, on held-out help pages",
        ("trainer", "pieces", "bytes/token", "token ends moved by a wrong letter"),
        rows,
        "One letter is replaced at a time; counted are the ends of tokens that appear or vanish.",
    )


def library(pool: Path) -> str:
    """The three models of the library, and our BPE, on one small corpus."""
    corpus = Corpus.of_files(pool / "train/en/handbook.txt")
    unseen = read(pool / "held_out/en.txt")
    rows: list[Row] = []
    for model in ("bpe", "unigram"):
        vocab, seconds = timed(
            lambda model=model: train_library.train(corpus, 8_000, model=model, progress=False)
        )
        tokenizer = PlainTokenizer.of(vocab)
        per_token = len(unseen.encode()) / tokenizer.count(unseen)
        rows.append((f"tokenizers, {model}", len(vocab), f"{per_token:.3f}", f"{seconds:.1f}"))
    vocab, seconds = timed(lambda: train_bpe.train(corpus, 8_000, progress=False))
    per_token = len(unseen.encode()) / PlainTokenizer.of(vocab).count(unseen)
    rows.append(("ours, bpe", len(vocab), f"{per_token:.3f}", f"{seconds:.1f}"))
    return section(
        f"The library's trainers: {corpus.size / 1e6:.1f} MB of English, 8,000 pieces",
        ("trainer", "pieces", "bytes/token", "CPU s"),
        rows,
        "Unigram stops early when too few of its seeds survive; on more text it takes many times as long as "
        "BPE.",
    )


SECTIONS: Mapping[str, Callable[[Path], str]] = {
    "speed": speed,
    "superbpe": superbpe,
    "parity": parity,
    "scaffold": scaffold,
    "kl3m": kl3m,
    "library": library,
}
_HEAD = """# Trainers of text, measured

Written by `python -m tokenzoo.text.train_report data/text --out docs/text_trainers.md` on text that
`python -m tokenzoo.text.text_pool data/text` fetches: help pages, a handbook, a dictionary, code. Software
documentation, for the most part: figures for prose or chat will differ. CPU seconds of one thread; {machine}.
"""


def mixture(pool: Path, limit_bytes: int) -> Corpus:
    """So much of every language."""
    return Corpus.of_folder(pool / "train").limited(limit_bytes)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def timed(train: Callable[[], TextVocab]) -> tuple[TextVocab, float]:
    """What it returns, and the CPU seconds it took."""
    start = time.process_time()
    return train(), time.process_time() - start


def used(tokenizer: TextTokenizer, text: str, size: int) -> np.ndarray:
    """(size,) how often each id is yielded."""
    counts = Counter(each for line in text.splitlines(keepends=True) for each in tokenizer.encode_ids(line))
    return np.array([counts[each] for each in range(size)])


def moved(tokenizer: TextTokenizer, text: str) -> float:
    """Ends of tokens that appear or vanish when one letter is wrong, in the mean."""
    ends = {end for _, end in tokenizer.offsets(text)}
    changes = []
    for place in range(0, len(text), 7):
        if text[place].isalpha() and text[place].isascii():
            wrong = text[:place] + ("l" if text[place] != "l" else "i") + text[place + 1 :]
            changes.append(len(ends ^ {end for _, end in tokenizer.offsets(wrong)}))
    return float(np.mean(changes))


def section(title: str, heads: Row, rows: Iterable[Row], note: str) -> str:
    """A table in Markdown under its title, and what to know about it."""
    lines = [heads, ["---"] * len(heads), *rows]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"## {title}\n\n{table}\n\n{note}\n"


def _machine() -> str:
    return f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}"


if __name__ == "__main__":
    sys.exit(main())
