"""Text tokenizers side by side over languages: the table and the chart of `tokenzoo eval`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from PIL import Image
from tqdm import tqdm

from ..zoo import catalogue
from ..zoo.facts import Facts
from ..zoo.jobs import UsageError
from ..zoo.report import print_table
from .corpus import Corpus
from .dot_chart import draw_dots
from .measure_boundaries import Encoder
from .measure_entropy import capacity_utilisation, frequencies, renyi_efficiency
from .measure_length import bytes_per_token, fertility
from .measure_parallel import gini, premiums, spread

TABLE_FILE, CHART_FILE = "eval.json", "eval.png"


class EvaluatedTokenizer(Encoder, Protocol):
    """Any text tokenizer, bytes too."""

    @property
    def facts(self) -> Facts: ...


@dataclass(frozen=True)
class Measured:
    """One tokenizer on one language.

    bytes, tokens      of the text
    bytes_per_token, fertility, renyi_efficiency, capacity_utilisation   see text/measure_*.py
    exact              whether every text came back byte by byte
    premium            tokens over those of the reference language; None without one
    """

    tokenizer: str
    language: str
    bytes: int
    tokens: int
    bytes_per_token: float
    fertility: float
    renyi_efficiency: float
    capacity_utilisation: float
    exact: bool
    premium: float | None = None


@dataclass(frozen=True)
class Summary:
    """One tokenizer over all languages of a parallel text: how unequal their token counts are."""

    tokenizer: str
    bytes_per_token: float
    gini: float
    dearest_over_cheapest: float


def measure(
    tokenizer: EvaluatedTokenizer, texts: Sequence[str], *, name: str = "", language: str = ""
) -> Measured:
    """All that one pass over the texts of one language tells; ValueError when they hold no words."""
    ids = [tokenizer.encode_ids(text) for text in texts]
    counts = frequencies(ids)
    return Measured(
        tokenizer=name or tokenizer.facts.name,
        language=language,
        bytes=sum(len(text.encode()) for text in texts),
        tokens=int(counts.sum()),
        bytes_per_token=bytes_per_token(texts, ids),
        fertility=fertility(texts, ids),
        renyi_efficiency=renyi_efficiency(counts),
        capacity_utilisation=capacity_utilisation(counts, tokenizer.facts.vocab_size),
        exact=all(_came_back(tokenizer, text, each) for text, each in zip(texts, ids, strict=True)),
    )


def evaluate(
    tokenizers: Mapping[str, EvaluatedTokenizer], corpus: Corpus, *, reference: str | None = None
) -> list[Measured]:
    """Every tokenizer on every domain of a corpus, which are languages.

    reference  that all tell the same text, and the language whose costs are 1

    Languages without words are skipped, and named on stderr. ValueError for a reference that is not there, or
    when nothing is left.
    """
    if reference is not None and reference not in corpus.domains:
        known = ", ".join(corpus.domains)
        raise ValueError(f"no text of the reference {reference!r}; there are {known}")
    texts: dict[str, list[str]] = {language: [] for language in corpus.domains}
    for language, text, _ in corpus.walk():
        texts[language].append(text)
    for language in [language for language, each in texts.items() if not any(map(str.split, each))]:
        if language == reference or len(texts) == 1:
            raise ValueError(f"{language} holds no words: expected text")
        print(f"skipped {language}: it holds no words", file=sys.stderr)
        del texts[language]
    jobs = [(name, language) for name in tokenizers for language in texts]
    found = []
    for name, language in tqdm(jobs, desc="evaluate", file=sys.stderr, disable=None, leave=False):
        try:
            found.append(measure(tokenizers[name], texts[language], name=name, language=language))
        except ValueError as error:
            raise ValueError(f"{name} on {language}: {error}") from error
    return found if reference is None else _with_premiums(found, reference)


def summaries(rows: Sequence[Measured]) -> list[Summary]:
    """One for each tokenizer; of languages that tell the same text."""
    found = []
    for name in dict.fromkeys(row.tokenizer for row in rows):
        own = [row for row in rows if row.tokenizer == name]
        costs = [row.tokens for row in own]
        found.append(Summary(name, sum(row.bytes for row in own) / sum(costs), gini(costs), spread(costs)))
    return found


def evaluate_files(options: Namespace) -> int:
    """The verb `tokenzoo eval`; returns the exit code.

    options  inputs, tokenizer (a list of names, or None), reference, limit_bytes, out, json
    """
    names = options.tokenizer or ["bytes", catalogue.DEFAULT["text"]]
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file: give a folder")
    corpus = _languages(options.inputs)
    if options.limit_bytes is not None:
        corpus = corpus.limited(options.limit_bytes)
    if options.reference is not None and options.reference not in corpus.domains:
        raise UsageError(f"--reference {options.reference}: there are {', '.join(corpus.domains)}")
    tokenizers = _load(names)
    rows = evaluate(tokenizers, corpus, reference=options.reference)
    over_all = [] if options.reference is None else summaries(rows)
    left_out = corpus.left_out()
    for language, count in left_out.items():
        print(f"left out of {language}: {count} bytes that are no UTF-8", file=sys.stderr)
    told = {
        "rows": [asdict(row) for row in rows],
        "summaries": [asdict(each) for each in over_all],
        "left_out_bytes": left_out,
    }
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        _print(rows, over_all)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / TABLE_FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        chart(rows, options.reference).save(options.out / CHART_FILE, optimize=True)
        print(f"\n{TABLE_FILE} and {CHART_FILE} written to {options.out}/", file=sys.stderr)
    return 0


def chart(rows: Sequence[Measured], reference: str | None = None) -> Image.Image:
    """Premiums where there are some, else bytes per token; what the first tokenizer does best comes first."""
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        shown = row.bytes_per_token if row.premium is None else row.premium
        values.setdefault(row.tokenizer, {})[row.language] = shown
    first = values[rows[0].tokenizer]
    order = sorted(first, key=lambda language: -first[language] if reference is None else first[language])
    if reference is None:
        return draw_dots(values, order, title="Text in a token", x_title="bytes per token")
    return draw_dots(values, order, title=f"Tokens of the same text, {reference} = 1", x_title="premium")


def _load(names: Sequence[str]) -> dict[str, EvaluatedTokenizer]:
    """By the name that their facts give, or the one given here where two would share it."""
    from ..zoo.loading import load

    found: dict[str, EvaluatedTokenizer] = {}
    for name in dict.fromkeys(names):
        loaded = load(name)
        facts = loaded.facts
        if facts.modality != "text":
            raise UsageError(f"--tokenizer {name} is for {facts.modality}: eval compares text tokenizers")
        label = name if facts.name in found else facts.name
        found[label] = loaded  # pyright: ignore[reportArgumentType]  # text tokenizers have these methods
    return found


def _came_back(tokenizer: EvaluatedTokenizer, text: str, ids: Sequence[int]) -> bool:
    """Byte by byte; without what some tokenizers put in themselves and take out again."""
    return getattr(tokenizer, "restore", tokenizer.decode_bytes)(ids) == text.encode()


def _with_premiums(rows: Sequence[Measured], reference: str) -> list[Measured]:
    found = []
    for row in rows:
        own = {each.language: float(each.tokens) for each in rows if each.tokenizer == row.tokenizer}
        found.append(replace(row, premium=premiums(own, reference)[row.language]))
    return found


def _languages(inputs: Sequence[Path]) -> Corpus:
    """A language for each file, and for each file and folder inside a folder."""
    found = {}
    for given in inputs:
        held = Corpus.of_folder(given) if given.is_dir() else Corpus.of_files({given.stem: given})
        if both := set(found) & set(held.domains):
            raise UsageError(f"{given}: {', '.join(sorted(both))} came before; a name is a language")
        found |= held.domains
    return Corpus(found)


def _print(rows: Sequence[Measured], over_all: Sequence[Summary]) -> None:
    head = (
        "tokenizer",
        "language",
        "bytes",
        "tokens",
        "bytes/token",
        "fertility",
        "Rényi",
        "utilised",
        "exact",
    )
    table: list[tuple[str, ...]] = [(*head, "premium") if over_all else head]
    for row in rows:
        cells = (
            row.tokenizer,
            row.language,
            str(row.bytes),
            str(row.tokens),
            f"{row.bytes_per_token:.3f}",
            f"{row.fertility:.3f}",
            f"{row.renyi_efficiency:.4f}",
            f"{row.capacity_utilisation:.4f}",
            "yes" if row.exact else "no",
        )
        table.append(cells if row.premium is None else (*cells, f"{row.premium:.3f}"))
    print_table(table)
    if not over_all:
        return
    print()
    table = [("tokenizer", "bytes/token", "Gini", "dearest/cheapest")]
    for each in over_all:
        numbers = (each.bytes_per_token, each.gini, each.dearest_over_cheapest)
        table.append((each.tokenizer, *(f"{number:.3f}" for number in numbers)))
    print_table(table)
