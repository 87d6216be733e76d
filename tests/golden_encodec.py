"""EnCodec at 24 kHz on its fixture: two waveforms, the second a batch of two, at three bit rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenzoo.audio.encodec import Encodec, EncodecConfig
from tokenzoo.checkpoints import convert_encodec

from .golden_fixture import Fixture, GoldenRun

BANDWIDTHS_KBPS = (0.9, 1.8, 3.6)


def run_encodec(model: Encodec, fixture: Fixture) -> dict[str, Tensor]:
    computed: dict[str, Tensor] = {}
    for index in (0, 1):
        signal = fixture.inputs[f"wave_{index}"]
        tokens = model.encode(signal)
        computed[f"latents_{index}"] = model.encode_latents(signal).values.transpose(1, 2)
        computed[f"quantized_{index}"] = model.dequantize(tokens).values.transpose(1, 2)
        for kbps in BANDWIDTHS_KBPS:
            kept = model.encode(signal, keep=model.facts.keep_for_bitrate(1000 * kbps))
            values = model.dequantize(kept).values
            parts = {
                "codes": kept.ids.transpose(1, 2),
                "recon": model.sound_of(values),  # whole hops, as the official decoder gives them
                "forward": model.decode_latents(model.dequantize(kept)),
            }
            ends = {"codes": "_seg0"}
            computed |= {f"{name}_{index}_bw{kbps}{ends.get(name, '')}": part for name, part in parts.items()}
    return computed


def _encodec(config: Mapping[str, Any]) -> Encodec:
    return Encodec(EncodecConfig.from_dict(convert_encodec.convert_config(config["model"])))


RUNS = {"facebookresearch/encodec": GoldenRun(convert_encodec, _encodec, run_encodec)}
