"""How good a nested image tokenizer is at each length, beside a thumbnail, JPEG, WebP and AVIF.

    python -m tokenzoo.image.rate_distortion --tokenizer pyramid-128 --images data/evaluation.npy --out docs/

writes docs/pyramid_128_curve.md (a table), .json (every figure) and .png (PSNR over bytes). `photo_pool`
makes evaluation.npy. A point is a mean over images: PSNR and SSIM of eight-bit pictures, and bytes.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..zoo.loading import load
from ..zoo.tokenizer import Tokenizer
from ..zoo.tokfile import payload_bytes
from .curve import Curve, Row, Score, to_chart, to_json, to_markdown
from .metrics import psnr, ssim
from .pictures import open_array

KEEPS = (1, 2, 4, 8, 16, 32, 64, 121, 128, 256)
BATCH_SIZE = 10
# By rising quality, dense where files are about as small as tokens; otherwise the most a library offers.
_QUALITIES = (0, 1, 2, *range(4, 41, 4), *range(50, 101, 10))
CODECS: dict[str, tuple[Mapping[str, int | bool], ...]] = {
    "JPEG": tuple({"quality": q, "optimize": True, "subsampling": 2} for q in _QUALITIES[1:]),
    "WebP": tuple({"quality": q, "method": 6} for q in _QUALITIES),
    "AVIF": tuple({"quality": q, "speed": 4} for q in _QUALITIES),
}
# Codecs are measured up to so many times the tokenizer's bytes.
CODEC_REACH = 1.5


def measure(tokenizer: Tokenizer, images: np.ndarray) -> Curve:
    """The curve of a tokenizer on uint8 (N, H, W, 3); ValueError unless it makes nested ids of images."""
    facts = tokenizer.facts
    if facts.modality != "image" or facts.nested != "tokens" or not facts.is_discrete:
        raise ValueError(f"{facts.name}: expected an image tokenizer whose ids are nested along tokens")
    signal = torch.stack([tokenizer.preprocess(Image.fromarray(image)) for image in images])
    originals = _to_levels(signal)
    scores = dict(tqdm(tokenizer_scores(tokenizer, signal), "lengths"))
    up_to = CODEC_REACH * max(score.bytes for score in scores.values())
    measured = {
        name: tuple(codec_scores(name, options, originals, up_to)) for name, options in CODECS.items()
    }
    rows = []
    for count, score in scores.items():
        size, thumbnail = best_thumbnail(originals, count)
        codecs = {name: interpolate(points, score.bytes) for name, points in measured.items()}
        rows.append(Row(count, score, thumbnail, size, codecs))
    height, width = originals.shape[1:3]
    return Curve(facts.name, facts.fingerprint, len(images), (width, height), tuple(rows), measured)


def tokenizer_scores(tokenizer: Tokenizer, signal: Tensor) -> Iterator[tuple[int, Score]]:
    """(tokens, score) at each of KEEPS that the tokenizer can decode, and at full length."""
    tokens = [tokenizer.encode(part) for part in signal.split(BATCH_SIZE)]
    full = max(int(each.lengths.max()) for each in tokens)
    legal = tokenizer.facts.keeps
    originals = _to_levels(signal)
    for count in (*(keep for keep in KEEPS if keep < full and (not legal or keep in legal)), full):
        kept = [each.keep(count) for each in tokens]
        images = torch.cat([tokenizer.decode(each).cpu() for each in kept])
        sizes = [payload_bytes(n, each.codebook_sizes) for each in kept for n in each.lengths.tolist()]
        yield count, _score(_to_levels(images), originals, sizes)


def best_thumbnail(originals: np.ndarray, pixels: int) -> tuple[tuple[int, int], Score]:
    """(width, height) and score of the best thumbnail of at most so many pixels, at three bytes a pixel.

    Scaled down by Lanczos and up by bicubic. Square where the number is one; else, of the shapes whose sides
    are within 1 : 2, the one with the highest PSNR.
    """
    root = math.isqrt(pixels)
    shapes = [(root, root)]
    if root * root != pixels:
        shapes += [
            (w, pixels // w) for w in range(1, pixels + 1) if pixels <= 2 * w * w and 2 * pixels >= w * w
        ]
    small = {shape: np.stack([_thumbnail(original, shape) for original in originals]) for shape in shapes}
    best = max(shapes, key=lambda shape: _mean_psnr(small[shape], originals))
    return best, _score(small[best], originals, [3 * best[0] * best[1]] * len(originals))


def codec_scores(
    name: str, options: Sequence[Mapping[str, int | bool]], originals: np.ndarray, up_to: float
) -> list[Score]:
    """A score for each set of options, by rising bytes; [] without an encoder.

    options  by rising quality; tried until the mean file has more than `up_to` bytes
    """
    Image.init()
    if name.upper() not in Image.SAVE:
        return []
    scores: dict[float, Score] = {}
    for chosen in tqdm(options, name):
        files = [_encoded(original, name, chosen) for original in originals]
        images = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
        score = _score(images, originals, [len(file) for file in files])
        scores[score.bytes] = score  # the lowest qualities may give the same file
        if score.bytes > up_to:
            break
    return [scores[size] for size in sorted(scores)]


def interpolate(points: Sequence[Score], size: float) -> Score | None:
    """The score at so many bytes, linear between measured points (by rising bytes); None outside of them."""
    if not points or not points[0].bytes <= size <= points[-1].bytes:
        return None
    at = [point.bytes for point in points]
    quality = [
        float(np.interp(size, at, [getattr(point, name) for point in points])) for name in ("psnr_db", "ssim")
    ]
    return Score(quality[0], quality[1], size)


def _thumbnail(original: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(original)
    small = image.resize(shape, Image.Resampling.LANCZOS)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


def _encoded(original: np.ndarray, name: str, chosen: Mapping[str, int | bool]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(original).save(file, name, **chosen)
    return file.getvalue()


def _mean_psnr(images: np.ndarray, originals: np.ndarray) -> float:
    return float(psnr(_to_signal(images), _to_signal(originals)).mean())


def _score(images: np.ndarray, originals: np.ndarray, sizes: Sequence[int]) -> Score:
    likeness = ssim(_to_signal(images), _to_signal(originals)).mean()
    return Score(_mean_psnr(images, originals), float(likeness), float(np.mean(sizes)))


def _to_signal(levels: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) to float64 (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(levels).permute(0, 3, 1, 2).double() / 255


def _to_levels(signal: Tensor) -> np.ndarray:
    """The picture a person would save: float (N, 3, H, W) to uint8 (N, H, W, 3)."""
    return signal.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tokenzoo.image.rate_distortion")
    parser.add_argument(
        "--tokenizer", required=True, help="name, Hub id or folder of a nested image tokenizer"
    )
    parser.add_argument("--images", required=True, type=Path, help=".npy of uint8 (N, H, W, 3)")
    parser.add_argument("--out", required=True, type=Path, help="folder for NAME_curve.md, .json and .png")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args(arguments)
    try:
        curve = measure(load(chosen.tokenizer, device=chosen.device), np.asarray(open_array(chosen.images)))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"rate_distortion: {error}", file=sys.stderr)
        return 1
    chosen.out.mkdir(parents=True, exist_ok=True)
    stem = chosen.out / f"{curve.tokenizer.replace('-', '_').replace('/', '_')}_curve"
    table = to_markdown(curve)
    _write(stem.with_suffix(".md"), table.encode())
    _write(stem.with_suffix(".json"), to_json(curve).encode())
    picture = io.BytesIO()
    to_chart(curve).quantize(256).save(picture, "PNG", optimize=True)
    _write(stem.with_suffix(".png"), picture.getvalue())
    print(table)
    return 0


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
