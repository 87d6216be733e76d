"""Task-adaptive tokenization (Liu et al. 2023): a unigram model keeps its ids and takes in another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import train_library
from .corpus import Corpus
from .plain import PlainTokenizer
from .pretokenizers import PreTokenizer
from .vocab import TextVocab


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    base: TextVocab | str | os.PathLike[str],
    task_size: int | None = None,
    pretokenizer: PreTokenizer | None = None,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """The base with the likeliest pieces of a unigram model of this corpus, until it has `vocab_size` pieces.

    base          a vocabulary with scores, or the file or folder of one
    task_size     pieces of the model of the corpus; by default 256 and twice what is to be added, for
                  the base has some of them; where it has most, the result stays smaller than asked for
    pretokenizer  no piece crosses its cuts; that of the base, by default that of Llama 3
    specials      more special tokens, the last ids
    folder        for the model of the corpus, which takes nearly all of the time: see `train_library.train`

    Ids and scores of the base stay. ValueError when `vocab_size` is smaller than the base.
    """
    if not isinstance(base, TextVocab):
        base = PlainTokenizer.from_json(_definition(base)).vocab
    added = vocab_size - len(base) - len(specials)
    if added < 0:
        raise ValueError(f"vocab_size={vocab_size}: the base has {len(base)} pieces already")
    task = train_library.train(
        corpus,
        task_size or 2 * added + 256,
        model="unigram",
        pretokenizer=pretokenizer,
        folder=folder,
        progress=progress,
    )
    merged = merge(base, task, most=added)
    names = {name: len(merged) + number for number, name in enumerate(specials)}
    return replace(
        merged,
        pieces=(*merged.pieces, *(name.encode() for name in specials)),
        scores=(*merged.scores, *[min(merged.scores)] * len(specials)),
        specials={**merged.specials, **names},
    )


def merge(base: TextVocab, task: TextVocab, *, most: int | None = None) -> TextVocab:
    """`base` with the pieces of `task` that it lacks, as its last ids.

    most  pieces to add, the likeliest first; None adds all

    Scores of the task are stretched so that their span becomes that of the base's; both count only
    pieces that text may yield. ValueError where one has no scores.
    """
    for name, vocab in (("base", base), ("task", task)):
        if not vocab.scores:
            raise ValueError(f"the {name} has no scores: expected a unigram model")
    low, high = _span(base)
    task_low, task_high = _span(task)
    scale = (high - low) / (task_high - task_low) if task_high > task_low else 1.0
    new = sorted(
        (-task.scores[number], piece) for piece, number in task.index.items() if piece not in base.index
    )[:most]
    return replace(
        base,
        pieces=(*base.pieces, *(piece for _, piece in new)),
        scores=(*base.scores, *(low + (-cost - task_low) * scale for cost, _ in new)),
    )


def _span(vocab: TextVocab) -> tuple[float, float]:
    scores = [vocab.scores[number] for number in vocab.index.values()]
    return min(scores), max(scores)


def _definition(place: str | os.PathLike[str]) -> bytes:
    path = Path(place).expanduser()
    return (path / "tokenizer.json" if path.is_dir() else path).read_bytes()
