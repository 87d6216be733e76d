"""ByteSpan (Goriely et al. 2025): bytes that a small model could foresee are grouped, and frequent groups
become pieces. The model here is one of n-grams (`byte_ngrams`); a neural one can be passed in.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from .byte_ngrams import ByteNgrams
from .corpus import Corpus
from .pretoken_counts import Counts, count_pretokens, pooled
from .pretokenizers import PreTokenizer
from .progress import progress_bar
from .train_bpe import state_in
from .train_pathpiece import vocab_of_pieces
from .vocab import TextVocab

Rule = Literal["global", "monotonic", "combined"]
Signal = Callable[[bytes], Sequence[float]]

_RULES, _SIGNALS = ("global", "monotonic", "combined"), ("surprisal", "entropy")


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    rule: Rule = "combined",
    signal: Literal["surprisal", "entropy"] | Signal = "entropy",
    percentile: float = 30.0,
    order: int = 4,
    min_frequency: int = 20,
    pretokenizer: PreTokenizer | None = None,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """The 256 bytes, the most frequent spans and the specials, at most `vocab_size` pieces, for the segmenter
    "greedy".

    rule           when a byte goes on with the span before it; see `spans`
    signal         what a byte is measured by: its surprisal, the entropy before it, or a function that gives
                   a number for each byte of a word
    percentile     the threshold of "global" and "combined" lies over so many percent of all bytes
    order          bytes of context of the n-grams
    min_frequency  rarer spans are left out, and the vocabulary may stay smaller
    pretokenizer, specials, folder, progress
                   as of `train_bpe.train`; the folder holds the counts
    """
    if rule not in _RULES:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(_RULES)}")
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile={percentile}: expected 0 ... 100")
    least = 256 + len(specials)
    if vocab_size < least:
        raise ValueError(
            f"vocab_size={vocab_size}: expected at least {least}, the 256 bytes and the specials"
        )
    pretokenizer = pretokenizer or PreTokenizer()
    state = state_in(folder)
    words = pooled(count_pretokens(corpus, pretokenizer, state=state, progress=progress))
    measure = signal if callable(signal) else _measure(signal, words, order)
    found = count_spans(words, measure, rule, percentile, progress=progress)
    ranked = sorted(
        (-count, span) for span, count in found.items() if len(span) > 1 and count >= min_frequency
    )
    return vocab_of_pieces((span for _, span in ranked[: vocab_size - least]), specials)


def count_spans(
    words: Counts, measure: Signal, rule: Rule, percentile: float, *, progress: bool = True
) -> Counter[bytes]:
    """How often each span occurs in these words."""
    signals = {word: measure(word) for word in words}
    threshold = _threshold(words, signals, percentile)
    counts: Counter[bytes] = Counter()
    with progress_bar(len(words), "finding spans", "word", progress) as bar:
        for word, count in words.items():
            for span in spans(word, signals[word], rule, threshold):
                counts[span] += count
            bar.update()
    return counts


def spans(word: bytes, signal: Sequence[float], rule: Rule, threshold: float) -> list[bytes]:
    """A word in spans: a byte goes on with the one before it when it

    "global"     lies under the threshold,
    "monotonic"  lies under the byte before it,
    "combined"   does either.

    The byte after a space that begins the word goes on with it.
    """
    found: list[bytes] = []
    start = 0
    for place in range(1, len(word)):
        goes_on = place == 1 and word[:1] == b" "
        if rule != "monotonic":
            goes_on |= signal[place] < threshold
        if rule != "global":
            goes_on |= signal[place] < signal[place - 1]
        if not goes_on:
            found.append(word[start:place])
            start = place
    return [*found, word[start:]] if word else []


def _threshold(words: Counts, signals: dict[bytes, Sequence[float]], percentile: float) -> float:
    """What so many percent of all bytes of the corpus lie under."""
    values = np.concatenate([np.asarray(signals[word], float) for word in words])
    weights = np.repeat(np.fromiter(words.values(), float), [len(word) for word in words])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    place = int(np.searchsorted(reached, percentile / 100 * reached[-1]))
    return float(values[order][place]) if place < len(values) else float("inf")


def _measure(signal: str, words: Counts, order: int) -> Signal:
    if signal not in _SIGNALS:
        raise ValueError(f"signal {signal!r}: expected a function or one of {', '.join(_SIGNALS)}")
    model = ByteNgrams(words, order=order)
    return model.surprisals if signal == "surprisal" else model.entropies
