"""BigCodec and X-Codec 2 on their fixtures. The layout of X-Codec 2's is that of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenzoo.audio.bigcodec import BigCodec, BigCodecConfig
from tokenzoo.audio.xcodec2 import XCodec2, XCodec2Config
from tokenzoo.checkpoints import convert_bigcodec, convert_xcodec2

from .golden_fixture import Fixture, GoldenRun


def build_bigcodec(official: Mapping[str, Any]) -> BigCodec:
    return BigCodec(BigCodecConfig.from_dict(convert_bigcodec.convert_config(official)))


def build_xcodec2(official: Mapping[str, Any]) -> XCodec2:
    return XCodec2(XCodec2Config.from_dict(convert_xcodec2.convert_config(official)))


def run_bigcodec(model: BigCodec, fixture: Fixture) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for index in range(len(fixture.config["lens"])):
        wave = fixture.inputs[f"wave_{index}"]
        latents, tokens, trained = model.encode_latents(wave), model.encode(wave), model(wave)
        assert tokens.lengths.tolist() == [model.num_tokens(wave.shape[2:])] * len(wave)
        looked_up = model.dequantize(tokens).values
        found |= {
            f"padded_{index}": model.pad_signal(wave),
            f"latents_{index}": latents.values.transpose(1, 2),
            f"codes_{index}": tokens.ids[None],
            f"quantized_{index}": trained.quantized.latents.transpose(1, 2),
            f"quantized_from_codes_{index}": looked_up.transpose(1, 2),
            f"recon_{index}": model.sound_of(looked_up),
        }
    return found


def run_xcodec2(model: XCodec2, fixture: Fixture) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for index in range(len(fixture.config["lens"])):
        wave = fixture.inputs[f"wave_{index}"]
        latents, tokens, trained = model.encode_latents(wave), model.encode(wave), model(wave)
        looked_up = model.dequantize(tokens).values
        padded, encoder = model.pad_signal(wave), model.encoder
        features = model.semantic_features(padded)
        hidden = encoder.semantic(features).transpose(1, 2)
        found |= {
            f"padded_{index}": padded[:, 0],
            f"input_features_{index}": features,
            f"semantic_hidden16_{index}": hidden,
            f"semantic_encoded_{index}": encoder.adapter(hidden),
            f"acoustic_latents_{index}": encoder.acoustic(padded),
            f"latents_{index}": latents.values.transpose(1, 2),
            f"codes_{index}": tokens.ids[:, None].int(),
            f"quantized_{index}": trained.quantized.latents.transpose(1, 2),
            f"quantized_from_codes_{index}": looked_up.transpose(1, 2),
            f"recon_{index}": model.sound_of(looked_up),
        }
    return found


RUNS = {
    "Aria-K-Alethia/BigCodec": GoldenRun(convert_bigcodec, build_bigcodec, run_bigcodec),
    "zhenye234/X-Codec-2.0": GoldenRun(convert_xcodec2, build_xcodec2, run_xcodec2),
}
