"""How fast text becomes ids, beside the libraries that do the same, and whether the ids are the same.

    python -m tokenzoo.text.bench FILES... --tokenizer tokenizer.json

All take turns on blocks of the same documents, so that what else the machine does slows them down alike,
and what counts is CPU time. Peers that are not installed, or do not take the vocabulary, are left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..zoo.loading import load
from ..zoo.report import print_table
from .plain import DEFINITION_FILE, PlainTokenizer
from .text_files import TextFiles

Encode = Callable[[str], list[int]]
_BLOCK_BYTES, _DOCUMENT_CHARACTERS = 1 << 18, 3000
_REFERENCE = "tokenizers"


@dataclass(frozen=True)
class Speed:
    """One contender.

    first, best      megabytes in a CPU second, in the first round and in the best
    different        documents whose ids are not those of the library `tokenizers`
    """

    name: str
    first: float
    best: float
    different: int


def measure(tokenizer: PlainTokenizer, documents: Sequence[str], rounds: int = 2) -> list[Speed]:
    """Every contender over all documents, `tokenizers` first."""
    contenders = _contenders(tokenizer)
    blocks = _blocks(documents)
    seconds = {name: [0.0] * rounds for name in contenders}
    different = dict.fromkeys(contenders, 0)
    for turn in range(rounds):
        for block in blocks:
            expected: list[list[int]] = []
            for name, encode in contenders.items():
                start = time.process_time()
                found = [encode(document) for document in block]
                seconds[name][turn] += time.process_time() - start
                if turn == 0:
                    expected = found if name == _REFERENCE else expected
                    different[name] += sum(one != two for one, two in zip(found, expected, strict=True))
    size = sum(len(document.encode()) for document in documents) / 1e6
    return [
        Speed(name, size / max(taken[0], 1e-9), size / max(min(taken), 1e-9), different[name])
        for name, taken in seconds.items()
    ]


def _documents(text: str) -> list[str]:
    """A file in parts of a few kilobytes, cut at the ends of lines: as long as most texts are."""
    parts: list[list[str]] = [[]]
    size = 0
    for line in text.splitlines(keepends=True):
        if size > _DOCUMENT_CHARACTERS:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line)
    return ["".join(part) for part in parts]


def _blocks(documents: Sequence[str]) -> list[list[str]]:
    blocks: list[list[str]] = [[]]
    size = 0
    for document in documents:
        blocks[-1].append(document)
        size += len(document.encode())
        if size >= _BLOCK_BYTES:
            blocks.append([])
            size = 0
    return [block for block in blocks if block]


def _contenders(tokenizer: PlainTokenizer) -> dict[str, Encode]:
    """Name -> text to ids, of those that run here."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DEFINITION_FILE
        path.write_bytes(tokenizer.files()[DEFINITION_FILE])
        makers: dict[str, Callable[[PlainTokenizer, Path], Encode]] = {
            _REFERENCE: _tokenizers,
            "tokenzoo": lambda ours, _: ours.encode_ids,
            "tiktoken, plain pattern": _tiktoken,
            "riptoken": _riptoken,
            "snaptokens": _snaptokens,
            "gigatoken": _gigatoken,
            "kitoken": _kitoken,
        }
        found: dict[str, Encode] = {}
        for name, make in makers.items():
            try:
                encode = make(tokenizer, path)
                encode("to see whether it runs")
            except (ImportError, ValueError, RuntimeError, TypeError, AttributeError, OSError) as error:
                print(f"{name} is left out: {str(error).splitlines()[0][:100]}", file=sys.stderr)
            else:
                found[name] = encode
    return found


def _tokenizers(_: PlainTokenizer, path: Path) -> Encode:
    library = importlib.import_module("tokenizers").Tokenizer.from_file(str(path))
    library.encode_special_tokens = True
    return lambda text: library.encode(text, add_special_tokens=False).ids


def _tiktoken(tokenizer: PlainTokenizer, _: Path) -> Encode:
    return _core("tiktoken._tiktoken", tokenizer, grouped=False)


def _riptoken(tokenizer: PlainTokenizer, _: Path) -> Encode:
    return _core("riptoken", tokenizer, grouped=True)


def _core(module: str, tokenizer: PlainTokenizer, *, grouped: bool) -> Encode:
    cut = tokenizer.pretokenizer
    if tokenizer.engine.name != "tiktoken" or cut is None or not cut.cuts_before_spaces:
        raise ValueError("it has no ranks for this vocabulary, or its pattern leaves text out")
    regex = cut.tiktoken_regex if grouped else cut.regex
    return importlib.import_module(module).CoreBPE(tokenizer.vocab.index, {}, regex).encode_ordinary


def _snaptokens(_: PlainTokenizer, path: Path) -> Encode:
    peer: Any = importlib.import_module("snaptokens").Tokenizer.from_file(str(path))
    return lambda text: list(peer.encode(text, add_special_tokens=False).ids)


def _gigatoken(_: PlainTokenizer, path: Path) -> Encode:
    peer: Any = importlib.import_module("gigatoken").Tokenizer(str(path))
    return lambda text: list(peer.encode(text))


def _kitoken(_: PlainTokenizer, path: Path) -> Encode:
    peer: Any = importlib.import_module("kitoken").Kitoken.from_file(str(path))
    return lambda text: list(peer.encode(text, False))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 1 when our ids differ from those of `tokenizers`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("inputs", nargs="+", type=Path, help="text files, or folders to search through")
    parser.add_argument(
        "--tokenizer", required=True, help="a tokenizer.json, or whatever tokenzoo.load takes"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of which the best counts (default: 2)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    options = parser.parse_args(arguments)
    tokenizer = load(options.tokenizer)
    if not isinstance(tokenizer, PlainTokenizer):
        raise ValueError(f"{options.tokenizer} is no tokenizer that a tokenizer.json describes")
    found = TextFiles().find(options.inputs)
    documents = [part for path, _ in found for part in _documents(path.read_text(errors="replace"))]
    rows = measure(tokenizer, documents, options.rounds)
    if options.json:
        print(json.dumps([vars(row) for row in rows], indent=2))
    else:
        slowest = rows[0].first
        cells = [
            (
                row.name,
                f"{row.first:.1f}",
                f"{row.best:.1f}",
                f"{row.first / slowest:.1f}",
                str(row.different),
            )
            for row in rows
        ]
        print_table([("LIBRARY", "MB/CPU-S", "BEST", "TIMES", "DIFFERENT IDS"), *cells])
    return int(any(row.different for row in rows if row.name == "tokenzoo"))


if __name__ == "__main__":
    sys.exit(main())
