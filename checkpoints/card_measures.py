"""What an evaluation found, on the model card: a table, `model-index` in the front matter, a gallery."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from ..zoo.facts import Facts
from ..zoo.gallery import Gallery
from ..zoo.measured import Figure, Level, Measured, measured_table
from .card import escaped
from .error import CheckpointError
from .files import CARD_FILE

MEASURED_FILE = "measured.json"
MAX_DIGITS = 4
_BEGIN, _END = "<!-- measured by tokenzoo -->", "<!-- end of what tokenzoo measured -->"
# Of the Hub's tasks, the nearest: it has none for tokenizers.
_TASKS = {
    "image": {"type": "image-to-image", "name": "Image reconstruction"},
    "audio": {"type": "audio-to-audio", "name": "Speech reconstruction"},
}


def add_measures(
    folder: str | os.PathLike[str],
    measured: Measured,
    gallery: Gallery | None = None,
    *,
    facts: Facts | None = None,
) -> None:
    """Put figures, and pictures or sounds, on the card of a saved folder, in the place of earlier ones.

    facts  of the tokenizer that the figures must be of; default: of the one in the folder, which is loaded

    Writes README.md, measured.json and the files of the gallery. CheckpointError for a folder without a card,
    ValueError for the figures of other weights.
    """
    path = Path(folder).expanduser()
    card_file = path / CARD_FILE
    if not card_file.is_file():
        raise CheckpointError(
            "no model card", source=folder, file=CARD_FILE, remedy="save the tokenizer there first"
        )
    if facts is None:
        from ..zoo.loading import load

        facts = load(path).facts
    measured.check_is_of(facts)
    for name, content in {} if gallery is None else gallery.files.items():
        _put(path / name, content)
    measured.save(path / MEASURED_FILE)
    card = measured_card(card_file.read_text(encoding="utf-8"), measured, gallery)
    _put(card_file, card.encode())


def _put(path: Path, content: bytes) -> None:
    """All of a file or nothing: the card may hold words of its owner."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def measured_card(card: str, measured: Measured, gallery: Gallery | None = None) -> str:
    """The card with its figures; what an earlier call put there goes, the rest stays as it is."""
    section = "\n\n".join(
        [_BEGIN, _table_section(measured), *([] if gallery is None else [_gallery_section(gallery)]), _END]
    )
    body = re.sub(rf"{re.escape(_BEGIN)}.*?{re.escape(_END)}\n*", "", card, flags=re.S)
    front, body = _split(body)
    front = {key: value for key, value in front.items() if key != "model-index"}
    front["model-index"] = [model_index(measured)]
    before, licence, after = body.partition("\n## Licence\n")
    told = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=110)
    return f"---\n{told}---\n{before.rstrip()}\n\n{section}\n{licence}{after}"


def model_index(measured: Measured) -> dict[str, Any]:
    """An entry of the Hub's `model-index`: a result of one task on one data set, a metric a figure."""
    digest = re.sub(r"[^a-z0-9.]+", "-", measured.data.lower()).strip("-.") or "data"
    return {
        "name": measured.tokenizer,
        "results": [
            {
                "task": dict(_TASKS[measured.modality]),
                "dataset": {"type": digest, "name": measured.data, "args": {"items": measured.items}},
                "metrics": [
                    _metric(figure, level, measured)
                    for level in reversed(measured.levels)  # all tokens first: the headline
                    for figure in level.figures
                ],
            }
        ],
    }


def _metric(figure: Figure, level: Level, measured: Measured) -> dict[str, Any]:
    at = "" if level.keep is None else f" at {level.keep} {measured.nested or 'tokens'}"
    args: dict[str, Any] = {
        f"bits_per_{measured.bits_per}": round(level.bits, MAX_DIGITS),
        "items": figure.items,
    }
    if figure.low is not None and figure.high is not None:
        args["interval"] = [round(figure.low, MAX_DIGITS), round(figure.high, MAX_DIGITS)]
    return {
        "type": figure.measure.name,
        "value": round(figure.mean, MAX_DIGITS),
        "name": f"{figure.measure.heading}{at}",
        "args": args,
    }


def _table_section(measured: Measured) -> str:
    table = measured_table(measured)
    lines = [f"| {' | '.join(map(escaped, row))} |" for row in table]
    lines.insert(1, "|" + "---:|" * len(table[0]))
    worse = [figure.measure.label for figure in measured.full.figures if not figure.measure.higher_is_better]
    better = f"Higher is better{f', but for {escaped(worse[0])}' if worse else ''}."
    fewer = sorted({f.items for level in measured.levels for f in level.figures if f.items < measured.items})
    judged = f" (of some measures {fewer[0]}: the others could not be judged)" if fewer else ""
    told = (
        f"Means over N = {measured.items}{judged} of {escaped(measured.data)}, in brackets the "
        f"{escaped(measured.interval)}. {better} {escaped(measured.notes)} "
        f"Measured by {escaped(measured.software)}; data `{_digest(measured.data_digest)}` (sha256), "
        f"weights `{_digest(measured.fingerprint or 'in training')}`. "
        f"All figures: [{MEASURED_FILE}]({MEASURED_FILE})."
    )
    return "\n".join(["## Measured", "", *lines, "", told])


def _gallery_section(gallery: Gallery) -> str:
    return f"## Gallery\n\n{gallery.text}"


def _digest(text: str) -> str:
    return re.sub(r"[^\w ]", "", text)[:12]


def _split(card: str) -> tuple[dict[str, Any], str]:
    """The front matter and the rest; {} for a card that has none, or one that is no YAML mapping."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.S)
    if match is None:
        return {}, card
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError:
        front = None
    if not isinstance(front, dict):
        raise CheckpointError(
            "the front matter of the card is no YAML mapping", source=CARD_FILE, remedy="mend or remove it"
        )
    return front, card[match.end() :]
