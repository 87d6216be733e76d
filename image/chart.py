"""A line chart drawn with Pillow: numbers over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 40, 52
# Drawn so many times larger and scaled down: Pillow's lines are not smooth.
OVERSAMPLING = 3
INK, GRID = "#333333", "#e4e4e4"


@dataclass(frozen=True)
class Line:
    """(x, y) points by rising x > 0; what is not finite is left out."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str
    is_dashed: bool = False

    @property
    def finite(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in self.points if math.isfinite(x) and math.isfinite(y)]


def draw_chart(lines: Sequence[Line], *, title: str, x_title: str, y_title: str) -> Image.Image:
    """RGB, WIDTH x HEIGHT: x in powers of two, y linear, a legend below right. ValueError without points."""
    points = [point for line in lines for point in line.finite]
    if not points:
        raise ValueError("no finite point to draw: expected at least one")
    return _Chart(points).draw(lines, title, x_title, y_title)


class _Chart:
    """Ranges of the axes and the picture in the making."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        xs, ys = zip(*points, strict=True)
        self.low_x, self.high_x = math.floor(math.log2(min(xs))), math.ceil(math.log2(max(xs)))
        self.low_y, self.high_y = 2 * math.floor(min(ys) / 2), 2 * math.ceil(max(ys) / 2)
        self.high_x = max(self.high_x, self.low_x + 1)
        self.high_y = max(self.high_y, self.low_y + 2)
        self.image = Image.new("RGB", (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING), "white")
        self.pen = ImageDraw.Draw(self.image)

    def draw(self, lines: Sequence[Line], title: str, x_title: str, y_title: str) -> Image.Image:
        self._axes()
        self._text((WIDTH - RIGHT, TOP - 12), title, 13, "rs")
        self._text((LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 8), x_title, 13, "md")
        self._text((LEFT - 26, TOP - 12), y_title, 13, "ls")
        for line in lines:
            self._line(line)
        self._legend(lines)
        return self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of the finished picture."""
        across = (math.log2(x) - self.low_x) / (self.high_x - self.low_x)
        up = (y - self.low_y) / (self.high_y - self.low_y)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def _axes(self) -> None:
        for power in range(self.low_x, self.high_x + 1):
            x, bottom = self.place(2.0**power, self.low_y)
            self._stroke([(x, TOP), (x, bottom)], GRID, 1)
            self._text((x, bottom + 6), f"{2.0**power:g}", 12, "ma")
        for level in range(self.low_y, self.high_y + 1, 2):
            left, y = self.place(2.0**self.low_x, level)
            self._stroke([(left, y), (WIDTH - RIGHT, y)], GRID, 1)
            self._text((left - 8, y), str(level), 12, "rm")

    def _line(self, line: Line) -> None:
        places = [self.place(x, y) for x, y in line.finite]
        for start, end in pairwise(places):
            if line.is_dashed:
                self._dashes(start, end, line.colour)
            else:
                self._stroke([start, end], line.colour, 2)
        if not line.is_dashed:
            for x, y in places:
                self._dot(x, y, line.colour)

    def _dashes(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        pieces = max(1, round(math.dist(start, end) / 10))
        for piece in range(pieces):
            ends = [
                tuple(a + (b - a) * share / pieces for a, b in zip(start, end, strict=True))
                for share in (piece, piece + 0.6)
            ]
            self._stroke([(ends[0][0], ends[0][1]), (ends[1][0], ends[1][1])], colour, 2)

    def _legend(self, lines: Sequence[Line]) -> None:
        left, top = WIDTH - RIGHT - 210, HEIGHT - BOTTOM - 14 - 20 * len(lines)
        box = [v * OVERSAMPLING for v in (left - 10, top - 6, WIDTH - RIGHT - 8, HEIGHT - BOTTOM - 10)]
        self.pen.rectangle(box, fill="white", outline=GRID, width=OVERSAMPLING)
        for row, line in enumerate(lines):
            y = top + 10 + 20 * row
            if line.is_dashed:
                self._dashes((left, y), (left + 26, y), line.colour)
            else:
                self._stroke([(left, y), (left + 26, y)], line.colour, 2)
                self._dot(left + 13, y, line.colour)
            self._text((left + 36, y), line.label, 13, "lm")

    def _stroke(self, points: Sequence[tuple[float, float]], colour: str, width: int) -> None:
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self.pen.line(scaled, fill=colour, width=width * OVERSAMPLING)

    def _dot(self, x: float, y: float, colour: str) -> None:
        box = [(v + side) * OVERSAMPLING for side in (-3.2, 3.2) for v in (x, y)]
        self.pen.ellipse(box, fill=colour)

    def _text(self, place: tuple[float, float], text: str, size: int, anchor: str) -> None:
        at = (place[0] * OVERSAMPLING, place[1] * OVERSAMPLING)
        self.pen.text(at, text, fill=INK, font=ImageFont.load_default(size * OVERSAMPLING), anchor=anchor)
