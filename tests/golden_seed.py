"""SEED-2 on its fixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenzoo.checkpoints import convert_seed
from tokenzoo.image.seed import Seed, SeedConfig

from .golden_fixture import Fixture, GoldenRun


def build_seed(official: Mapping[str, Any]) -> Seed:
    return Seed(SeedConfig.from_dict(convert_seed.convert_config(official)))


def run_seed(model: Seed, fixture: Fixture) -> dict[str, Tensor]:
    recorded: dict[str, Tensor] = {}
    for name, part in (("seen", model.encoder.vision), ("answers", model.encoder.qformer)):
        part.register_forward_hook(lambda module, given, found, name=name: recorded.update({name: found}))
    images = fixture.inputs["images"]
    tokens = model.encode(images)
    quantized = model.dequantize(tokens)
    return recorded | {
        "latents": model.encode_latents(images).values,
        "tokens": tokens.ids,
        "quantized": quantized.values,
        "embeddings": model.decode_latents(quantized),
    }


RUNS = {"seed": GoldenRun(convert_seed, build_seed, run_seed)}
