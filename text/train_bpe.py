"""Byte-pair encoding (Sennrich et al. 2016) on bytes: the most frequent pair is joined, again and again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .corpus import Corpus
from .merge_run import MergeRun
from .pair_merges import PairMerges, TieRule
from .pretoken_counts import count_pretokens, digest, pooled
from .pretokenizers import PreTokenizer
from .ranks import MAX_PIECE_BYTES
from .vocab import TextVocab


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    pretokenizer: PreTokenizer | None = None,
    min_frequency: int = 2,
    max_piece_bytes: int = MAX_PIECE_BYTES,
    tie: TieRule = "ids",
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A vocabulary of `vocab_size` pieces, the 256 bytes and the specials among them, for all domains alike.

    pretokenizer     no piece crosses its cuts; by default that of Llama 3
    min_frequency    rarer pairs are not joined, and the vocabulary may stay smaller
    max_piece_bytes  longest piece
    tie              see `PairMerges`; "ids" is the rule of tokenizers' trainer
    specials         names of special tokens, the last ids
    folder           for counts and steps: a training that was stopped goes on from there
    """
    pretokenizer = pretokenizer or PreTokenizer()
    counts = pooled(count_pretokens(corpus, pretokenizer, state=state_in(folder), progress=progress))
    identity = ["bpe", digest([counts]), min_frequency, max_piece_bytes, tie]
    with MergeRun(
        vocab_size, identity=identity, specials=specials, log=log_in(folder), progress=progress
    ) as run:
        state = PairMerges.of_words(
            counts,
            run.pieces,
            tie=tie,
            min_frequency=min_frequency,
            max_piece_bytes=max_piece_bytes,
        )
        run.grow(state, run.size)
        return run.vocab()


def state_in(folder: str | os.PathLike[str] | None, name: str = "words") -> Path | None:
    """The file of the counts in the folder of a training."""
    return None if folder is None else Path(folder) / f"{name}.npz"


def log_in(folder: str | os.PathLike[str] | None) -> Path | None:
    """The file of the steps in the folder of a training."""
    return None if folder is None else Path(folder) / "merges.log"
