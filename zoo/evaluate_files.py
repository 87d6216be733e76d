"""The verb `tokenzoo eval` of pictures and speech: figures of every tokenizer over every data set."""

from __future__ import annotations

import json
from argparse import Namespace

from .evaluation import evaluate
from .jobs import UsageError
from .measured import Measured, measured_table
from .report import print_table


def evaluate_files(options: Namespace) -> int:
    """Tables on stdout, or JSON; returns the exit code.

    options  inputs (data sets), tokenizer (a list of names), keep, limit, device, out, json
    """
    from .loading import load

    if options.reference or options.limit_bytes:
        raise UsageError("--reference and --limit-bytes are for text: leave them out")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file: give a folder")
    found: list[Measured] = []
    for name in options.tokenizer:
        tokenizer = load(name, device=options.device)
        for data in options.inputs:
            measured = evaluate(tokenizer, data, keeps=options.keep, limit=options.limit)
            found.append(measured)
            if not options.json:
                _print(measured, first=len(found) == 1)
    if options.json:
        print(json.dumps([measured.to_dict() for measured in found], indent=2))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for measured in found:
            stem = f"{measured.tokenizer}-{measured.data}".replace("/", "-").replace(" ", "-")
            measured.save(options.out / f"{stem}.json")
    return 0


def _print(measured: Measured, first: bool) -> None:
    if not first:
        print()
    print_table(measured_table(measured))
    print(f"\n{measured.tokenizer} over {measured.items} items of {measured.data}; {measured.interval}")
    print(measured.notes)
