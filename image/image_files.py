"""Pictures for the command line, and the side-by-side page of `tokenzoo reconstruct`."""

from __future__ import annotations

from collections.abc import Sequence
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
MIN_CELL_PIXELS = 192
MARGIN_PIXELS = 8
CAPTION_PIXELS = 34


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
        """Rows for the table; writes NAME.tok for every picture and `side_by_side.png`."""
        tokens = tokenizer.encode(list(items))
        for name, single in zip(names, tokens.unbind(), strict=True):
            single.save(out / f"{name}.tok")
        rows: list[Comparison] = []
        columns: list[list[tuple[str, Image.Image]]] = [[("original", to_image(item))] for item in items]
        for keep in keeps:
            kept = tokens if keep is None else tokens.keep(keep)
            images = [image.cpu() for image in kept.crop(tokenizer.decode(kept))]
            for i, (image, item) in enumerate(zip(images, items, strict=True)):
                row = _score(names[i], image, item, kept, i)
                rows.append(row)
                columns[i].append((f"{row.tokens} tokens, {row.bytes} bytes", to_image(image)))
        _page(columns, tokenizer.facts.name).save(out / PAGE_NAME)
        return rows


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


def _page(rows: list[list[tuple[str, Image.Image]]], title: str) -> Image.Image:
    """A sheet: a row a photograph, a column a length; captions name tokens and bytes."""
    cell = max(MIN_CELL_PIXELS, *(image.width for row in rows for _, image in row))
    font = ImageFont.load_default(size=13)
    step_x, step_y = cell + MARGIN_PIXELS, cell + MARGIN_PIXELS
    width = MARGIN_PIXELS + step_x * max(len(row) for row in rows)
    sheet = Image.new("RGB", (width, CAPTION_PIXELS + step_y * len(rows) + 20), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (caption, image) in enumerate(row):
            left, top = MARGIN_PIXELS + x * step_x, CAPTION_PIXELS + y * step_y
            if y == 0:
                draw.text((left, 10), caption, fill="black", font=font)
            scale = cell / max(image.size)
            shown = image.resize(
                (round(image.width * scale), round(image.height * scale)), Image.Resampling.NEAREST
            )
            sheet.paste(shown, (left, top))
    draw.text((MARGIN_PIXELS, sheet.height - 20), title, fill="black", font=font)
    return sheet
