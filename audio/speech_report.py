"""A speech tokenizer beside Opus on the same recordings: `python -m tokenzoo.audio.speech_report`.

    python -m tokenzoo.audio.speech_report NAME --data data/speech/unseen.npy --out docs/

measures the tokenizer at every number of codebooks and Opus at 6 kbps by the same measures, prints Markdown
with what was won and what was lost, and quotes figures of EnCodec that others published. With `--out` it
writes NAME_speech.md and .json. Wants `pip install "tokenzoo[speech-measures,pesq]"`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..zoo.evaluation import evaluate
from ..zoo.facts import Facts
from ..zoo.loading import load
from ..zoo.measured import Figure, Level, Measure, Measured, told_figure
from .peers_opus import evaluate_opus

OPUS_BPS = 6000
# 20 ms is what calls use; 60 ms is the best that Opus does at this rate.
OPUS_FRAMES_MS = (20, 60)
SHOWN = ("pesq", "stoi", "si_sdr", "mel_distance", "dnsmos")
# (kbps, PESQ, STOI) of encodec_24khz.
ENCODEC_PUBLISHED = (
    (1.5, 1.462, 0.773),
    (3.0, 1.923, 0.841),
    (6.0, 2.538, 0.893),
    (12.0, 3.114, 0.930),
    (24.0, 3.467, 0.952),
)
ENCODEC_SOURCE = (
    "EnCodec's figures (24 kHz model) are those that Codec-SUPERB publishes (arXiv 2402.13071; "
    "<https://github.com/voidful/Codec-SUPERB>, `web/src/results/data.js`), over its own data, which is not "
    "speech alone: they are quoted, not measured here, and nothing is won or lost against them."
)


def speech_report(ours: Measured, opus: Sequence[Measured]) -> str:
    """Markdown: the table, what was won and lost, and the quoted figures.

    ours, opus  over the same data; ValueError when they are not
    """
    for peer in opus:
        if peer.data_digest != ours.data_digest:
            raise ValueError(f"{peer.tokenizer} was measured over other data than {ours.tokenizer}")
    measures = [f.measure for name in SHOWN if (f := ours.full.figure(name)) is not None]
    head = ["codec", "kbps", *(measure.heading for measure in measures)]
    rows = [_row(f"`{ours.tokenizer}`, {_codebooks(level)}", level, measures) for level in ours.levels]
    rows += [_row(peer.tokenizer, peer.full, measures) for peer in opus]
    if ours.originals:
        by_name = {figure.measure.name: figure for figure in ours.originals}
        rows.append(
            ["the recordings themselves", "", *(told_figure(by_name.get(m.name), "") for m in measures)]
        )
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    lines.insert(1, "|---|" + "---:|" * (len(head) - 1))
    told = (
        f"Means over N = {ours.items} recordings of {ours.data} (sha256 `{ours.data_digest[:12]}`), in "
        f"brackets the {ours.interval}. {ours.notes} Opus is libopus, variable bit rate, tuned for voice; "
        "its kbps count packets without a container, and it codes up to 4 kHz at this rate by its own choice."
    )
    quoted = ["| EnCodec, published | PESQ | STOI |", "|---:|---:|---:|"]
    quoted += [f"| {kbps:g} kbps | {pesq:.2f} | {stoi:.3f} |" for kbps, pesq, stoi in ENCODEC_PUBLISHED]
    verdicts = [verdict(ours, peer) for peer in opus]
    return "\n".join([*lines, "", told, "", *verdicts, "", *quoted, "", ENCODEC_SOURCE, ""])


def verdict(ours: Measured, peer: Measured) -> str:
    """A sentence: which measures are won at full rate, which lost, and which are too close to call.

    Won or lost where the confidence intervals of the two means lie apart.
    """
    places: dict[str, list[str]] = {"won": [], "lost": [], "too close to call": []}
    for name in SHOWN:
        mine, theirs = ours.full.figure(name), peer.full.figure(name)
        if mine is not None and theirs is not None:
            places[_compared(mine, theirs)].append(mine.measure.label)
    told = "; ".join(f"{outcome}: {', '.join(labels)}" for outcome, labels in places.items() if labels)
    ratio = peer.full.bits / ours.full.bits
    return (
        f"- `{ours.tokenizer}` at {ours.full.bits / 1000:.3g} kbps beside {peer.tokenizer}, which spends "
        f"{ratio:.2g} times the bits: {told}."
    )


def all_keeps(facts: Facts) -> list[int]:
    """Every number of codebooks but all of them."""
    if facts.nested != "codebooks":
        return []
    count = len(facts.codebook_sizes)
    return [keep for keep in facts.keeps or range(1, count) if keep < count]


def _compared(mine: Figure, theirs: Figure) -> str:
    sign = 1 if mine.measure.higher_is_better else -1
    (low, high), (their_low, their_high) = (
        sorted(sign * (end if end is not None else figure.mean) for end in (figure.low, figure.high))
        for figure in (mine, theirs)
    )
    if low > their_high:
        return "won"
    return "lost" if high < their_low else "too close to call"


def _row(label: str, level: Level, measures: Sequence[Measure]) -> list[str]:
    figures = [level.figure(measure.name) for measure in measures]
    return [label, f"{level.bits / 1000:.3g}", *(told_figure(figure) for figure in figures)]


def _codebooks(level: Level) -> str:
    if level.keep is None:
        return "all codebooks"
    return f"{level.keep} codebook{'' if level.keep == 1 else 's'}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tokenzoo.audio.speech_report", description=__doc__)
    parser.add_argument("name", help="catalogue name, Hub id or folder of a speech tokenizer")
    parser.add_argument("--data", required=True, type=Path, help="folder of sounds, or .npy of speech_pool")
    parser.add_argument("--out", type=Path, help="folder for NAME_speech.md and .json")
    parser.add_argument("--limit", type=int, help="only so many recordings, evenly spread")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args(arguments)
    try:
        tokenizer = load(chosen.name, device=chosen.device)
        ours = evaluate(tokenizer, chosen.data, keeps=all_keeps(tokenizer.facts), limit=chosen.limit)
        opus = [evaluate_opus(chosen.data, OPUS_BPS, ms, limit=chosen.limit) for ms in OPUS_FRAMES_MS]
        page = speech_report(ours, opus)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"speech_report: {error}", file=sys.stderr)
        return 1
    print(page)
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        stem = chosen.out / f"{ours.tokenizer.replace('-', '_').replace('/', '_')}_speech"
        stem.with_suffix(".md").write_text(page, encoding="utf-8")
        told = [measured.to_dict() for measured in (ours, *opus)]
        stem.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
