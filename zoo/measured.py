"""What an evaluation found: means with their confidence intervals, as a frozen object, JSON and a table.

No torch: a model card is written from it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .facts import Facts

FORMAT_VERSION = 1
# The interval of a mean: percentile bootstrap over items.
CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
INTERVAL = f"{CONFIDENCE:.0%} percentile bootstrap over items, {RESAMPLES} resamples, seed {SEED}"
# After the point, of a figure in a table.
MAX_DIGITS = 6
# Resampled at once: an index for each item of each.
_BLOCK = 100


@dataclass(frozen=True)
class Measure:
    """What is measured of an item.

    name    as in JSON and on the Hub: "psnr"
    label   as a reader knows it: "PSNR"
    unit    "dB", or "" for none
    digits  that mean something after the point
    higher_is_better   False for distances
    """

    name: str
    label: str
    unit: str = ""
    digits: int = 2
    higher_is_better: bool = True

    @property
    def heading(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label


@dataclass(frozen=True)
class Figure:
    """The mean of one measure over items.

    low, high  of its confidence interval; None for a single item
    items      how many counted: those that could be judged, with a finite score
    """

    measure: Measure
    mean: float
    low: float | None
    high: float | None
    items: int


@dataclass(frozen=True)
class Level:
    """One kept count.

    keep     tokens, or codebooks; None for all there are
    tokens   mean count of an item
    bits     of a second of sound, or of an image: tokens times the log2 of their codebook sizes; 32 a float
    figures  one for each measure that could be taken
    """

    keep: int | None
    tokens: float
    bits: float
    figures: tuple[Figure, ...]

    def figure(self, name: str) -> Figure | None:
        """That of a measure, None where it was not taken."""
        return next((each for each in self.figures if each.measure.name == name), None)


@dataclass(frozen=True)
class Measured:
    """One tokenizer over one data set.

    tokenizer    its name; `revision` and `fingerprint` say which weights, None where there are none to tell
    modality     "image" or "audio"
    data         name of the data set; `data_digest` is the sha256 of what was read, in order
    items        N
    nested       the axis that `keep` counts along: "tokens", "codebooks" or None
    bits_per     "image" or "second"
    notes        how it was measured, for the reader of a card
    levels       by rising count, all tokens last
    originals    what the originals score, where a measure needs no reference
    interval     how the confidence intervals were found
    software     what measured: "tokenzoo 0.1.0"
    """

    tokenizer: str
    revision: str | None
    fingerprint: str | None
    modality: str
    data: str
    data_digest: str
    items: int
    nested: str | None
    bits_per: str
    notes: str
    levels: tuple[Level, ...]
    originals: tuple[Figure, ...] = ()
    interval: str = INTERVAL
    software: str = ""

    @property
    def keeps(self) -> tuple[int, ...]:
        """The counts that were measured besides all."""
        return tuple(level.keep for level in self.levels if level.keep is not None)

    @property
    def full(self) -> Level:
        """All tokens."""
        return self.levels[-1]

    def check_is_of(self, facts: Facts) -> None:
        """ValueError for the figures of other weights; where a side is in training, and has no fingerprint,
        for those of another name."""
        if None in (self.fingerprint, facts.fingerprint):
            is_same = self.tokenizer == facts.name
        else:
            is_same = self.fingerprint == facts.fingerprint
        if not is_same:
            raise ValueError(
                f"these figures are of {self.tokenizer} ({str(self.fingerprint)[:12]}), this is {facts.name} "
                f"({str(facts.fingerprint)[:12]}): measure it again"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Any) -> Measured:
        """The inverse of `to_dict`; ValueError for anything else."""
        if not isinstance(values, Mapping) or values.get("format_version") != FORMAT_VERSION:
            found = values.get("format_version") if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(
                f"figures of format {found!r}: expected {FORMAT_VERSION}, as `tokenzoo eval` writes"
            )
        try:
            known = {key: value for key, value in values.items() if key != "format_version"}
            levels = tuple(
                Level(**{**level, "figures": _figures(level["figures"])}) for level in known["levels"]
            )
            measured = cls(**{**known, "levels": levels, "originals": _figures(known["originals"])})
            measured._check()
        except (TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"these are no figures of `tokenzoo eval` ({error})") from error
        return measured

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Measured:
        """Read what `save` wrote; ValueError names the file when it holds anything else."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from error

    def _check(self) -> None:
        """ValueError for what no evaluation writes: a file may come from anywhere."""
        texts = [getattr(self, f.name) for f in fields(self) if str(f.type).startswith("str")]
        wrong = [text for text in texts if text is not None and not _is_line(text)]
        if wrong or not self.levels or not _is_count(self.items):
            raise ValueError(
                f"these are no figures of `tokenzoo eval` (found {str(wrong or self.items)[:80]})"
            )
        if self.modality not in ("image", "audio"):
            raise ValueError(f"modality {self.modality!r}: expected 'image' or 'audio'")
        if self.nested not in ("tokens", "codebooks", None):
            raise ValueError(f"nested {self.nested!r}: expected 'tokens', 'codebooks' or None")
        for level in self.levels:
            if level.keep is not None and not (_is_count(level.keep) and level.keep):
                raise ValueError(f"keep {level.keep!r}: expected an integer of at least 1, or None")
        for figure in (*self.originals, *(figure for level in self.levels for figure in level.figures)):
            _check_figure(figure)
        if not all(math.isfinite(level.bits) and math.isfinite(level.tokens) for level in self.levels):
            raise ValueError("bits and tokens: expected finite numbers")


