"""Scaffold-BPE (Lian et al. 2025, arXiv 2404.17808): pieces that live inside longer ones leave."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence

from .corpus import Corpus
from .merge_run import BYTES, MergeRun, Step, as_step
from .pair_merges import PairMerges
from .pretoken_counts import count_pretokens, digest, pooled
from .pretokenizers import PreTokenizer
from .train_bpe import log_in, state_in
from .vocab import TextVocab


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    pretokenizer: PreTokenizer | None = None,
    min_frequency: int = 2,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A vocabulary of which text yields `vocab_size` ids; scaffolds come on top, as its `unused` last ids.

    After a merge each part that is left on its own less often than the next pair occurs becomes a scaffold:
    it stays for the merges that need it, but does not count, so that one more piece is learned. When the head
    of the queue has fallen to what a scaffold is left with, it is a piece again. Bytes are never scaffolds.
    Without parameters of its own; the others are those of `train_bpe.train`. `scaffold.scaffold_segmenter`
    encodes with it.
    """
    pretokenizer = pretokenizer or PreTokenizer()
    counts = pooled(count_pretokens(corpus, pretokenizer, state=state_in(folder), progress=progress))
    identity = ["scaffold", digest([counts]), min_frequency]
    with MergeRun(
        vocab_size, identity=identity, specials=specials, log=log_in(folder), progress=progress
    ) as run:
        state = PairMerges.of_words(counts, run.pieces, min_frequency=min_frequency)
        scaffolds = _Scaffolds(run, state)
        while (step := run.step(lambda: as_step(state.best()))) is not None and scaffolds.take(step):
            pass
        return run.vocab(unused=scaffolds.now)


class _Scaffolds:
    """Which pieces are scaffolds now, and how often each piece stands on its own."""

    def __init__(self, run: MergeRun, state: PairMerges) -> None:
        self.now: set[int] = set()
        self._run, self._state = run, state
        self._frequencies = state.frequencies(BYTES).tolist()
        # Pieces touched by the last merge, to be judged by the next head of the queue.
        self._touched: set[int] = set()
        # Scaffolds by what they were left with when last looked at: they only lose.
        self._heap: list[tuple[int, int]] = []

    def take(self, step: Step) -> bool:
        """Judge by the pair at the head of the queue, then join it; False when the vocabulary is complete."""
        left, right, head = step
        self._judge(head)
        self._bring_back(head)
        if self._is_complete:
            return False
        product = self._run.join(left, right)
        merged = self._state.merge(left, right, product)
        if product == len(self._frequencies):
            self._frequencies.append(0)
        for piece, change in ((left, -merged), (right, -merged), (product, merged)):
            self._frequencies[piece] += change
        self._touched = {left, right, product}
        return True

    @property
    def _is_complete(self) -> bool:
        return len(self._run.pieces) - len(self.now) >= self._run.size

    def _judge(self, head: int) -> None:
        # The product too: of "aaa" the pair "aa" is counted twice, but joined once.
        for piece in sorted(self._touched):
            if piece < BYTES:
                continue
            if piece not in self.now:
                if self._frequencies[piece] >= head:
                    continue
                self.now.add(piece)
                self._run.advance(-1)
            heapq.heappush(self._heap, (-self._frequencies[piece], piece))

    def _bring_back(self, head: int) -> None:
        while self._heap and -self._heap[0][0] >= head and not self._is_complete:
            _, piece = heapq.heappop(self._heap)
            if piece not in self.now:
                continue
            if self._frequencies[piece] >= head:
                self.now.remove(piece)
                self._run.advance(1)
            else:
                heapq.heappush(self._heap, (-self._frequencies[piece], piece))
