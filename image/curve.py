"""A measured curve of an image tokenizer: the table and the chart people see, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from PIL import Image

from .chart import Line, draw_chart

_LEGEND = (
    "Means over {images} photographs of {width} x {height} pixels: PSNR in dB / SSIM; the highest PSNR of a "
    "row is bold. Bytes are those of the packed ids. The thumbnail has at most as many pixels as there are "
    "tokens, scaled down by Lanczos and up by bicubic; stored plainly it would take three bytes a pixel. "
    "JPEG, WebP and AVIF are whole files, headers and all, as Pillow writes them, at the same mean bytes; "
    '"from" names the smallest mean size the codec reaches at full resolution.'
)


@dataclass(frozen=True)
class Score:
    """Means over images: dB, 1 for equal images, and bytes of one image."""

    psnr_db: float
    ssim: float
    bytes: float


@dataclass(frozen=True)
class Row:
    """One length: the tokenizer's score, a thumbnail of as many pixels, and codecs at as many bytes.

    codecs  by name; None where the codec cannot make files so small (or so large)
    """

    tokens: int
    tokenizer: Score
    thumbnail: Score
    thumbnail_size: tuple[int, int]
    codecs: dict[str, Score | None]


@dataclass(frozen=True)
class Curve:
    """Rows by rising length, and every measured point of each codec by rising bytes (none: no encoder).

    fingerprint  of the weights that were measured
    """

    tokenizer: str
    fingerprint: str | None
    images: int
    size: tuple[int, int]
    rows: tuple[Row, ...]
    measured: dict[str, tuple[Score, ...]]


def to_markdown(curve: Curve) -> str:
    """The table, with a sentence on how to read it; the highest PSNR of each row is bold."""
    head = ["tokens", "bytes", f"`{curve.tokenizer}` PSNR / SSIM", "thumbnail", *curve.measured]
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for row in curve.rows:
        rivals = [row.thumbnail, *(score for score in row.codecs.values() if score is not None)]
        best = max(round(score.psnr_db, 2) for score in (row.tokenizer, *rivals))
        cells = [
            str(row.tokens),
            f"{row.tokenizer.bytes:.0f}",
            _cell(row.tokenizer, best),
            _cell(row.thumbnail, best),
        ]
        for name, score in row.codecs.items():
            cells.append(
                _absent(curve.measured[name], row.tokenizer.bytes) if score is None else _cell(score, best)
            )
        lines.append(f"| {' | '.join(cells)} |")
    width, height = curve.size
    legend = _LEGEND.format(images=curve.images, width=width, height=height)
    return "\n".join([*lines, "", legend, ""])


def to_chart(curve: Curve) -> Image.Image:
    """PSNR over bytes: the tokenizer, the thumbnail at the bytes of as many tokens, and the codecs."""
    at = [row.tokenizer.bytes for row in curve.rows]
    lines = [
        Line(
            curve.tokenizer,
            list(zip(at, [row.tokenizer.psnr_db for row in curve.rows], strict=True)),
            "#c0392b",
        ),
        Line(
            "thumbnail, a pixel a token",
            list(zip(at, [row.thumbnail.psnr_db for row in curve.rows], strict=True)),
            "#7f8c8d",
            is_dashed=True,
        ),
    ]
    for (name, points), colour in zip(
        curve.measured.items(), ("#2471a3", "#1e8449", "#7d3c98"), strict=False
    ):
        if points:
            lines.append(Line(name, [(point.bytes, point.psnr_db) for point in points], colour))
    width, height = curve.size
    title = f"{curve.images} photographs, {width} x {height} pixels"
    return draw_chart(lines, title=title, x_title="bytes of one image (log scale)", y_title="PSNR, dB")


def _cell(score: Score, best: float) -> str:
    level = f"{score.psnr_db:.2f}"
    return f"{f'**{level}**' if round(score.psnr_db, 2) == best else level} / {score.ssim:.3f}"


def _absent(points: Sequence[Score], size: float) -> str:
    if not points:
        return "no encoder"
    return (
        f"from {points[0].bytes:.0f} bytes" if size < points[0].bytes else f"to {points[-1].bytes:.0f} bytes"
    )


def to_json(curve: Curve) -> str:
    """JSON; an infinite PSNR (equal images) becomes null, since JSON has no such number."""
    text = json.dumps(asdict(curve))
    return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=1) + "\n"
