"""The curve of a nested image tokenizer and its rivals: thumbnails, codecs, the table, the chart."""

import json
import math
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tokenzoo.image.rate_distortion as rate_distortion
from tokenzoo.image.chart import Line, draw_chart
from tokenzoo.image.curve import Curve, Row, Score, to_json, to_markdown
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.rate_distortion import best_thumbnail, codec_scores, interpolate, measure
from tokenzoo.zoo.facts import Facts
from tokenzoo.zoo.tokenizer import Tokenizer
from tokenzoo.zoo.tokens import Tokens

SIDE = 32


class Stripes(Tokenizer):
    """One token a column, its mean grey in 256 levels; columns that are cut off are grey."""

    def __init__(self, keeps: tuple[int, ...] = (), nested: Any = "tokens") -> None:
        self._facts = Facts(
            "stripes-32",
            "image",
            channels=3,
            max_tokens=SIDE,
            codebook_sizes=(256,),
            nested=nested,
            keeps=keeps,
        )

    @property
    def facts(self) -> Facts:
        return self._facts

    @property
    def preprocess(self) -> ImagePreprocess:
        return ImagePreprocess(size=SIDE)

    def num_tokens(self, extent: Any) -> int:
        return SIDE

    def default_extents(self, lengths: Tensor) -> Tensor:
        return torch.full((len(lengths), 2), SIDE)

    def encode(
        self, signal: Any, *, extents: Any = None, keep: int | None = None, generator: Any = None
    ) -> Tokens:
        ids = (signal.mean((1, 2)) * 255).round().long()
        return self.stamp(ids)

    def decode(self, tokens: Tokens, *, generator: Any = None) -> Tensor:
        image = torch.full((len(tokens), 3, SIDE, SIDE), 0.5)
        image[..., : tokens.ids.shape[1]] = tokens.ids[:, None, None] / 255
        return image

    def save_pretrained(self, folder: Any) -> None:
        raise NotImplementedError


def ramp(count: int = 2) -> np.ndarray:
    """(count, SIDE, SIDE, 3) uint8, grey rising from column to column; each image a little brighter."""
    columns = np.arange(SIDE) * 6
    return np.stack(
        [np.tile((columns + 10 * i).astype(np.uint8)[None, :, None], (SIDE, 1, 3)) for i in range(count)]
    )


def textured(count: int = 2) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in noise]
    )


def row(tokens: int, level: float, **codecs: Score | None) -> Row:
    score = Score(level, 0.5, 2.0 * tokens)
    return Row(tokens, score, Score(20.0, 0.6, 3.0 * tokens), (tokens, 1), codecs)


def test_a_thumbnail_of_a_constant_is_perfect() -> None:
    size, score = best_thumbnail(np.full((3, SIDE, SIDE, 3), 77, np.uint8), 4)
    assert size == (2, 2)
    assert astuple(score) == pytest.approx((math.inf, 1.0, 12.0))


def test_a_thumbnail_of_one_pixel_is_the_mean() -> None:
    images = ramp(1)
    size, score = best_thumbnail(images, 1)
    error = np.mean((images.astype(float) - 93) ** 2)  # the mean of 0, 6, ... 186
    assert size == (1, 1)
    assert score.psnr_db == pytest.approx(10 * math.log10(255**2 / error), abs=1e-6)
    assert score.bytes == 3


def test_a_thumbnail_has_the_best_shape_of_at_most_so_many_pixels() -> None:
    upright = np.ascontiguousarray(ramp().transpose(0, 2, 1, 3))
    assert best_thumbnail(ramp(), 2)[0] == (2, 1)
    assert best_thumbnail(upright, 2)[0] == (1, 2)
    assert best_thumbnail(ramp(), 8)[0] == (4, 2)
    assert best_thumbnail(ramp(), 16)[0] == (4, 4)  # a square number: always a square
    assert best_thumbnail(ramp(), 8)[1].psnr_db > best_thumbnail(ramp(), 4)[1].psnr_db


def test_codec_points_rise_in_bytes() -> None:
    options = [{"quality": quality} for quality in (0, 10, 50, 90)]
    points = codec_scores("JPEG", options, textured(), up_to=1e9)
    sizes = [point.bytes for point in points]
    assert len(points) == 4 and sizes == sorted(sizes)
    assert points[-1].psnr_db > points[0].psnr_db + 5
    assert codec_scores("JPEG", options, textured(), up_to=0) == points[:1]
    assert codec_scores("NOSUCH", options, textured(), up_to=1e9) == []


