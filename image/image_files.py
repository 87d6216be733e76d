"""Pictures for the command line, and the side-by-side page of `tokenzoo reconstruct`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..zoo.media import Comparison, Medium
from ..zoo.tokenizer import Tokenizer
from ..zoo.tokens import Tokens
from ..zoo.tokfile import payload_bytes
from .metrics import psnr, ssim
from .preprocess import to_image

PAGE_NAME = "side_by_side.png"
# A page of a thousand photographs would be a picture that few programs open.
PAGE_ROWS = 24
ITEMS_AT_ONCE = 8
MIN_CELL_PIXELS = 256
MARGIN_PIXELS = 8
HEADING_PIXELS = 34
CAPTION_PIXELS = 20


class ImageFiles(Medium):
    """One file, one picture."""

    suffixes = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
    output_suffix = ".png"

    def read(self, path: Path) -> Path:
        return path

    def write(self, item: Tensor, path: Path) -> None:
        to_image(item).save(path)

    def samples(self) -> list[Path]:
        """The six photographs of image/samples; see LICENCES.md there."""
        folder = Path(str(package_files(str(__package__)) / "samples"))
        return sorted(folder.glob("*.jpg"))

    def compare(
        self,
        tokenizer: Tokenizer,
        names: Sequence[str],
        items: Sequence[Any],
        keeps: Sequence[int | None],
        out: Path,
    ) -> list[Comparison]:
        """Rows for the table; writes NAME.tok for every picture, and `side_by_side.png` with the first."""
        rows: list[Comparison] = []
        page: list[list[_Cell]] = []
        for start in range(0, len(items), ITEMS_AT_ONCE):
            some = slice(start, start + ITEMS_AT_ONCE)
            several = _compare(tokenizer, names[some], items[some], keeps, out)
            for name, item, compared in zip(names[some], items[some], several, strict=True):
                rows += [row for row, _ in compared]
                if len(page) < PAGE_ROWS:
                    page.append([_Cell("original", name, to_image(item)), *map(_cell, compared)])
        _page(page, tokenizer.facts.name).save(out / PAGE_NAME)
        return rows


@dataclass(frozen=True)
class _Cell:
    """A picture on the page: what heads its column, and what stands below it."""

    heading: str
    caption: str
    image: Image.Image


def _compare(
    tokenizer: Tokenizer, names: Sequence[str], items: Sequence[Any], keeps: Sequence[int | None], out: Path
) -> list[list[tuple[Comparison, Tensor]]]:
    """For every item its scores and its picture at every length; writes NAME.tok."""
    tokens = tokenizer.encode(list(items))
    for name, single in zip(names, tokens.unbind(), strict=True):
        single.save(out / f"{name}.tok")
    compared: list[list[tuple[Comparison, Tensor]]] = [[] for _ in items]
    for keep in keeps:
        kept = tokens
        if keep is not None:
            shorter = tokenizer.facts.makes_fewer
            kept = tokenizer.encode(list(items), keep=keep) if shorter else tokens.keep(keep)
        images = [image.cpu() for image in kept.crop(tokenizer.decode(kept))]
        for i, (image, item) in enumerate(zip(images, items, strict=True)):
            compared[i].append((_score(names[i], image, item, kept, i), image))
    return compared


def _score(name: str, image: Tensor, item: Tensor, tokens: Tokens, index: int) -> Comparison:
    count = int(tokens.lengths[index])
    float_bytes = 4 * tokens.values.shape[-1]
    size = payload_bytes(count, tokens.codebook_sizes) if tokens.is_discrete else count * float_bytes
    # What is judged is the picture a person would save: eight bits, as the original had.
    seen = torch.round(image * 255)[None] / 255
    scores = {
        "bits/pixel": 8 * size / (item.shape[1] * item.shape[2]),
        "PSNR dB": float(psnr(seen, item[None])[0]),
        "SSIM": float(ssim(seen, item[None])[0]),
    }
    return Comparison(name, count, size, scores)


def _cell(compared: tuple[Comparison, Tensor]) -> _Cell:
    row, image = compared
    return _Cell(
        f"{row.tokens} tokens, {row.bytes} bytes",
        f"{row.scores['PSNR dB']:.2f} dB, SSIM {row.scores['SSIM']:.3f}",
        to_image(image),
    )


def _page(rows: list[list[_Cell]], title: str) -> Image.Image:
    """A sheet: a row a photograph, a column a length. Pixels become squares: nothing is smoothed."""
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
