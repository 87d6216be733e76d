"""Multi-word tokenization (Gee et al. 2023): the most frequent runs of two and three words become pieces.

In the paper words are joined by "‗" and spaces between them are lost. Here a word holds the space before it,
so that every text comes back.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from . import train_bpe
from .corpus import Corpus
from .multi_word import WHOLE, WORDS
from .progress import progress_bar
from .vocab import TextVocab

PRETOKENIZER = WHOLE
# Distinct runs that are kept while they are counted: some hundred MB.
_MAX_DISTINCT = 1_000_000


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    runs: int = 1000,
    words: Sequence[int] = (2, 3),
    base: TextVocab | None = None,
    min_frequency: int = 2,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A vocabulary of `vocab_size` pieces of which the last `runs` are several words each, for the segmenter
    "multi-word".

    runs    how many runs of words become pieces; fewer when fewer occur `min_frequency` times
    words   lengths of runs, in words: letters with the space before them
    base    a BPE vocabulary of `vocab_size - runs` pieces, instead of one trained on the corpus
    min_frequency, specials, folder, progress
            as of `train_bpe.train`; words are cut as there by default

    Of equally frequent runs the one that comes first as bytes is taken first. ValueError for a base of
    another size.
    """
    if runs < 0 or not words or min(words) < 2:
        raise ValueError(f"runs={runs}, words={tuple(words)}: expected 0 or more runs of two words or more")
    if base is None and vocab_size - runs < 256:
        raise ValueError(
            f"vocab_size={vocab_size} with runs={runs}: expected room for 256 bytes; lower runs in options"
        )
    if base is None:
        base = train_bpe.train(
            corpus,
            vocab_size - runs,
            pretokenizer=WORDS,
            min_frequency=min_frequency,
            specials=specials,
            folder=folder,
            progress=progress,
        )
    elif len(base) != vocab_size - runs:
        raise ValueError(f"the base has {len(base)} pieces: expected vocab_size - runs = {vocab_size - runs}")
    counts = count_runs(corpus, words, progress=progress)
    ranked = sorted(
        (-count, run) for run, count in counts.items() if count >= min_frequency and run not in base.index
    )
    return replace(base, pieces=(*base.pieces, *(run for _, run in ranked[:runs])), scores=())


def count_runs(corpus: Corpus, words: Sequence[int], *, progress: bool = True) -> Counter[bytes]:
    """How often each run of so many words occurs, within one text and without anything but words between.

    The rarest are forgotten where there are too many, so that the memory is bounded.
    """
    counts: Counter[str] = Counter()
    floor = 1
    with progress_bar(corpus.size, "counting runs", "B", progress) as bar:
        for _, text, _ in corpus.walk():
            bar.update(len(text.encode()))
            pieces = WORDS.pieces(text)
            is_word = [piece[-1:].isalpha() for piece in pieces]
            for size in words:
                for start in range(len(pieces) - size + 1):
                    if all(is_word[start : start + size]):
                        counts["".join(pieces[start : start + size])] += 1
            while len(counts) > _MAX_DISTINCT:
                counts = Counter({run: count for run, count in counts.items() if count > floor})
                floor += 1
    return Counter({run.encode(): count for run, count in counts.items()})
