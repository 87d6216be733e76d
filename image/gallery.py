"""The gallery of an image tokenizer: one sheet of photographs, there and back."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from ..zoo.gallery import MAX_BYTES, Gallery, kept, told_length
from ..zoo.page import Cell, draw_page
from ..zoo.tokenizer import Tokenizer
from .image_files import ImageFiles
from .preprocess import to_image

GALLERY_FILE = "gallery.png"
# Samples that nobody need be named for (they are, below): public domain and CC0.
SAMPLES = ("astronaut", "cat", "coffee", "dandelion")
CREDITS = (
    "Photographs: NASA (public domain), Stefan van der Walt, Rachel Michetti, Clemens Engelhardt (CC0 1.0); "
    "they ship with tokenzoo, and no model of its own was trained on them."
)


def draw_gallery(tokenizer: Tokenizer, keeps: Sequence[int | None]) -> Gallery:
    """A row a photograph: the original, and each length; fewer rows, then fewer pixels, to stay small."""
    paths = [path for path in ImageFiles().samples() if path.stem in SAMPLES]
    rows = _rows(tokenizer, paths, keeps)
    page = draw_page(rows, tokenizer.facts.name)
    png = _png(page)
    while len(png) > MAX_BYTES:
        rows = rows[:-1]
        if rows:
            page = draw_page(rows, tokenizer.facts.name)
        else:
            page = page.resize((page.width // 2, page.height // 2), Image.Resampling.LANCZOS)
        png = _png(page)
    return Gallery({GALLERY_FILE: png}, f"![originals and reconstructions]({GALLERY_FILE})\n\n{CREDITS}")


def _rows(tokenizer: Tokenizer, paths: Sequence, keeps: Sequence[int | None]) -> list[list[Cell]]:
    signals = [tokenizer.preprocess(path) for path in paths]
    rows = [[Cell("original", path.stem, to_image(item))] for path, item in zip(paths, signals, strict=True)]
    tokens = tokenizer.encode(signals)
    for keep in keeps:
        some = kept(tokenizer, tokens, signals, keep)
        images = some.crop(tokenizer.decode(some))
        for row, image, count in zip(rows, images, some.lengths.tolist(), strict=True):
            row.append(Cell(told_length(tokenizer.facts, keep), f"{count} tokens", to_image(image)))
    return rows


def _png(page: Image.Image) -> bytes:
    file = io.BytesIO()
    page.save(file, "PNG", optimize=True)
    return file.getvalue()
