"""Every full-size model, built from its yaml on the meta device, has the official state dict key by key."""

import json
from pathlib import Path
from typing import Any

import pytest

from tokenzoo.checkpoints import convert_titok
from tokenzoo.zoo import catalogue, loading

MANIFESTS = sorted((Path(__file__).parent / "golden" / "manifests").glob("*.json"))


@pytest.fixture(params=MANIFESTS, ids=[path.stem for path in MANIFESTS])
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text()) | {"name": request.param.stem}


def _row(name: str) -> catalogue.Row:
    row = catalogue.find(name)
    assert row is not None and row.config is not None, f"{name} has a manifest and no catalogue row"
    return row


def test_every_titok_has_a_manifest() -> None:
    titoks = {row.name for row in catalogue.rows() if row.family == "titok"}
    assert titoks == {path.stem for path in MANIFESTS}


def test_names_and_shapes(manifest: dict[str, Any]) -> None:
    row = _row(manifest["name"])
    tokenizer_type, config = loading.read_yaml(str(row.config))
    model: Any = loading.build(tokenizer_type, config)
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    names = convert_titok.convert_names(manifest["tensors"])
    official = {names[name]: tuple(shape) for name, (_, shape) in manifest["tensors"].items()}
    assert len(official) == len(manifest["tensors"]), "two official tensors get one name"
    assert ours == official
    assert sum(parameter.numel() for parameter in model.parameters()) == manifest["num_parameters"]


def test_yaml_is_the_converted_official_config(manifest: dict[str, Any]) -> None:
    _, config = loading.read_yaml(str(_row(manifest["name"]).config))
    family: Any = catalogue.family("titok")
    converted = convert_titok.convert_config(manifest["config"])
    assert family.config_type.from_dict(config) == family.config_type.from_dict(converted)


def test_row_names_the_repository(manifest: dict[str, Any]) -> None:
    row = _row(manifest["name"])
    assert row.repo == manifest["hub_id"]
    assert convert_titok.recognise(manifest["config"], manifest["tensors"])
    # One-D-Piece publishes no configuration: its tensor names alone must do.
    assert convert_titok.recognise({}, manifest["tensors"])


def test_official_name_is_the_inverse(manifest: dict[str, Any]) -> None:
    names = convert_titok.convert_names(manifest["tensors"])
    assert all(convert_titok.official_name(ours) == official for official, ours in names.items())
