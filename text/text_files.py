"""Text files for the command line: whatever bytes they hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..zoo.facts import Facts
from ..zoo.media import Comparison, Medium
from ..zoo.tokenizer import Tokenizer


class TextFiles(Medium):
    """One file, one item."""

    suffixes = (".txt", ".md", ".rst", ".html", ".json", ".jsonl", ".csv")
    output_suffix = ".txt"

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def write(self, item: str | bytes, path: Path, facts: Facts) -> None:
        path.write_bytes(item if isinstance(item, bytes) else item.encode())

    def samples(self) -> list[Path]:
        return []

    def compare(
        self,
        tokenizer: Tokenizer,
        names: Sequence[str],
        items: Sequence[Any],
        keeps: Sequence[int | None],
        out: Path,
    ) -> list[Comparison]:
        """Encodes, decodes and counts; what comes back is written to `out`."""
        rows = []
        for name, item in zip(names, items, strict=True):
            original = item if isinstance(item, bytes) else item.encode()
            for keep in keeps:
                tokens = tokenizer.encode([item], keep=keep)
                back = tokenizer.decode(tokens)[0]
                back = back if isinstance(back, bytes) else back.encode()
                if keep is None:
                    self.write(back, out / f"{name}{self.output_suffix}", tokenizer.facts)
                count = int(tokens.lengths[0])
                scores = {"bytes/token": len(original) / max(count, 1), "exact": float(back == original)}
                rows.append(Comparison(name, keep, count, (int(tokens.bits[0]) + 7) // 8, scores))
        return rows
