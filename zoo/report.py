"""What the command line says: tables on stdout, failures on stderr as they happen."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .media import Comparison


def comparison_table(rows: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Every item at every length, then the mean of each length."""
    names = list(rows[0].scores)
    table: list[tuple[str, ...]] = [("item", "tokens", "bytes", *names)]
    for item in dict.fromkeys(row.item for row in rows):
        table += [_cells(row.item, row.tokens, row.bytes, row.scores) for row in rows if row.item == item]
    for keep in dict.fromkeys(row.keep for row in rows):
        same = [row for row in rows if row.keep == keep]
        means = {name: _mean([row.scores[name] for row in same]) for name in names}
        tokens, size = _mean([row.tokens for row in same]), _mean([row.bytes for row in same])
        table.append(_cells(f"mean of {len(same)}", round(tokens), round(size), means))
    return table


def _mean(numbers: Sequence[float]) -> float:
    """Of equal counts the count itself, which is shown without decimals."""
    return numbers[0] if len({*numbers}) == 1 else sum(numbers) / len(numbers)


def _cells(item: str, tokens: int, size: int, scores: dict[str, float]) -> tuple[str, ...]:
    return (item, str(tokens), str(size), *(_digits(name, score) for name, score in scores.items()))


def _digits(name: str, score: float) -> str:
    """As many as mean something: none of a count, a hundredth of a decibel, else a thousandth."""
    if isinstance(score, int):
        return str(score)
    return f"{score:.{2 if name.endswith('dB') else 3}f}"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns of text, the first to the left and numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if column and _is_number(rows[-1][column]) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).lstrip("-").isdigit()


class Report:
    """What was done and what was not; failures go to stderr as they happen."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._done: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []

    def done(self, source: Path, target: Path, **numbers: int) -> None:
        self._done.append({"input": str(source), "output": str(target), **numbers})

    def failed(self, source: Path, error: BaseException) -> None:
        message = str(error)
        print(f"skipped {source}: {message.removeprefix(f'{source}: ')}", file=sys.stderr)
        self._failed.append({"input": str(source), "error": message})

    @property
    def exit_code(self) -> int:
        return 1 if self._failed else 0

    def finish(self, verb: str) -> int:
        if self._as_json:
            print(json.dumps({"done": self._done, "failed": self._failed}, indent=2))
        else:
            counts = [row["tokens"] for row in self._done]
            told = f", {min(counts)} to {max(counts)} tokens each" if counts else ""
            print(f"{verb} {len(self._done)} of {len(self._done) + len(self._failed)} files{told}")
        return self.exit_code
