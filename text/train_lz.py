"""Compression-aware BPE: of the most frequent pairs the one that leaves text cheapest for a Lempel-Ziv coder.

The idea is that of Erdogan et al. 2026 (arXiv 2601.09039), which publishes no code. What is scored and how is
ours: the LZ78 code length of a sample of the corpus, after each of a few candidates in turn.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence

import numpy as np

from .corpus import Corpus
from .merge_run import MergeRun, Step, as_step
from .pair_merges import PairMerges, every_other
from .pretoken_counts import count_pretokens, digest, pooled
from .pretokenizers import PreTokenizer
from .train_bpe import log_in, state_in
from .vocab import TextVocab

# Characters of one text in the sample at least, of a corpus of many texts.
_FROM_A_TEXT = 4096


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    candidates: int = 4,
    sample_bytes: int = 1 << 16,
    pretokenizer: PreTokenizer | None = None,
    min_frequency: int = 2,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A vocabulary of `vocab_size` pieces that is trained as BPE is, but for the choice among the top pairs.

    candidates    most frequent pairs that are tried at every step; 1 is BPE
    sample_bytes  text whose code length decides, in equal parts from every domain. The time of a
                  step grows with candidates x sample_bytes: 40 ms with the defaults
    pretokenizer, min_frequency, specials, folder, progress
                  as of `train_bpe.train`
    """
    if candidates < 1:
        raise ValueError(f"candidates={candidates}: expected at least 1")
    pretokenizer = pretokenizer or PreTokenizer()
    counts = pooled(count_pretokens(corpus, pretokenizer, state=state_in(folder), progress=progress))
    sample = TokenStream(sample_words(corpus, pretokenizer, sample_bytes))
    identity = ["lz", digest([counts]), candidates, sample_bytes, min_frequency]
    with MergeRun(
        vocab_size, identity=identity, specials=specials, log=log_in(folder), progress=progress
    ) as run:
        state = PairMerges.of_words(counts, run.pieces, min_frequency=min_frequency)

        def decide() -> Step | None:
            ranked = state.ranked(candidates)
            product = len(run.pieces)
            costs = [sample.bits_after(pair.left, pair.right, product) for pair in ranked]
            # The first of equals is the most frequent.
            return as_step(ranked[costs.index(min(costs))]) if ranked else None

        while len(run.pieces) < run.size and (step := run.step(decide)) is not None:
            left, right, _ = step
            product = run.join(left, right)
            state.merge(left, right, product)
            sample.merge(left, right, product)
        return run.vocab()


def sample_words(corpus: Corpus, pretokenizer: PreTokenizer, size: int) -> list[bytes]:
    """Pretokens from the start of every text, about `size` bytes together, in the order of the text."""
    share = max(1, size // len(corpus.domains))
    words: list[bytes] = []
    for domain, sources in corpus.domains.items():
        whole = max(1, sum(source.size for source in sources))
        taken = 0
        for _, text, _ in Corpus({domain: sources}, corpus.limit_bytes).walk():
            # A file of megabytes comes in a few texts only: each gives as much as it is of the whole.
            start = text[: max(_FROM_A_TEXT, share * len(text) // whole)]
            for piece in pretokenizer.pieces(start):
                words.append(piece.encode())
                taken += len(words[-1])
            if taken >= share:
                break
    return words


class TokenStream:
    """A text as it is read, and what it costs an LZ78 coder after a merge."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self.ids = np.frombuffer(b"".join(words), np.uint8).astype(np.int64)
        self._starts = np.zeros(len(self.ids), bool)
        self._starts[np.cumsum([0, *map(len, words)])[:-1]] = True

    def merge(self, left: int, right: int, product: int) -> None:
        """Join the two wherever they stand side by side in a word."""
        self.ids, kept = self._merged(left, right, product)
        self._starts = self._starts[kept]

    def bits_after(self, left: int, right: int, product: int) -> float:
        """Code length of the text if the two were joined; the merge itself is not made."""
        return lz78_bits(self._merged(left, right, product)[0].tolist(), product + 1)

    def _merged(self, left: int, right: int, product: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self.ids
        places = np.flatnonzero((ids[:-1] == left) & (ids[1:] == right) & ~self._starts[1:])
        if left == right and len(places):
            places = every_other(places, np.arange(1, len(ids) + 1))
        kept = np.ones(len(ids), bool)
        kept[places + 1] = False
        joined = ids.copy()
        joined[places] = product
        return joined[kept], kept


def lz78_bits(ids: Iterable[int], alphabet: int) -> float:
    """Bits of a sequence in LZ78: phrase i names one of i phrases before it and one symbol of `alphabet`."""
    phrases: dict[tuple[int, int], int] = {}
    node = 0
    for symbol in ids:
        following = phrases.get((node, symbol))
        if following is None:
            phrases[node, symbol] = len(phrases) + 1
            following = 0
        node = following
    count = len(phrases) + bool(node)
    return count * math.log2(alphabet) + math.lgamma(count + 1) / math.log(2)
