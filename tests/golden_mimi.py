"""Mimi on its fixture: two batches of waveforms, one that ends inside a hop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenzoo.audio.mimi import Mimi, MimiConfig
from tokenzoo.checkpoints import convert_mimi

from .golden_fixture import Fixture, GoldenRun

# Codebooks kept, by the ending of the recorded names.
COUNTS = {"": 6, "_first3": 3, "_first1": 1}


def run_mimi(model: Mimi, fixture: Fixture) -> dict[str, Tensor]:
    computed: dict[str, Tensor] = {}
    for index in (0, 1):
        signal = fixture.inputs[f"wave_{index}"]
        seanet = model.encoder.seanet(model.pad_signal(signal))
        parts = {
            "seanet": seanet,
            "transformer": model.encoder.transformer(seanet),
            "latents": model.encode_latents(signal).values.transpose(1, 2),
        }
        for ending, count in COUNTS.items():
            tokens = model.encode(signal, keep=count)
            latents = model.dequantize(tokens).values
            parts[f"codes{ending}"] = tokens.ids.transpose(1, 2)
            parts[f"quantized{ending}"] = latents.transpose(1, 2)
            parts[f"recon{ending}"] = model.sound_of(latents)
        parts["upsampled"] = model.decoder.upsample(parts["quantized"])
        parts["decoder_transformer"] = model.decoder.transformer(parts["upsampled"])
        computed |= {f"{name}_{index}": tensor for name, tensor in parts.items()}
    return computed


def _mimi(config: Mapping[str, Any]) -> Mimi:
    return Mimi(MimiConfig.from_dict(convert_mimi.convert_config(config)))


RUNS = {"kyutai-labs/moshi": GoldenRun(convert_mimi, _mimi, run_mimi)}
