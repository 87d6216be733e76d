"""LM-SPT on its fixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenzoo.audio.lm_spt import LmSpt, LmSptConfig
from tokenzoo.checkpoints import convert_lm_spt

from .golden_fixture import Fixture, GoldenRun


def build_lm_spt(official: Mapping[str, Any]) -> LmSpt:
    return LmSpt(LmSptConfig.from_dict(convert_lm_spt.convert_config(official)))


def run_lm_spt(model: LmSpt, fixture: Fixture) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    width = model.config.features
    for index in range(len(fixture.inputs)):
        wave = fixture.inputs[f"wave_{index}"]
        latents, tokens, trained = model.encode_latents(wave), model.encode(wave), model(wave)
        assert torch.equal(trained.quantized.values, tokens.ids)
        semantic, acoustic = latents.values.split(width, dim=2)
        left = acoustic - trained.quantized.first
        found |= {
            f"semantic_latents_{index}": semantic.transpose(1, 2),
            f"acoustic_latents_{index}": acoustic.transpose(1, 2),
            f"codes_{index}": tokens.ids.transpose(1, 2),
            f"quantized_{index}": trained.quantized.latents.transpose(1, 2),
            f"semantic_quantized_{index}": trained.quantized.first.transpose(1, 2),
            # The official weights, 0.25 of the commitment and 1 of the codebook, of each of the two.
            f"semantic_loss_{index}": model.quantizer.first(semantic).loss[None],
            f"acoustic_loss_{index}": model.quantizer.rest(left).loss[None],
        }
        for name, keep in (("recon", 4), ("recon_semantic", 1), ("recon_three", 3)):
            kept = model.encode(wave, keep=keep)
            assert kept.identical(tokens.keep(keep))
            found[f"{name}_{index}"] = model.sound_of(model.dequantize(kept).values)
    return found


RUNS = {"kakao/lmspt": GoldenRun(convert_lm_spt, build_lm_spt, run_lm_spt)}