def figure_of(measure: Measure, scores: Sequence[float]) -> Figure | None:
    """The mean of the finite scores, one an item, with its interval; None when there is none."""
    finite = np.array([score for score in scores if math.isfinite(score)])
    if not len(finite):
        return None
    low, high = interval(finite)
    return Figure(measure, float(finite.mean()), low, high, len(finite))


def interval(scores: np.ndarray) -> tuple[float | None, float | None]:
    """(low, high) of the mean of (N,) scores; None for a single one.

    Percentile bootstrap (Efron 1979): the mean of as many items drawn with replacement, RESAMPLES times. The
    same for the same scores, in any process.
    """
    if len(scores) < 2:
        return None, None
    generator = np.random.default_rng(SEED)
    means = [
        scores[generator.integers(0, len(scores), (_BLOCK, len(scores)))].mean(1)
        for _ in range(RESAMPLES // _BLOCK)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def measured_table(measured: Measured) -> list[tuple[str, ...]]:
    """A heading and a row a level, as text: "22.84 [22.10, 23.52]"."""
    measures = list(dict.fromkeys(figure.measure for level in measured.levels for figure in level.figures))
    counted = measured.nested or "tokens"
    rate = "kbps" if measured.bits_per == "second" else f"bits per {measured.bits_per}"
    table = [(counted, rate, *(measure.heading for measure in measures))]
    for level in measured.levels:
        count = "all" if level.keep is None else str(level.keep)
        if level.keep is None and counted == "tokens":
            count = f"{level.tokens:.4g}"
        bits = f"{level.bits / 1000:.3g}" if measured.bits_per == "second" else f"{level.bits:.4g}"
        table.append((count, bits, *(told_figure(level.figure(measure.name)) for measure in measures)))
    if measured.originals:
        by_name = {figure.measure.name: figure for figure in measured.originals}
        table.append(("originals", "", *(told_figure(by_name.get(measure.name), "") for measure in measures)))
    return table


def told_figure(figure: Figure | None, absent: str = "-") -> str:
    """As in a table: "22.84 [22.10, 23.52]"."""
    if figure is None:
        return absent
    digits = figure.measure.digits
    if figure.low is None or figure.high is None:
        return f"{figure.mean:.{digits}f}"
    return f"{figure.mean:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def _is_line(text: Any) -> bool:
    return isinstance(text, str) and text.isprintable()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_figure(figure: Figure) -> None:
    """ValueError for what would break a table, or is no number."""
    measure = figure.measure
    for text in (measure.name, measure.label, measure.unit):
        if not _is_line(text) or "|" in text:
            raise ValueError(f"a measure has the name {text!r}: expected one line without |")
    if not _is_count(measure.digits) or measure.digits > MAX_DIGITS:
        raise ValueError(f"{measure.name} has {measure.digits!r} digits: expected 0 ... {MAX_DIGITS}")
    if not _is_count(figure.items):
        raise ValueError(f"{measure.name} is of {figure.items!r} items: expected 0 or more")
    for number in (figure.mean, figure.low, figure.high):
        if number is not None and not (isinstance(number, int | float) and math.isfinite(number)):
            raise ValueError(f"{measure.name} is {number!r}: expected a finite number")


def _figures(values: Sequence[Mapping[str, Any]]) -> tuple[Figure, ...]:
    return tuple(Figure(**{**value, "measure": Measure(**value["measure"])}) for value in values)
