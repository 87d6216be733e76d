"""The convolutional tokenizers with one codebook on their fixtures, which record the same things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenzoo.checkpoints import convert_elm_bae, convert_ibq, convert_llamagen, convert_open_magvit2
from tokenzoo.image.elm_bae import ElmBae, ElmBaeConfig
from tokenzoo.image.grid_tokenizer import GridTokenizer
from tokenzoo.image.ibq import Ibq, IbqConfig
from tokenzoo.image.llamagen import LlamaGenConfig, LlamaGenVq
from tokenzoo.image.open_magvit2 import OpenMagvit2, OpenMagvit2Config

from .golden_fixture import Fixture, GoldenRun


def run_grid(model: GridTokenizer, fixture: Fixture) -> dict[str, Tensor]:
    images = (fixture.inputs["images"] + 1) / 2
    shape = fixture.expected["latents"].shape[2:]

    def official(values: Tensor) -> Tensor:
        """(B, h w, D) in the official layout (B, D, h, w)."""
        return values.transpose(1, 2).unflatten(2, shape)

    latents, tokens, trained = model.encode_latents(images), model.encode(images), model(images)
    looked_up = model.dequantize(tokens)
    return {
        "latents": official(latents.values),
        "tokens": tokens.ids,
        "quantized": official(trained.quantized.latents),
        "quantized_from_tokens": official(looked_up.values),
        "recon": 2 * trained.signal - 1,
        "recon_from_tokens": 2 * model.decode_latents(looked_up) - 1,
    }


def run_elm_bae(model: ElmBae, fixture: Fixture) -> dict[str, Tensor]:
    """A drawn bit is 1 where a recorded number is below p, as torch.bernoulli does with its own numbers."""
    images, uniforms = fixture.inputs["images"], fixture.inputs["uniforms"]
    shape = fixture.expected["probabilities"].shape[2:]
    share = model.encode_latents(images).values.sigmoid()
    drawn = model.quantizer.encode(share - uniforms.flatten(2).transpose(1, 2))
    tokens = model.encode(images)
    bits = model.dequantize(tokens).values
    return {
        "probabilities": share.transpose(1, 2).unflatten(2, shape),
        "tokens": tokens.ids,
        "quantized": (bits @ model.decoder.vectors).transpose(1, 2).unflatten(2, shape),
        "recon": model(images).signal,
        "recon_from_tokens": model.decode_latents(model.dequantize(tokens)),
        "tokens_drawn": drawn,
        "recon_drawn": model.decode_latents(model.dequantize(model.stamp(drawn, extents=tokens.extents))),
    }


def _llamagen(config: Mapping[str, Any]) -> LlamaGenVq:
    sizes = {"ch": config["ch"], "num_res_blocks": config["num_res_blocks"]}
    return LlamaGenVq(LlamaGenConfig.from_dict(convert_llamagen.convert_config(config["args"] | sizes)))


def _elm_bae(config: Mapping[str, Any]) -> ElmBae:
    return ElmBae(ElmBaeConfig.from_dict(convert_elm_bae.convert_config(config)))


def _ibq(config: Mapping[str, Any]) -> Ibq:
    return Ibq(IbqConfig.from_dict(convert_ibq.convert_config(config)))


def _open_magvit2(config: Mapping[str, Any]) -> OpenMagvit2:
    return OpenMagvit2(OpenMagvit2Config.from_dict(convert_open_magvit2.convert_config(config)))


RUNS = {
    "llamagen-vq": GoldenRun(convert_llamagen, _llamagen, run_grid),
    "elm-bae": GoldenRun(convert_elm_bae, _elm_bae, run_elm_bae),
    "ibq": GoldenRun(convert_ibq, _ibq, run_grid),
    "open-magvit2": GoldenRun(convert_open_magvit2, _open_magvit2, run_grid),
}
