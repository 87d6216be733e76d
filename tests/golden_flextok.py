"""FlexTok on its fixtures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tokenzoo.checkpoints import convert_flextok
from tokenzoo.image.flextok import FlexTok, FlexTokConfig
from tokenzoo.zoo.tokens import Tokens

from .golden_fixture import Fixture, GoldenRun


def build_flextok(official: Mapping[str, Any]) -> FlexTok:
    """Through the converter, with the numbers that the fixture shrinks and the official source hard-codes."""
    small = official["fixture_overrides"]["VAE_BASE_CFG"]
    vae = {
        "channels": small["block_out_channels"],
        "blocks": small["layers_per_block"],
        "groups": small["norm_num_groups"],
    }
    return FlexTok(FlexTokConfig.from_dict(convert_flextok.convert_config(official, vae=vae)))


def run_flextok(model: FlexTok, fixture: Fixture) -> dict[str, Tensor]:
    images = (fixture.inputs["images"] + 1) / 2
    if images.shape[-1] != model.config.image_size:  # a fixture with images smaller than the table of places
        model = _resized(model, images.shape[-1])
    posterior = fixture.inputs.get("vae_posterior_noise")
    latents = model.encode_latents(images, noise=posterior)
    tokens = model.quantize(latents)
    if posterior is None:
        assert tokens.identical(model.encode(images))
    quantized = model.dequantize(tokens)
    computed = {
        "vae_latents": model._map_of(images, posterior),
        "fsq_inputs": latents.values,
        "quants": model.quantizer(latents.values).latents,
        "tokens": tokens.ids,
        "quants_from_tokens": quantized.values,
    }
    return computed | _velocities(model, quantized, fixture) | _samples(model, tokens, fixture)


def _resized(model: FlexTok, size: int) -> FlexTok:
    preprocess = replace(model.config.preprocess, size=size)
    smaller = FlexTok(replace(model.config, image_size=size, preprocess=preprocess)).eval()
    smaller.load_state_dict(model.state_dict())
    return smaller


def _velocities(model: FlexTok, quantized: Tokens, fixture: Fixture) -> dict[str, Tensor]:
    """At two times, with two lengths; then all tokens, the first item without its condition."""
    (name,) = (name for name in fixture.expected if name.startswith("velocity_t"))
    first, second, *counts = re.findall(r"[\d.]+", name)
    times = torch.tensor([float(first), float(second)])
    decoder, noise = model.decoder, fixture.inputs["noise"]
    kept = decoder.embed(quantized.values, torch.tensor([int(count) for count in counts]))
    whole = decoder.embed(quantized.values, quantized.lengths)
    mixed = torch.cat([decoder.unconditional(whole[:1]), whole[1:]])
    return {
        name: decoder(noise, times, kept),
        "velocity_uncond_first": decoder(noise, times, mixed),
    }


def _samples(model: FlexTok, tokens: Tokens, fixture: Fixture) -> dict[str, Tensor]:
    """Latents and images of every recorded length and guidance; at each guidance all lengths in one batch."""
    maps: list[Tensor] = []
    model.vae.model.post_quant_conv.register_forward_pre_hook(lambda module, given: maps.append(given[0]))
    (steps,) = {int(n) for n in re.findall(r"timesteps=(\d+)", str(fixture.meta["calls"]))}
    found = [re.fullmatch(r"images_keep(\d+)_(\S+)", name) for name in fixture.expected]
    recorded = [(int(match[1]), match[2]) for match in found if match]
    computed: dict[str, Tensor] = {}
    for tag in {tag for _, tag in recorded}:
        kind, scale = tag.rstrip("0123456789."), float(tag.lstrip("acfgp"))
        lengths = [length for length, other in recorded if other == tag]
        batch = Tokens.cat([tokens.keep(length) for length in lengths])
        noise = fixture.inputs["noise"].repeat(len(lengths), 1, 1, 1)
        signal = model.decode_latents(
            model.dequantize(batch), noise=noise, steps=steps, guidance=scale, norm_guidance=kind == "apg"
        )
        for index, length in enumerate(lengths):
            items = slice(index * len(tokens), (index + 1) * len(tokens))
            computed[f"latents_keep{length}_{tag}"] = maps[-1][items] * model.config.vae_scale
            computed[f"images_keep{length}_{tag}"] = 2 * signal[items] - 1
    return computed


RUNS = {"flextok": GoldenRun(convert_flextok, build_flextok, run_flextok)}
