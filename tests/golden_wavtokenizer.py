"""WavTokenizer on its fixture: two waveforms, the second a batch of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenzoo.audio.wavtokenizer import WavTokenizer, WavTokenizerConfig
from tokenzoo.checkpoints import convert_wavtokenizer

from .golden_fixture import Fixture, GoldenRun


def run_wavtokenizer(model: WavTokenizer, fixture: Fixture) -> dict[str, Tensor]:
    computed: dict[str, Tensor] = {}
    for index in (0, 1):
        signal = fixture.inputs[f"wave_{index}"][:, None]
        latents, tokens, trained = model.encode_latents(signal), model.encode(signal), model(signal)
        looked_up = model.dequantize(tokens).values
        parts = {
            "latents": latents.values.transpose(1, 2),
            "codes": tokens.ids[None],
            "quantized": trained.quantized.latents.transpose(1, 2),
            "quantized_from_codes": looked_up.transpose(1, 2),
            "backbone": model.decoder.backbone(looked_up.transpose(1, 2)),
            "recon": model.sound_of(looked_up)[:, 0],
        }
        computed |= {f"{name}_{index}": tensor for name, tensor in parts.items()}
    return computed


def _wavtokenizer(config: Mapping[str, Any]) -> WavTokenizer:
    return WavTokenizer(WavTokenizerConfig.from_dict(convert_wavtokenizer.convert_config(config)))


RUNS = {
    "jishengpeng/WavTokenizer": GoldenRun(convert_wavtokenizer, _wavtokenizer, run_wavtokenizer),
}