def test_interpolation_is_linear_and_stays_inside() -> None:
    points = [Score(20.0, 0.5, 100.0), Score(24.0, 0.7, 200.0), Score(30.0, 0.9, 400.0)]
    for size, expected in ((100, (20.0, 0.5)), (150, (22.0, 0.6)), (300, (27.0, 0.8)), (400, (30.0, 0.9))):
        score = interpolate(points, size)
        assert score is not None and astuple(score) == pytest.approx((*expected, size))
    assert interpolate(points, 99) is None
    assert interpolate(points, 401) is None
    assert interpolate([], 100) is None


def test_the_curve_of_a_toy() -> None:
    curve = measure(Stripes(), ramp())
    assert [each.tokens for each in curve.rows] == [1, 2, 4, 8, 16, 32]
    assert [each.tokenizer.bytes for each in curve.rows] == [1, 2, 4, 8, 16, 32]
    assert curve.rows[-1].tokenizer.psnr_db == math.inf  # every column has its grey
    assert curve.rows[0].tokenizer.psnr_db < curve.rows[3].tokenizer.psnr_db
    assert (curve.tokenizer, curve.images, curve.size) == ("stripes-32", 2, (SIDE, SIDE))
    assert all(each.codecs["JPEG"] is None for each in curve.rows)  # no JPEG file has 32 bytes


def test_only_legal_lengths_are_measured() -> None:
    curve = measure(Stripes(keeps=(4, 16, 32)), ramp())
    assert [each.tokens for each in curve.rows] == [4, 16, 32]


def test_what_is_not_nested_is_refused() -> None:
    with pytest.raises(ValueError, match="stripes-32: expected an image tokenizer whose ids are nested"):
        measure(Stripes(nested=None), ramp())


def test_the_table() -> None:
    measured = {"JPEG": (Score(21.0, 0.5, 100.4), Score(29.0, 0.9, 300.0)), "AVIF": ()}
    rows = (
        row(16, 19.0, JPEG=None, AVIF=None),
        row(64, 21.456, JPEG=Score(21.2, 0.52, 128.0), AVIF=None),
        row(256, 22.0, JPEG=None, AVIF=None),
    )
    table = to_markdown(Curve("toy", "f00d", 50, (128, 128), rows, measured)).splitlines()
    assert table[:5] == [
        "| tokens | bytes | `toy` PSNR / SSIM | thumbnail | JPEG | AVIF |",
        "|---:|---:|---:|---:|---:|---:|",
        "| 16 | 32 | 19.00 / 0.500 | **20.00** / 0.600 | from 100 bytes | no encoder |",
        "| 64 | 128 | **21.46** / 0.500 | 20.00 / 0.600 | 21.20 / 0.520 | no encoder |",
        "| 256 | 512 | **22.00** / 0.500 | 20.00 / 0.600 | to 300 bytes | no encoder |",
    ]
    assert table[6].startswith("Means over 50 photographs of 128 x 128 pixels")


def test_json_has_no_infinity() -> None:
    record = json.loads(to_json(Curve("toy", None, 1, (8, 8), (row(1, math.inf, JPEG=None),), {"JPEG": ()})))
    assert record["rows"][0]["tokenizer"] == {"psnr_db": None, "ssim": 0.5, "bytes": 2.0}
    assert record["rows"][0]["codecs"] == {"JPEG": None}


def test_the_chart_draws_its_lines_and_leaves_out_infinity() -> None:
    points = [(2.0, 12.0), (64.0, 20.0), (512.0, math.inf)]
    image = draw_chart([Line("toy", points, "#c0392b")], title="t", x_title="x", y_title="y")
    colours = {colour for _, colour in image.getcolors(1 << 20) or []}
    assert (0xC0, 0x39, 0x2B) in colours
    with pytest.raises(ValueError, match="no finite point"):
        draw_chart([Line("toy", points[2:], "#c0392b")], title="t", x_title="x", y_title="y")


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[str] = []

    def load(name: str, device: str) -> Stripes:
        loaded.append(name)
        return Stripes()

    monkeypatch.setattr(rate_distortion, "load", load)
    np.save(tmp_path / "images.npy", textured())
    arguments = [
        "--tokenizer",
        "stripes",
        "--images",
        str(tmp_path / "images.npy"),
        "--out",
        str(tmp_path / "docs"),
    ]
    assert rate_distortion.main(arguments) == 0
    assert loaded == ["stripes"]
    names = sorted(path.name for path in (tmp_path / "docs").iterdir())
    assert names == ["stripes_32_curve.json", "stripes_32_curve.md", "stripes_32_curve.png"]
    assert (tmp_path / "docs" / "stripes_32_curve.md").read_text() in capsys.readouterr().out
    assert len(json.loads((tmp_path / "docs" / "stripes_32_curve.json").read_text())["rows"]) == 6
    arguments[3] = str(tmp_path / "absent.npy")
    assert rate_distortion.main(arguments) == 1
    assert "absent.npy" in capsys.readouterr().err
