"""SuperBPE (Liu et al. 2025, arXiv 2503.13423): BPE inside words first, then across the spaces between."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .corpus import Corpus
from .merge_run import BYTES, MergeRun
from .pair_merges import PairMerges
from .pretoken_counts import Counts, count_pretokens, digest, pooled
from .pretokenizers import PreTokenizer
from .train_bpe import log_in, state_in
from .vocab import TextVocab

# What the finished tokenizer cuts text with: numbers, runs of signs, spaces at the end of a run.
PRETOKENIZER = PreTokenizer("superbpe")
_WORDS = PreTokenizer("superbpe_words")


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    transition: int | None = None,
    max_words: int = 4,
    min_frequency: int = 2,
    second_stage_bytes: int = 1 << 26,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A vocabulary of `vocab_size` pieces, for text cut by `PRETOKENIZER`.

    transition          pieces after which merges may cross spaces; by default half of the vocabulary. The
                        paper takes 0.4 of it for the fewest tokens, 0.8 to 0.9 for the best models
    max_words           most words of a piece that crosses spaces; none of them holds a colon
    min_frequency       rarer pairs are not joined
    second_stage_bytes  text of each domain that the second stage reads; it lies in memory, 24 bytes a token
    specials            names of special tokens, the last ids
    folder              for counts and steps: a training that was stopped goes on from there

    Up to the transition the merges are those of BPE. Later ones never make a piece that is there already.
    """
    words = pooled(count_pretokens(corpus, _WORDS, state=state_in(folder), progress=progress))
    transition = vocab_size // 2 if transition is None else transition
    size = vocab_size - len(specials)
    if not BYTES <= transition <= size:
        raise ValueError(f"transition={transition}: expected {BYTES} ... {size} pieces")
    runs: dict[str, Counts] = {}
    if transition < size:
        limited = corpus.limited(second_stage_bytes)
        runs = count_pretokens(limited, PRETOKENIZER, state=state_in(folder, "runs"), progress=progress)
    settings = [transition, max_words, min_frequency, second_stage_bytes]
    with MergeRun(
        vocab_size,
        identity=["superbpe", digest([words]), *settings],
        specials=specials,
        log=log_in(folder),
        progress=progress,
    ) as run:
        first = PairMerges.of_words(words, run.pieces, min_frequency=min_frequency)
        run.grow(first, transition)
        spelled = {word: ids.tolist() for word, ids in zip(words, first.words(), strict=True)}
        del first
        if runs:
            run.grow(_spelled(runs, spelled, run, max_words, min_frequency), size)
        return run.vocab()


def _spelled(
    runs: dict[str, Counts],
    spelled: dict[bytes, list[int]],
    run: MergeRun,
    max_words: int,
    min_frequency: int,
) -> PairMerges:
    """The runs of words that the second stage sees, as ids of the first; both dictionaries are used up."""
    ids, lengths, counts = array("i"), array("q"), array("q")
    ranks = {(left, right): (rank, product) for rank, (left, right, product) in enumerate(run.merges)}
    for domain in list(runs):
        for text, count in runs.pop(domain).items():
            before = len(ids)
            for piece in _WORDS.pieces(text.decode()):
                word = piece.encode()
                if word not in spelled:
                    spelled[word] = _merged(list(word), ranks)
                ids.extend(spelled[word])
            lengths.append(len(ids) - before)
            counts.append(count)
    spelled.clear()

    def allows(piece: bytes) -> bool:
        return len(piece.split()) <= max_words and b":" not in piece and piece not in run

    columns = np.frombuffer(ids, np.int32), np.frombuffer(lengths, np.int64), np.frombuffer(counts, np.int64)
    return PairMerges(*columns, run.pieces, min_frequency=min_frequency, allows=allows)


def _merged(ids: list[int], ranks: dict[tuple[int, int], tuple[int, int]]) -> list[int]:
    """A word that the first stage did not see, spelled by its merges."""
    while True:
        known = [(ranks[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in ranks]
        if not known:
            return ids
        (_, product), place = min(known)
        ids[place : place + 2] = [product]
