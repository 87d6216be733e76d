"""SpeechTokenizer on its fixture: two waveforms, the second a batch of two, with parts of the codebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenzoo.audio.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
from tokenzoo.checkpoints import convert_speechtokenizer
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer

from .golden_fixture import Fixture, GoldenRun


def run_speechtokenizer(model: SpeechTokenizer, fixture: Fixture) -> dict[str, Tensor]:
    computed: dict[str, Tensor] = {}
    for index in (0, 1):
        signal = fixture.inputs[f"wave_{index}"]
        latents, tokens, trained = model.encode_latents(signal), model.encode(signal), model(signal)
        kept = {count: model.encode(signal, keep=count) for count in (1, 2)}
        others = ResidualQuantizer(list(model.quantizer.stages)[1:])
        # Whole hops, as the official decoder gives them.
        whole = tokens.lengths[:, None] * model.config.hop_samples
        stamped = model.stamp(tokens.ids, extents=whole)
        parts = {
            "latents": latents.values.transpose(1, 2),
            "codes": _official(tokens.ids),
            "quantized": model.dequantize(tokens).values.transpose(1, 2),
            "recon": model.sound_of(model.dequantize(tokens).values),
            "codes_first1": _official(kept[1].ids),
            "codes_first2": _official(kept[2].ids),
            "recon_first1": model.sound_of(model.dequantize(kept[1]).values),
            "recon_first2": model.sound_of(model.dequantize(kept[2]).values),
            "recon_from1": model.decode(stamped, first_codebook=1),
            "codes_st1": _official(others.encode(latents.values)),
            "forward": model.sound_of(trained.quantized.latents),
            "semantic_feature": model.semantic_features(tokens),
        }
        computed |= {f"{name}_{index}": tensor for name, tensor in parts.items()}
        for layer in (0, 2):
            codes = model.quantizer.stages[layer].decode(tokens.ids[..., layer])
            computed[f"layer_quantized_{index}_{layer}"] = codes.transpose(1, 2)
    return computed


def _official(ids: Tensor) -> Tensor:
    """(B, N, Q) in the official layout (Q, B, N)."""
    return ids.permute(2, 0, 1)


def _speechtokenizer(config: Mapping[str, Any]) -> SpeechTokenizer:
    values = convert_speechtokenizer.convert_config(config["model"])
    return SpeechTokenizer(SpeechTokenizerConfig.from_dict(values))


RUNS = {
    "ZhangXInFD/SpeechTokenizer": GoldenRun(convert_speechtokenizer, _speechtokenizer, run_speechtokenizer),
}
