"""TokenBridge over its KL autoencoder on the fixtures, at every number of bits they record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenzoo.checkpoints import convert_ldm_vae
from tokenzoo.image.tokenbridge import TokenBridge, TokenBridgeConfig

from .golden_fixture import Fixture, GoldenRun


def build(official: Mapping[str, Any], bits: int | None = None) -> TokenBridge:
    config = dict(official) | {"bits": official["bits"][0] if bits is None else bits}
    return TokenBridge(TokenBridgeConfig.from_dict(convert_ldm_vae.convert_config(config)))


def run_tokenbridge(model: TokenBridge, fixture: Fixture) -> dict[str, Tensor]:
    images, noise = (fixture.inputs["images"] + 1) / 2, fixture.inputs["posterior_noise"]
    batch, rows, columns = len(images), *noise.shape[2:]

    def official(values: Tensor) -> Tensor:
        """(B, h w, D) in the official layout (B, D, h, w)."""
        return values.transpose(1, 2).unflatten(2, (rows, columns))

    mean, logvar = model.base.quantizer.moments(model.encode_latents(images).values)
    sample = mean + torch.exp(0.5 * logvar) * noise.flatten(2).transpose(1, 2)
    extents = [list(images.shape[2:])] * batch
    continuous = model.base.decode_latents(model.base.stamp(sample, extents=extents))
    computed = {
        "posterior_mean": official(mean),
        "posterior_logvar": official(logvar),
        "latents_scaled": official(sample) * convert_ldm_vae.LATENT_SCALE,
        "recon_continuous": 2 * continuous - 1,
    }
    for bits in fixture.config["bits"]:
        binned = build(fixture.config, bits).eval()
        binned.load_state_dict(model.state_dict())
        ids = binned.quantizer.bins.encode(sample)
        tokens = binned.dequantize(binned.stamp(ids, extents=extents))
        computed[f"tokens_{bits}bit"] = official(ids)
        computed[f"dequant_{bits}bit"] = official(tokens.values) * convert_ldm_vae.LATENT_SCALE
        computed[f"recon_{bits}bit"] = 2 * binned.decode_latents(tokens) - 1
    return computed


RUNS = {"tokenbridge": GoldenRun(convert_ldm_vae, build, run_tokenbridge)}
