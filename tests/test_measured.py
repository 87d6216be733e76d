"""Figures: their intervals, their table, and JSON there and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenzoo.zoo.facts import Facts
from tokenzoo.zoo.measured import Figure, Level, Measure, Measured, figure_of, interval, measured_table

PSNR = Measure("psnr", "PSNR", "dB")
FAR = Measure("far", "distance", digits=3, higher_is_better=False)


def measured(nested: str | None = "tokens", bits_per: str = "image") -> Measured:
    """Two levels, as an evaluation of 50 items gives them."""
    levels = (
        Level(8, 8.0, 96.0, (Figure(PSNR, 16.0, 15.5, 16.5, 50), Figure(FAR, 0.5, 0.4, 0.6, 49))),
        Level(None, 376.0, 4512.5, (Figure(PSNR, 25.7412, 25.1, 26.3, 50), Figure(FAR, 0.1, 0.05, 0.15, 49))),
    )
    return Measured(
        tokenizer="toy", revision=None, fingerprint="f" * 64, modality="image", data="photos",
        data_digest="d" * 64, items=50, nested=nested, bits_per=bits_per, notes="In eight bits.",
        levels=levels, originals=(Figure(FAR, 0.0, None, None, 1),), software="tokenzoo 0",
    )  # fmt: skip


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 300 samples of 40 normal numbers, 95 % give or take what chance does; the same each time."""
    draws = np.random.default_rng(1).normal(3.0, 2.0, (300, 40))
    ends = [interval(draw) for draw in draws]
    covered = np.mean([low <= 3.0 <= high for low, high in ends if low is not None and high is not None])
    assert 0.91 <= covered <= 0.97
    assert interval(draws[0]) == ends[0]
    width = np.mean([high - low for low, high in ends])  # pyright: ignore
    assert width == pytest.approx(2 * 1.96 * 2.0 / math.sqrt(40), rel=0.06)


def test_of_one_item_there_is_no_interval() -> None:
    assert figure_of(PSNR, [20.0]) == Figure(PSNR, 20.0, None, None, 1)
    assert figure_of(PSNR, [20.0, 20.0]) == Figure(PSNR, 20.0, 20.0, 20.0, 2)


def test_what_cannot_be_judged_does_not_count() -> None:
    found = figure_of(PSNR, [20.0, math.nan, 22.0, math.inf])
    assert found is not None and (found.mean, found.items) == (21.0, 2)
    assert figure_of(PSNR, [math.nan]) is None


def test_the_table_says_what_a_reader_wants() -> None:
    assert measured_table(measured()) == [
        ("tokens", "bits per image", "PSNR, dB", "distance"),
        ("8", "96", "16.00 [15.50, 16.50]", "0.500 [0.400, 0.600]"),
        ("376", "4512", "25.74 [25.10, 26.30]", "0.100 [0.050, 0.150]"),
        ("originals", "", "", "0.000"),
    ]
    speech = measured_table(measured("codebooks", "second"))
    assert [row[:2] for row in speech[:3]] == [("codebooks", "kbps"), ("8", "0.096"), ("all", "4.51")]


def test_json_there_and_back(tmp_path: Path) -> None:
    told = measured()
    told.save(tmp_path / "measured.json")
    assert Measured.load(tmp_path / "measured.json") == told
    assert told.full.figure("psnr") == told.levels[1].figures[0] and told.full.figure("ssim") is None
    assert told.keeps == (8,)


def figure(**changes: Any) -> dict[str, Any]:
    """One of `originals` in JSON, with changes to it or to its measure."""
    told = measured().to_dict()["originals"][0]
    measure = told["measure"] | {key: changes[key] for key in changes if key in told["measure"]}
    return told | {key: changes[key] for key in changes if key in told} | {"measure": measure}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: [], "format 'list'"),
        (lambda told: told | {"format_version": 9}, "format 9"),
        (lambda told: told | {"levels": []}, "no figures"),
        (lambda told: told | {"items": "many"}, "no figures"),
        (lambda told: told | {"data": "a\nb"}, "no figures"),
        (lambda told: told | {"items": -1}, "no figures"),
        (lambda told: told | {"modality": "smell"}, "modality 'smell': expected 'image' or 'audio'"),
        (lambda told: told | {"nested": "layers"}, "nested 'layers': expected 'tokens', 'codebooks' or None"),
        (
            lambda told: told | {"levels": [told["levels"][0] | {"keep": "8"}]},
            "keep '8': expected an integer",
        ),
        (lambda told: told | {"levels": [told["levels"][0] | {"bits": 10**400}]}, "no figures"),
        (lambda told: told | {"originals": [figure(mean=10**400)]}, "no figures"),
        (lambda told: told | {"originals": [figure(items=-1)]}, "far is of -1 items: expected 0 or more"),
        (lambda told: told | {"originals": [figure(label="a\nb")]}, "expected one line without"),
        (lambda told: told | {"originals": [figure(label="a|b")]}, "expected one line without"),
        (lambda told: told | {"originals": [figure(digits=7)]}, r"far has 7 digits: expected 0 \.\.\. 6"),
        (lambda told: told | {"more": 1}, "no figures.*more"),
        (lambda told: {key: told[key] for key in told if key != "notes"}, "no figures.*notes"),
        (lambda told: told | {"originals": [{"measure": {}}]}, "no figures"),
        (
            lambda told: told | {"levels": [told["levels"][0] | {"bits": math.inf}]},
            "expected finite numbers",
        ),
    ],
)
def test_other_json_is_refused(change, message: str, tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    file.write_text(json.dumps(change(measured().to_dict())))
    with pytest.raises(ValueError, match=message) as caught:
        Measured.load(file)
    assert str(caught.value).startswith(str(file))


def test_figures_of_other_weights_are_refused() -> None:
    told, facts = measured(), Facts("toy", "image", fingerprint="f" * 64)
    told.check_is_of(facts)
    told.check_is_of(replace(facts, fingerprint=None))
    with pytest.raises(ValueError, match=r"these figures are of toy .*measure it again"):
        told.check_is_of(replace(facts, fingerprint="a" * 64))
    with pytest.raises(ValueError, match=r"this is other \(None\): measure it again"):
        told.check_is_of(replace(facts, fingerprint=None, name="other"))
