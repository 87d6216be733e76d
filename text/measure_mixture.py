"""What a tokenizer was trained on, read off its merges (Hayase, Liu et al., NeurIPS 2024).

At every step the trainer joined the pair that was most frequent in its mixture. Samples of the languages say
how frequent each pair is in each of them, so every merge bounds the shares; a linear program finds those that
break the bounds least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..zoo.optional import require
from .corpus import Corpus
from .pretoken_counts import count_pretokens
from .pretokenizers import PreTokenizer
from .progress import progress_bar
from .vocab import TextVocab

# Counts are taken for so many bytes, which keeps the numbers far above the solver's tolerance of 1e-7.
_PER_BYTES = 10_000
_TOLERANCE = 1e-6
# Bounds that a round may add for one step.
_NEW_BOUNDS = 10
# A program with every bound would be solved in the end; it is never far from it.
_ROUNDS = 50
_BYTES = 256

Pair = tuple[int, int]


def infer_mixture(
    vocab: TextVocab,
    samples: Corpus,
    *,
    pretokenizer: PreTokenizer | None = None,
    merges: int = 1000,
    competitors: int = 20,
    progress: bool = True,
) -> dict[str, float]:
    """The share of each domain of `samples` in the bytes that a byte-level BPE was trained on; they sum to 1.

    samples       text like that of each domain that may be in the mixture, the more the better; what no
                  sample is like is attributed to those that are there
    pretokenizer  the one it was trained with; by default that of Llama 3
    merges        how many of the first are looked at: the first say most, and the later, the rarer
    competitors   pairs of each domain, the most frequent, that each merge is held against

    ValueError when `vocab` has no merges or they do not start from bytes, when there are fewer than two
    domains, or one has no text. Needs scipy: `pip install "tokenzoo[text-measures]"`.
    """
    chosen = vocab.merges[:merges]
    _check(vocab, chosen, samples)
    words = count_pretokens(samples, pretokenizer or PreTokenizer(), progress=progress)
    if empty := [name for name, counted in words.items() if not counted]:
        raise ValueError(f"no text in {', '.join(map(repr, empty))}: give a sample of each domain")
    byte_ids = [vocab.index[bytes([byte])] for byte in range(_BYTES)]
    bounds = _bounds(_PairCounts(list(words.values()), byte_ids), chosen, competitors, progress)
    return dict(zip(words, bounds.solve().tolist(), strict=True))


def _check(vocab: TextVocab, merges: Sequence[tuple[int, int, int]], samples: Corpus) -> None:
    if not merges:
        raise ValueError("the vocabulary has no merges: only those of BPE tell of a mixture")
    if len(samples.domains) < 2:
        raise ValueError(f"samples of {len(samples.domains)} domain: expected two or more to tell apart")
    known = {vocab.index.get(bytes([byte])) for byte in range(_BYTES)}
    for left, right, product in merges:
        if None in known or not {left, right} <= known:
            raise ValueError(
                f"merge of {vocab.pieces[product]!r} does not start from bytes: no byte-level BPE"
            )
        known.add(product)


class _PairCounts:
    """How often each pair of neighbours occurs in each domain, merge by merge.

    sizes  (C,) bytes of each domain
    """

    def __init__(self, words: Sequence[Mapping[bytes, int]], byte_ids: Sequence[int]) -> None:
        self.sizes = np.array([sum(len(word) * count for word, count in each.items()) for each in words])
        self.number: dict[Pair, int] = {}
        self._table = np.zeros((len(words), 1 << 12), np.int64)
        self._where: dict[Pair, set[int]] = {}
        self._words: list[tuple[int, int, list[int]]] = []
        for domain, counted in enumerate(words):
            for word, count in counted.items():
                self._words.append((domain, count, [byte_ids[byte] for byte in word]))
                self._add(len(self._words) - 1, 1)

    @property
    def table(self) -> np.ndarray:
        """(C, P) counts; the columns are those of `number`."""
        return self._table[:, : len(self.number)]

    def merge(self, left: int, right: int, product: int) -> None:
        for index in self._where.pop((left, right), set()):
            ids = self._words[index][2]
            self._add(index, -1)
            place = 0
            while place < len(ids) - 1:
                if ids[place] == left and ids[place + 1] == right:
                    ids[place : place + 2] = [product]
                place += 1
            self._add(index, 1)

    def column(self, pair: Pair) -> int:
        """Where a pair stands in `table`."""
        found = self.number.setdefault(pair, len(self.number))
        if found == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], 1)
        return found

    def _add(self, index: int, sign: int) -> None:
        domain, count, ids = self._words[index]
        for pair in pairwise(ids):
            column = self.column(pair)  # first, as it may replace the table
            self._table[domain, column] += sign * count
            if sign > 0:  # places go stale, never wrong: a merge looks again
                self._where.setdefault(pair, set()).add(index)


class _Bounds:
    """For shares a: a . advantage + slack of the step + slack of the pair >= 0, one row each.

    advantages  (M, C) by how much the merged pair is more frequent than the other, in each domain
    steps       (M,) of the merges
    pairs       (M,) the other pair
    """

    def __init__(self, advantages: np.ndarray, steps: np.ndarray, pairs: np.ndarray) -> None:
        self.advantages, self.steps = advantages, steps
        self.pairs = np.unique(pairs, return_inverse=True)[1].reshape(-1)
        self._steps = int(steps.max()) + 1
        self._pairs = int(self.pairs.max()) + 1

    def solve(self) -> np.ndarray:
        """(C,) shares with the least sum of slacks. Few bounds bind, so they are added as they are broken."""
        domains = self.advantages.shape[1]
        shares = np.full(domains, 1 / domains)
        slack = np.zeros(len(self.steps))
        used = np.zeros(len(self.steps), bool)
        for _ in range(_ROUNDS):
            broken = -(self.advantages @ shares + slack)
            broken[used] = 0
            new = self._worst(broken)
            if not len(new):
                break
            used[new] = True
            shares, slack = self._program(np.flatnonzero(used))
        return shares

    def _worst(self, broken: np.ndarray) -> np.ndarray:
        """Rows that are broken most, a few for each step."""
        order = np.lexsort((-broken, self.steps))
        steps = self.steps[order]
        first = np.searchsorted(steps, steps)
        return order[(np.arange(len(order)) - first < _NEW_BOUNDS) & (broken[order] > _TOLERANCE)]

    def _program(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares, and the slack that each of all bounds has in the solution of these rows."""
        optimize, sparse = (
            require("scipy.optimize", "text-measures"),
            require("scipy.sparse", "text-measures"),
        )
        domains = self.advantages.shape[1]
        count = np.arange(len(rows))
        columns = [domains + self.steps[rows], domains + self._steps + self.pairs[rows]]
        slacks: Any = sparse.coo_matrix(
            (np.full(2 * len(rows), -1.0), (np.tile(count, 2), np.concatenate(columns))),
            shape=(len(rows), domains + self._steps + self._pairs),
        )
        padding = sparse.csr_matrix((len(rows), self._steps + self._pairs))
        matrix = sparse.hstack([sparse.csr_matrix(-self.advantages[rows]), padding]) + slacks
        cost = np.ones(matrix.shape[1])
        cost[:domains] = 0
        found = optimize.linprog(
            cost,
            A_ub=matrix.tocsr(),
            b_ub=np.zeros(len(rows)),
            A_eq=sparse.csr_matrix((1 - cost)[None]),
            b_eq=[1.0],
            bounds=(0, None),
            method="highs",
        )
        if found.x is None:
            raise RuntimeError(f"the linear program was not solved: {found.message}")
        slack = found.x[domains + self.steps] + found.x[domains + self._steps + self.pairs]
        return found.x[:domains], slack


def _bounds(
    counts: _PairCounts, merges: Sequence[tuple[int, int, int]], competitors: int, progress: bool
) -> _Bounds:
    """Every merge against the pairs that were most frequent in some domain when it was made."""
    advantages, steps, pairs = [], [], []
    scale = _PER_BYTES / counts.sizes[:, None]
    with progress_bar(len(merges), "merging", "merge", progress) as bar:
        for step, (left, right, product) in enumerate(merges):
            merged = counts.column((left, right))
            table = counts.table
            width = min(competitors + 1, table.shape[1])
            top = np.unique(np.argpartition(table, -width, axis=1)[:, -width:])
            top = top[top != merged]
            advantages.append(((table[:, [merged]] - table[:, top]) * scale).T)
            steps.append(np.full(len(top), step))
            pairs.append(top)
            counts.merge(left, right, product)
            bar.update()
    return _Bounds(np.concatenate(advantages), np.concatenate(steps), np.concatenate(pairs))
