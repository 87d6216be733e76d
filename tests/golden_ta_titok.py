"""TA-TiTok on its fixtures; they record text features, not captions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tokenzoo.checkpoints import convert_ta_titok
from tokenzoo.image.ta_titok import TaTiTok, TaTiTokConfig

from .golden_fixture import Fixture, GoldenRun
from .golden_titok import official_layout, run_posterior, shrunk_sizes


def build(official: Mapping[str, Any]) -> TaTiTok:
    config = convert_ta_titok.convert_config(official, sizes=shrunk_sizes(official))
    return TaTiTok(TaTiTokConfig.from_dict(config))


def run(model: TaTiTok, fixture: Fixture) -> dict[str, Tensor]:
    images, text = fixture.inputs["images"], fixture.inputs["text_guidance"]
    decode = partial(model.decode_latents, text_features=text)
    latents = model.encode_latents(images)
    computed = {"encoder_latents": official_layout(latents.values)}
    if not model.facts.is_discrete:
        return computed | run_posterior(model, latents, fixture, decode)
    tokens = model.encode(images)
    trained = model(images, text_features=text)
    decoded = decode(model.dequantize(tokens))
    assert torch.equal(trained.signal, decoded)
    return computed | {
        "tokens": tokens.ids.unsqueeze(1),
        "quantized": official_layout(trained.quantized.latents),
        "quantized_from_tokens": official_layout(model.quantizer.decode(tokens.ids)),
        "recon_tokens": decoded,
    }


RUNS = dict.fromkeys(("tatitok-vq", "tatitok-vae"), GoldenRun(convert_ta_titok, build, run))
