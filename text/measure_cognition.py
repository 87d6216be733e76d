"""Whether words that take readers longer are cut into more tokens (Beinborn & Pinter, EMNLP 2023).

The table of a lexical decision task is the user's to bring, e.g. out of the British Lexicon Project.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_COLUMNS = ("word", "is_word", "reaction_time", "accuracy")


@dataclass(frozen=True)
class Decision:
    """What readers did when asked whether these letters are a word.

    is_word        whether they are
    reaction_time  mean, in any unit
    accuracy       share that was right
    """

    word: str
    is_word: bool
    reaction_time: float
    accuracy: float


@dataclass(frozen=True)
class Plausibility:
    """Pearson's correlation of chunkability with what readers did.

    Expected of a plausible tokenizer: words in fewer pieces are known sooner and more surely, non-words in
    fewer pieces are rejected later and less surely.
    """

    word_time: float
    word_accuracy: float
    other_time: float
    other_accuracy: float

    @property
    def score(self) -> float:
        """Mean of their absolute values."""
        values = (self.word_time, self.word_accuracy, self.other_time, self.other_accuracy)
        return sum(map(abs, values)) / len(values)


def chunkability(word: str, tokens: int) -> float:
    """1 - tokens over characters: 0 when every character is a token, near 1 when one token holds all."""
    if not word:
        raise ValueError("an empty word has no chunkability")
    return 1 - tokens / len(word)


def plausibility(decisions: Sequence[Decision], count: Callable[[str], int]) -> Plausibility:
    """Correlations over words and over non-words.

    count  tokens of a word; `tokenizer.count` will do, or of " " + word where that is what a text holds

    ValueError when either has fewer than two, or all of one kind have the same value: nothing
    correlates then.
    """
    found: list[float] = []
    for is_word in (True, False):
        chosen = [each for each in decisions if each.is_word == is_word]
        cut = [chunkability(each.word, count(each.word)) for each in chosen]
        kind = "words" if is_word else "non-words"
        found.append(_pearson(cut, [each.reaction_time for each in chosen], f"reaction times of {kind}"))
        found.append(_pearson(cut, [each.accuracy for each in chosen], f"accuracies of {kind}"))
    return Plausibility(*found)


def read_decisions(path: str | os.PathLike[str]) -> list[Decision]:
    """A CSV with the columns word, is_word (1 or 0), reaction_time and accuracy. ValueError for other columns
    or values, naming the line."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if missing := set(_COLUMNS) - set(rows.fieldnames or ()):
            raise ValueError(
                f"{path}: no column {', '.join(sorted(missing))}; expected {', '.join(_COLUMNS)}"
            )
        found = []
        for row in rows:
            try:
                is_word = {"1": True, "0": False}[row["is_word"]]
                found.append(
                    Decision(row["word"], is_word, float(row["reaction_time"]), float(row["accuracy"]))
                )
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(f"{path}: line {rows.line_num} is ill-formed: {row}") from error
    return found


def _pearson(left: Sequence[float], right: Sequence[float], what: str) -> float:
    if len(left) < 2 or min(left) == max(left) or min(right) == max(right):
        raise ValueError(f"{len(left)} {what}: expected two or more that differ, in chunkability too")
    return float(np.corrcoef(left, right)[0, 1])
