"""TiTok and One-D-Piece on their fixtures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tokenzoo.checkpoints import convert_titok
from tokenzoo.image.titok import TiTok, TiTokConfig
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.tokens import Tokens

from .golden_fixture import Fixture, GoldenRun


def shrunk_sizes(official: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    """The official table of sizes, with those that the fixture shrinks."""
    sizes = dict(convert_titok.SIZES)
    for name, size in official.get("fixture_overrides", {}).get("model_size_table", {}).items():
        sizes[name] = {"width": size["width"], "layers": size["num_layers"], "heads": size["num_heads"]}
    return sizes


def titok_config(official: Mapping[str, Any]) -> TiTokConfig:
    """Through the converter, with the numbers that the fixture shrinks and the official source hard-codes."""
    shrunk = official.get("fixture_overrides", {})
    pixels = dict(convert_titok.PIXEL_DECODER)
    if "pixel_decoder" in shrunk:
        small = shrunk["pixel_decoder"]
        pixels = {
            "channels": small["hidden_channels"],
            "multipliers": small["channel_mult"],
            "blocks": small["num_res_blocks"],
            "latent_dim": small["z_channels"],
        }
    return TiTokConfig.from_dict(
        convert_titok.convert_config(official, sizes=shrunk_sizes(official), pixel_decoder=pixels)
    )


def official_layout(latents: Tensor) -> Tensor:
    """(B, N, D) in the official layout (B, D, 1, N)."""
    return latents.transpose(1, 2).unsqueeze(2)


def run_titok(model: TiTok, fixture: Fixture) -> dict[str, Tensor]:
    images = fixture.inputs["images"]
    latents = model.encode_latents(images)
    computed = {"encoder_latents": official_layout(latents.values)}
    if not model.facts.is_discrete:
        return computed | run_posterior(model, latents, fixture, model.decode_latents)

    heads: list[Any] = []
    model.decoder.head.register_forward_hook(lambda module, inputs, output: heads.append(output))
    trained = model(images)
    tokens = model.encode(images)
    assert torch.equal(trained.quantized.values, tokens.ids)
    assert torch.equal(trained.quantized.latents, model.quantizer.decode(tokens.ids))
    computed["tokens"] = tokens.ids.unsqueeze(1)
    computed["quantized"] = official_layout(trained.quantized.latents)
    computed["quantized_from_tokens"] = official_layout(model.quantizer.decode(tokens.ids))
    computed["vit_decoder_out"] = heads[0]
    computed["recon_forward"] = trained.signal
    computed["recon_tokens"] = model.decode_latents(model.dequantize(tokens))
    return computed | _run_prefixes(model, tokens, fixture)


def _run_prefixes(model: TiTok, tokens: Tokens, fixture: Fixture) -> dict[str, Tensor]:
    """Every recorded length, and all of them at once in one batch of mixed lengths."""
    lengths = sorted(
        int(n[1]) for name in fixture.expected if (n := re.fullmatch(r"recon_tokens_len(\d+)", name))
    )
    cuts = [tokens.keep(length) for length in lengths]
    computed = {
        f"recon_tokens_len{length}": model.decode_latents(model.dequantize(cut))
        for length, cut in zip(lengths, cuts, strict=True)
    }
    if len(lengths) > 1:
        mixed = model.decode_latents(model.dequantize(Tokens.cat(cuts)))
        for index, length in enumerate(lengths):
            items = mixed[index * len(tokens) : (index + 1) * len(tokens)]
            fixture.assert_close(f"recon_tokens_len{length}", items)
    return computed


def run_posterior(
    model: TiTok, latents: Tokens, fixture: Fixture, decode: Callable[[Tokens], Tensor]
) -> dict[str, Tensor]:
    """What a continuous model gives for these latents, the recorded noise and this way to decode."""
    posterior = model.quantizer
    assert isinstance(posterior, GaussianPosterior)
    mean, logvar = map(official_layout, posterior.moments(latents.values))
    sample = mean + torch.exp(0.5 * logvar) * fixture.inputs["posterior_noise"]
    tokens = model.encode(fixture.inputs["images"])
    return {
        "posterior_mean": mean,
        "posterior_logvar": logvar,
        "posterior_mode": official_layout(tokens.values),
        "posterior_sample": sample,
        "kl": posterior.kl(latents.values),
        "recon_from_mode": decode(tokens),
        "recon_from_sample": decode(model.stamp(sample.squeeze(2).transpose(1, 2))),
    }


_RUN = GoldenRun(convert_titok, lambda config: TiTok(titok_config(config)), run_titok)
RUNS = dict.fromkeys(("titok-s1", "titok-s2", "titok-vq8k", "titok-vae", "one-d-piece"), _RUN)
