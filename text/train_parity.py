"""Parity-aware BPE (Foroutan et al. 2025, arXiv 2508.04796): the language worst off has the next merge."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .corpus import Corpus
from .merge_run import MergeRun, Step, as_step
from .pair_merges import PairMerges
from .pretoken_counts import Counts, count_pretokens, digest, pooled
from .pretokenizers import PreTokenizer
from .train_bpe import log_in, state_in
from .vocab import TextVocab


@dataclass(frozen=True)
class Window:
    """No language has more than `share` / languages of the last `length` merges."""

    length: int = 100
    share: float = 2.0

    def __post_init__(self) -> None:
        if self.length < 1 or self.share < 1:
            raise ValueError(f"{self}: expected a length and a share of at least 1")


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    parallel: Corpus | None = None,
    warm_up: int = 0,
    ratios: Mapping[str, float] | None = None,
    window: Window | None = None,
    pretokenizer: PreTokenizer | None = None,
    min_frequency: int = 2,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A vocabulary for the languages of `corpus`, its domains, at as equal a cost as it can be.

    parallel       the same texts in all of the languages: the next merge is for the one with most tokens.
                   Without it, for the one with the fewest bytes of `corpus` in a token
    warm_up        merges chosen on all languages together, before any that is chosen for one (the hybrid
                   of the paper)
    ratios         without `parallel`: compression that a language should have beside the others; default 1
    window         an upper bound on the merges that one language has in a row of them; None leaves it out
    pretokenizer, min_frequency, specials, folder, progress
                   as of `train_bpe.train`

    A merge is the most frequent pair of its language, and is made in all of them. A language without a pair
    of `min_frequency` is passed over. With one language this is BPE.
    """
    if parallel is not None and set(parallel.domains) != set(corpus.domains):
        odd = sorted(set(parallel.domains) ^ set(corpus.domains))
        raise ValueError(f"parallel text and corpus differ in their languages: {', '.join(odd)}")
    pretokenizer = pretokenizer or PreTokenizer()
    counts = count_pretokens(corpus, pretokenizer, state=state_in(folder), progress=progress)
    measured = (
        count_pretokens(parallel, pretokenizer, state=state_in(folder, "parallel"), progress=progress)
        if parallel is not None
        else {}
    )
    told = [digest(counts.values()), digest(measured.values()), *counts, *measured]
    identity = ["parity", *told, warm_up, ratios, window, min_frequency]
    with MergeRun(
        vocab_size, identity=identity, specials=specials, log=log_in(folder), progress=progress
    ) as run:
        _warm_up(run, counts, min_frequency, warm_up)
        languages = _Languages(counts, measured, run, min_frequency, ratios or {}, window)
        while len(run.pieces) < run.size and (step := run.step(languages.decide)) is not None:
            languages.take(step)
        return run.vocab()


def _warm_up(run: MergeRun, counts: Mapping[str, Counts], min_frequency: int, merges: int) -> None:
    if merges:
        together = PairMerges.of_words(pooled(counts), run.pieces, min_frequency=min_frequency)
        run.grow(together, min(run.size, len(run.pieces) + merges))


class _Languages:
    """The words of every language under the merges so far, and which language is worst off."""

    def __init__(
        self,
        counts: Mapping[str, Counts],
        parallel: Mapping[str, Counts],
        run: MergeRun,
        min_frequency: int,
        ratios: Mapping[str, float],
        window: Window | None,
    ) -> None:
        if unknown := sorted(set(ratios) - set(counts)):
            raise ValueError(f"ratios for {', '.join(unknown)}: the corpus has {', '.join(counts)}")
        self._run, self._window = run, window
        # Rare pairs have their places too: another language may ask for them.
        self._train = [
            PairMerges.of_words(words, run.pieces, min_frequency=min_frequency, complete=True)
            for words in counts.values()
        ]
        self._parallel = [
            PairMerges.of_words(parallel[name], run.pieces, min_frequency=1 << 62, complete=True)
            for name in (counts if parallel else ())
        ]
        self._ratios = [ratios.get(name, 1.0) for name in counts]
        self._bytes = [state.tokens for state in self._train]
        self._recent: deque[int] = deque(maxlen=window.length if window else 0)
        for left, right, product in run.merges:
            self._merge(left, right, product)

    def decide(self) -> Step | None:
        """The best pair of the language that is worst off and has one: left, right, count, language."""
        order = sorted(range(len(self._train)), key=lambda number: (-self._cost(number), number))
        ahead = [number for number in order if self._has_had_its_share(number)]
        for number in (*(number for number in order if number not in ahead), *ahead):
            step = as_step(self._train[number].best())
            if step is not None:
                return *step, number
        return None

    def take(self, step: Step) -> None:
        """Make the merge in every language."""
        left, right, _, number = step
        self._recent.append(number)
        self._merge(left, right, self._run.join(left, right))

    def _merge(self, left: int, right: int, product: int) -> None:
        for state in (*self._train, *self._parallel):
            state.merge(left, right, product)

    def _cost(self, number: int) -> float:
        """Tokens of parallel text; elsewhere tokens a byte, weighed by what the language should have."""
        if self._parallel:
            return self._parallel[number].tokens
        return self._train[number].tokens / max(self._bytes[number], 1) * self._ratios[number]

    def _has_had_its_share(self, number: int) -> bool:
        if self._window is None or not self._recent:
            return False
        return self._recent.count(number) / len(self._recent) > self._window.share / len(self._train)
