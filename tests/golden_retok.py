"""ReTok on its fixture, which records the spare latents too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenzoo.checkpoints import convert_retok
from tokenzoo.image.retok import ReTok, ReTokConfig

from .golden_fixture import Fixture, GoldenRun

TINY = {"width": 64, "layers": 2, "heads": 2}


def build(official: Mapping[str, Any]) -> ReTok:
    """Through the converter, with the numbers that the fixture shrinks and the official source hard-codes."""
    shrunk = {name: official[name] for name in ("ch", "num_res_blocks", "image_size")}
    config = convert_retok.convert_config({"init_args": official["args"] | shrunk}, sizes={"tiny": TINY})
    return ReTok(ReTokConfig.from_dict(config))


def _official(latents: Tensor) -> Tensor:
    """(B, N, D) in the official layout (B, D, 1, N)."""
    return latents.transpose(1, 2).unsqueeze(2)


def run(model: ReTok, fixture: Fixture) -> dict[str, Tensor]:
    images = (fixture.inputs["images"] + 1) / 2
    seen: dict[str, Tensor] = {}
    for name in ("encoder", "decoder"):
        part = getattr(model, name)
        part.conv_out.register_forward_hook(lambda _, given, out, name=name: seen.update({name: out}))
    trained, tokens = model(images), model.encode(images)
    assert torch.equal(trained.quantized.values[:, :256], tokens.ids)
    computed = {
        "vit_encoder_out": seen["encoder"],
        "latents": _official(model.encoder(fixture.inputs["images"])),
        "quantized": _official(trained.quantized.latents),
        "tokens": trained.quantized.values,
        "recon_default": 2 * trained.signal - 1,
        "recon_from_tokens": 2 * model.decode_latents(model.dequantize(tokens)) - 1,
    }
    for name in fixture.expected:
        if kept := re.fullmatch(r"(recon|rec_spatial)_num_tokens(\d+)", name):
            prefix = tokens.keep(int(kept[2]))
            painted = model.decode_latents(model.dequantize(prefix))
            computed[name] = 2 * painted - 1 if kept[1] == "recon" else seen["decoder"]
    return computed


RUNS = {"retok": GoldenRun(convert_retok, build, run)}
