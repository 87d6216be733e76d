"""The verb `usage`: how well `.tok` files use their codebooks."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict

from .jobs import find_tok
from .report import Report, print_table
from .tokens import Tokens
from .usage import CodebookCount, CodebookUsage


def usage_files(options: Namespace) -> int:
    """One table over all files; the bad ones, and those of another tokenizer than the first, are skipped."""
    report = Report(options.json)
    maker: tuple[str, str | None] | None = None
    count = CodebookCount(())
    for path, _ in find_tok(options.inputs):
        try:
            tokens = Tokens.load(path)
            facts = tokens.facts
            if maker is None:
                maker, count = (facts.name, facts.fingerprint), CodebookCount(facts.codebook_sizes)
            if maker != (facts.name, facts.fingerprint):
                raise ValueError(
                    f"tokens of {facts.name}, the first were of {maker[0]}: count them by themselves"
                )
            count.add(tokens.values[tokens.mask])
        except (ValueError, OSError) as error:
            report.failed(path, error)
    levels = count.summary()
    if options.json:
        print(json.dumps([asdict(level) | {"unused": level.unused} for level in levels], indent=2))
    elif levels:
        print_table(usage_table(levels))
    return report.exit_code


def usage_table(levels: Sequence[CodebookUsage]) -> list[tuple[str, ...]]:
    """One row a codebook, with a heading; numbers as a reader wants them."""
    heading = (
        "codebook",
        "codes",
        "ids",
        "used",
        "unused",
        "expected used",
        "perplexity",
        "bits",
        "most frequent",
    )
    rows = [
        (
            str(number),
            str(level.size),
            str(level.count),
            str(level.used),
            str(level.unused),
            f"{level.expected:.0f}",
            f"{level.perplexity:.1f}",
            f"{level.entropy_bits:.2f}",
            f"{level.most_frequent:.4f}",
        )
        for number, level in enumerate(levels)
    ]
    return [heading, *rows]
