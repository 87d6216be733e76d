"""A dot chart drawn with Pillow: a row a language, a dot a tokenizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, ROW = 760, 24
LEFT, RIGHT, TOP, BOTTOM = 110, 30, 44, 48
# Drawn so many times larger and scaled down: Pillow's edges are not smooth.
OVERSAMPLING = 3
INK, GRID = "#333333", "#e4e4e4"
COLOURS = ("#c0392b", "#2471a3", "#229954", "#b9770e", "#7d3c98", "#5d6d7e", "#d35fa0", "#117a65")
_STEPS = (1, 2, 5)


def draw_dots(
    values: Mapping[str, Mapping[str, float]], rows: Sequence[str], *, title: str, x_title: str
) -> Image.Image:
    """RGB, WIDTH pixels wide, ROW high for each row and each entry of the legend below.

    values  name -> row -> value from 0 up; what is missing or not finite is left out
    rows    from top to bottom

    ValueError when nothing is left to draw.
    """
    finite = [value for held in values.values() for value in held.values() if math.isfinite(value)]
    if not finite or not rows:
        raise ValueError("no finite value to draw: expected at least one")
    chart = _Chart(len(rows), len(values), max(finite))
    chart.axes(rows, title, x_title)
    for number, (name, held) in enumerate(values.items()):
        colour = COLOURS[number % len(COLOURS)]
        for row, label in enumerate(rows):
            if math.isfinite(value := held.get(label, math.nan)):
                chart.dot(*chart.place(value, row), colour)
        chart.legend(number, name, colour)
    return chart.image.resize((WIDTH, chart.height), Image.Resampling.LANCZOS)


def ticks(highest: float) -> list[float]:
    """From 0 to the first that is not below `highest`, ten or fewer, by 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(highest, 1e-9) / 5))
    step = next(each * power for each in (*_STEPS, 10) if highest <= 9 * each * power)
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


class _Chart:
    """The picture in the making; places are pixels of the finished one."""

    def __init__(self, rows: int, names: int, highest: float) -> None:
        self.bottom = TOP + rows * ROW
        self.height = self.bottom + BOTTOM + names * ROW
        self.ticks = ticks(highest)
        self.image = Image.new("RGB", (WIDTH * OVERSAMPLING, self.height * OVERSAMPLING), "white")
        self._pen = ImageDraw.Draw(self.image)

    def place(self, value: float, row: int) -> tuple[float, float]:
        across = value / (self.ticks[-1] or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (row + 0.5) * ROW

    def axes(self, rows: Sequence[str], title: str, x_title: str) -> None:
        self._text((LEFT, TOP - 22), title, "lm", 14)
        for value in self.ticks:
            x, _ = self.place(value, 0)
            self._stroke((x, TOP), (x, self.bottom))
            self._text((x, self.bottom + 12), f"{value:.6g}", "mm")
        for row, label in enumerate(rows):
            left, y = self.place(0, row)
            self._stroke((left, y), (WIDTH - RIGHT, y))
            self._text((left - 10, y), label, "rm")
        self._text(((LEFT + WIDTH - RIGHT) / 2, self.bottom + 32), x_title, "mm")

    def legend(self, number: int, name: str, colour: str) -> None:
        y = self.bottom + BOTTOM + (number + 0.3) * ROW
        self.dot(LEFT + 6, y, colour)
        self._text((LEFT + 20, y), name, "lm")

    def dot(self, x: float, y: float, colour: str) -> None:
        box = [(each + side) * OVERSAMPLING for side in (-4.5, 4.5) for each in (x, y)]
        self._pen.ellipse(box, fill=colour, outline="white", width=OVERSAMPLING)

    def _stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._pen.line([each * OVERSAMPLING for each in (*start, *end)], fill=GRID, width=OVERSAMPLING)

    def _text(self, place: tuple[float, float], text: str, anchor: str, size: int = 12) -> None:
        at = (place[0] * OVERSAMPLING, place[1] * OVERSAMPLING)
        self._pen.text(at, text, fill=INK, font=ImageFont.load_default(size * OVERSAMPLING), anchor=anchor)
