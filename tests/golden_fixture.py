"""Parity fixtures: what the official code was, was given, and gave; and how a family is run on them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tokenzoo.checkpoints.weights import load_strict
from tokenzoo.zoo.loading import _renamed


@dataclass(frozen=True, eq=False)
class Fixture:
    """One folder of /golden/: what the official code was, was given, and gave."""

    name: str
    system: str
    config: dict[str, Any]
    meta: dict[str, Any]
    tensors: dict[str, Tensor]
    inputs: dict[str, Tensor]
    expected: dict[str, Tensor]

    def assert_close(self, name: str, got: Tensor) -> None:
        """Ids must be identical, floats within the tolerance that meta.json states."""
        expected = self.expected[name]
        assert got.shape == expected.shape, f"{name}: {tuple(got.shape)}, recorded {tuple(expected.shape)}"
        if not expected.is_floating_point():
            wrong = int((got != expected).sum())
            assert wrong == 0, f"{name}: {wrong} of {expected.numel()} ids differ"
            return
        atol, rtol = self._tolerance(name)
        torch.testing.assert_close(got, expected, atol=atol, rtol=rtol, msg=lambda text: f"{name}: {text}")

    def _tolerance(self, name: str) -> tuple[float, float]:
        """Absolute and relative, out of the words of meta.json, which differ from family to family."""
        words = self.meta.get("suggested_tolerance") or self.meta["tolerances"]["floats"]
        if stated := re.search(r"atol (\S+) [/+] rtol (\S+)", words):
            return float(stated[1]), float(stated[2])
        stated = re.findall(r"\de-\d", words)
        assert len(stated) == 2, f"{self.name}: tolerance {words!r} is not understood"
        return float(stated[name.startswith("recon")]), 1e-4  # "1e-4 latents, 5e-4 recon"


@dataclass(frozen=True)
class GoldenRun:
    """How one family is held to the fixtures of its systems. Modules tests/golden_*.py list theirs as RUNS.

    converter  the module of `checkpoints` that knows the official layout
    build      our model, without the weights, of the fixture's config.json, where numbers that the official
               source hard-codes are shrunk
    run        everything that the fixture records, by its names there, from the model in eval mode
    """

    converter: Any
    build: Callable[[Mapping[str, Any]], Any]
    run: Callable[[Any, Fixture], dict[str, Tensor]]

    def load(self, model: Any, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Strictly, as `tokenzoo.load` does with a folder in the official layout."""
        assert self.converter.recognise(config, tensors)
        load_strict(model, _renamed(self.converter, dict(tensors)))


def folded(converter: Any, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Official tensors that are one of ours together, joined, where the layout has such."""
    return converter.fold(tensors) if hasattr(converter, "fold") else tensors


def system_of(folder: Path) -> str:
    """What the fixture proves; the audio fixtures name their repository only."""
    meta = json.loads((folder / "meta.json").read_text())
    return meta.get("system") or meta["repo"].split()[0]


def read_fixture(folder: Path) -> Fixture:
    return Fixture(
        name=folder.name,
        system=system_of(folder),
        config=json.loads((folder / "config.json").read_text()),
        meta=json.loads((folder / "meta.json").read_text()),
        tensors={name: _float32(tensor) for name, tensor in load_file(folder / "model.safetensors").items()},
        inputs=load_file(folder / "inputs.safetensors"),
        expected=load_file(folder / "expected.safetensors"),
    )


def _float32(tensor: Tensor) -> Tensor:
    """Fixtures store fp16-representable weights as F16; the official code ran in float32."""
    return tensor.float() if tensor.is_floating_point() else tensor
