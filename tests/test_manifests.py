"""Every full-size model, built from its yaml on the meta device, has the official state dict key by key."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenzoo.zoo import catalogue, loading

from .golden_fixture import folded

# NAME.json, or NAME@LAYOUT.json for a second layout of the same model.
MANIFESTS = sorted((Path(__file__).parent / "golden" / "manifests").glob("*.json"))


@pytest.fixture(params=MANIFESTS, ids=[path.stem for path in MANIFESTS])
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    name, _, layout = request.param.stem.partition("@")
    return json.loads(request.param.read_text()) | {"name": name, "layout": layout}


def _row(name: str) -> catalogue.Row:
    row = catalogue.find(name)
    assert row is not None and row.config is not None, f"{name} has a manifest and no catalogue row"
    return row


def _converter(name: str) -> Any:
    return catalogue.converter(str(_row(name).converter))


# Written from a reading of the official code, which could not be run here; README and the notice say so.
UNPROVED = {"lm-spt-12hz"}


def test_every_official_model_has_a_manifest() -> None:
    official = {row.name for row in catalogue.rows() if row.converter is not None} - UNPROVED
    assert all("unproved" in str(_row(name).notice) for name in UNPROVED)
    assert official == {path.stem for path in MANIFESTS if "@" not in path.stem}


def test_names_and_shapes(manifest: dict[str, Any]) -> None:
    row = _row(manifest["name"])
    tokenizer_type, config = loading.read_yaml(str(row.config))
    model: Any = loading.build(tokenizer_type, config)
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors = _stored(manifest)
    names = _converter(row.name).convert_names(tensors)
    official = {names[name]: tuple(tensor.shape) for name, tensor in tensors.items() if name in names}
    assert len(official) == len(names), "two official tensors get one name"
    assert ours == official
    dropped = sum(tensor.numel() for name, tensor in tensors.items() if name not in names)
    elements = sum(tensor.numel() for tensor in model.state_dict().values())
    assert elements + dropped == sum(tensor.numel() for tensor in tensors.values())
    whole = sum(math.prod(shape) for _, shape in manifest["tensors"].values())
    assert whole == manifest["num_elements_incl_buffers"]


def _stored(manifest: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The official tensors without their values, joined where the layout keeps one of ours in pieces."""
    converter = _converter(manifest["name"])
    shapes = {name: shape for name, (_, shape) in manifest["tensors"].items()}
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return dict(folded(converter, tensors))


def test_yaml_is_the_converted_official_config(manifest: dict[str, Any]) -> None:
    _, config = loading.read_yaml(str(_row(manifest["name"]).config))
    row = _row(manifest["name"])
    family: Any = catalogue.family(row.family)
    converted = _converter(row.name).convert_config(manifest["config"])
    assert family.config_type.from_dict(config) == family.config_type.from_dict(converted)


def test_row_names_the_repository(manifest: dict[str, Any]) -> None:
    row = _row(manifest["name"])
    assert manifest["layout"] or row.repo == manifest["hub_id"]
    converter = _converter(row.name)
    assert converter.recognise(manifest["config"], manifest["tensors"])
    # Some repositories publish no configuration: the tensor names alone must do, and tell the layouts apart.
    known = [
        key for key in catalogue.CONVERTERS if catalogue.converter(key).recognise({}, manifest["tensors"])
    ]
    assert known == [row.converter]


def test_official_name_is_the_inverse(manifest: dict[str, Any]) -> None:
    converter = _converter(manifest["name"])
    if manifest["layout"]:
        return  # messages name tensors as the first layout does
    names = converter.convert_names(_stored(manifest))
    assert all(converter.official_name(ours) == official for official, ours in names.items())
