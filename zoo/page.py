"""A sheet of pictures for people to judge: a row an item, a column a length; drawn with Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

# A page of a thousand items would be a picture that few programs open.
PAGE_ROWS = 24
MIN_CELL_PIXELS = 256
MARGIN_PIXELS = 8
HEADING_PIXELS = 34
CAPTION_PIXELS = 20


@dataclass(frozen=True)
class Cell:
    """A picture on the page: what heads its column, and what stands below it."""

    heading: str
    caption: str
    image: Image.Image


def draw_page(rows: list[list[Cell]], title: str) -> Image.Image:
    """The sheet of these rows. Pixels become squares: nothing is smoothed."""
    largest = max(max(cell.image.size) for row in rows for cell in row)
    scale = -(-MIN_CELL_PIXELS // largest)
    step_x = largest * scale + MARGIN_PIXELS
    heights = [max(cell.image.height for cell in row) * scale + CAPTION_PIXELS for row in rows]
    font = ImageFont.load_default(size=13)
    width = MARGIN_PIXELS + step_x * max(len(row) for row in rows)
    sheet = Image.new("RGB", (width, HEADING_PIXELS + sum(heights) + CAPTION_PIXELS), "white")
    draw = ImageDraw.Draw(sheet)
    top = HEADING_PIXELS
    for row, height in zip(rows, heights, strict=True):
        for x, cell in enumerate(row):
            left = MARGIN_PIXELS + x * step_x
            if top == HEADING_PIXELS:
                draw.text((left, 10), cell.heading, fill="black", font=font)
            size = (cell.image.width * scale, cell.image.height * scale)
            sheet.paste(cell.image.resize(size, Image.Resampling.NEAREST), (left, top))
            caption = _fitting(cell.caption, font, step_x - MARGIN_PIXELS)
            draw.text((left, top + height - CAPTION_PIXELS + 1), caption, fill="black", font=font)
        top += height
    draw.text((MARGIN_PIXELS, top + 1), title, fill="grey", font=font)
    return sheet


def _fitting(text: str, font: Any, width_pixels: int) -> str:
    """`text`, cut short where it is wider than its picture."""
    while font.getlength(text) > width_pixels:
        text = f"{text.removesuffix('...')[:-1]}..."
    return text
