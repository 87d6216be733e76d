"""Recipes of `tokenzoo fit`: of what modality they are, what help says, and that each one that ships fits."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tokenzoo.zoo import fit, recipes
from tokenzoo.zoo.training import TokenizerTraining

SHIPPED = {recipe.file: recipe for recipe in recipes.shipped()}


@pytest.mark.parametrize(
    ("model", "modality"),
    [
        ({"tokenizer_type": "titok"}, "image"),
        ({"tokenizer_type": "encodec", "config": {}}, "audio"),
        ({"tokenizer_type": "text"}, "text"),
        ({"config": "dac_44khz.yaml"}, "audio"),
        ({"pretrained": "snac-24khz"}, "audio"),
        ({"pretrained": "facebook/encodec_24khz"}, "audio"),
        ({"pretrained": "pyramid-128"}, "image"),
        ({"pretrained": "nothing-of-that-name"}, None),
        ({"tokenizer_type": "nothing"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_modality_follows_from_the_tokenizer(model: Any, modality: str | None) -> None:
    assert recipes.modality_of_model(model) == modality


def test_a_folder_says_its_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"tokenizer_type": "mimi"}))
    assert recipes.modality_of_model({"pretrained": str(tmp_path)}) == "audio"
    (tmp_path / "config.json").unlink()
    assert recipes.modality_of_model({"pretrained": str(tmp_path)}) is None


def test_options_count_more_than_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {tokenizer_type: titok}")
    assert recipes.modality_of(["--config", str(recipe)]) == "image"
    assert recipes.modality_of([f"--config={recipe}", "--model.tokenizer_type", "dac"]) == "audio"
    assert recipes.modality_of(["--model.pretrained=mimi"]) == "audio"
    assert recipes.modality_of(["--config", str(tmp_path / "none.yaml")]) is None
    recipe.write_text("model: [")
    with pytest.raises(ValueError, match=r"recipe.yaml is no YAML that is read here"):
        recipes.modality_of(["--config", str(recipe)])
    assert recipes.modality_of(["--config"]) is None


def test_help_lists_the_recipes_by_modality(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit.main(["--help"]) == 0
    told = capsys.readouterr().out
    places = [
        told.index(word) for word in ("\nimage:", "image_overfit", "\naudio:", "audio_overfit", "\ntext:")
    ]
    assert places == sorted(places) and "text_bpe.yaml" in told and "encodec_24khz.yaml" in told


@pytest.mark.parametrize(
    ("family", "own", "other"),
    [("encodec", "--data.crop_seconds", "--data.flip"), ("titok", "--data.flip", "--data.crop_seconds")],
)
def test_help_of_a_modality_shows_its_options(
    capsys: pytest.CaptureFixture[str], family: str, own: str, other: str
) -> None:
    assert fit.main(["--model.tokenizer_type", family, "--help"]) == 0
    told = capsys.readouterr().out
    assert own in told and other not in told


# Those of pictures that start from weights are tested in test_train_recipes.py.
BUILT = [
    name
    for name, each in SHIPPED.items()
    if each.modality == "audio" or (each.modality == "image" and not name.startswith("train_"))
]


@pytest.mark.parametrize("file", BUILT)
def test_each_recipe_makes_a_module_and_data(file: str, checkout: Path) -> None:
    """At full size, without memory for it: on the meta device."""
    told = yaml.safe_load((checkout / "configs" / file).read_text())
    assert set(told) <= {"seed_everything", "out", "trainer", "model", "data", "checkpoint_every", "examples"}
    names = fit._MODULES[SHIPPED[file].modality]
    module_type, data_type = (
        getattr(import_module(f"tokenzoo.{where}"), name)
        for where, _, name in (n.partition(":") for n in names)
    )
    with torch.device("meta"):
        module = module_type(**told["model"])
    assert isinstance(module, TokenizerTraining)
    data_type(**told["data"])


def test_recipes_begin_with_what_they_cost(checkout: Path) -> None:
    for file in SHIPPED:
        head = [
            line for line in (checkout / "configs" / file).read_text().splitlines() if line.startswith("#")
        ]
        told = " ".join(head)
        assert "tokenzoo fit --config configs/" in told, file


def test_a_recipe_that_would_fill_the_memory_is_refused(tmp_path: Path, capsys: Any) -> None:
    """Nine lines of aliases that stand for a billion words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("\n".join(lines))
    assert fit.main(["--config", str(recipe)]) == 1
    assert "aliases are not read: write the value out" in capsys.readouterr().err
