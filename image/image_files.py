"""Pictures for the command line, and the side-by-side page of `tokenzoo reconstruct`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..zoo.facts import Facts
from ..zoo.media import Comparison, Medium
from ..zoo.page import PAGE_ROWS, Cell, draw_page
from ..zoo.tokenizer import Tokenizer
from ..zoo.tokens import Tokens
from ..zoo.tokfile import payload_bytes
from .metrics import psnr, ssim
from .preprocess import to_image

PAGE_NAME = "side_by_side.png"
ITEMS_AT_ONCE = 8


class ImageFiles(Medium):
    """One file, one picture."""

    suffixes = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
    output_suffix = ".png"

    def read(self, path: Path) -> Path:
        return path

    def write(self, item: Tensor, path: Path, facts: Facts) -> None:
        to_image(item).save(path)

    def log(self, writer: Any, tag: str, item: Tensor, step: int, facts: Facts) -> None:
        writer.add_image(tag, item, step)

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
        page: list[list[Cell]] = []
        for start in range(0, len(items), ITEMS_AT_ONCE):
            some = slice(start, start + ITEMS_AT_ONCE)
            several = _compare(tokenizer, names[some], items[some], keeps, out)
            for name, item, compared in zip(names[some], items[some], several, strict=True):
                rows += [row for row, _ in compared]
                if len(page) < PAGE_ROWS:
                    page.append([Cell("original", name, to_image(item)), *map(_cell, compared)])
        draw_page(page, tokenizer.facts.name).save(out / PAGE_NAME)
        return rows


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
            compared[i].append((_score(names[i], keep, image, item, kept, i), image))
    return compared


def _score(
    name: str, keep: int | None, image: Tensor, item: Tensor, tokens: Tokens, index: int
) -> Comparison:
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
    return Comparison(name, keep, count, size, scores)


def _cell(compared: tuple[Comparison, Tensor]) -> Cell:
    row, image = compared
    return Cell(
        f"{row.tokens} tokens, {row.bytes} bytes",
        f"{row.scores['PSNR dB']:.2f} dB, SSIM {row.scores['SSIM']:.3f}",
        to_image(image),
    )
