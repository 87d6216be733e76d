"""TiTok and One-D-Piece on their fixtures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenzoo.checkpoints import convert_titok
from tokenzoo.image.titok import TiTok, TiTokConfig
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.tokens import Tokens

from .golden_fixture import Fixture, GoldenRun


def titok_config(official: Mapping[str, Any]) -> TiTokConfig:
    """Through the converter, with the numbers that the fixture shrinks and the official source hard-codes."""
    shrunk = official.get("fixture_overrides", {})
    sizes = dict(convert_titok.SIZES)
    for name, size in shrunk.get("model_size_table", {}).items():
        sizes[name] = {"width": size["width"], "layers": size["num_layers"], "heads": size["num_heads"]}
    pixels = dict(convert_titok.PIXEL_DECODER)
    if "pixel_decoder" in shrunk:
        small = shrunk["pixel_decoder"]
        pixels = {
            "channels": small["hidden_channels"],
            "multipliers": small["channel_mult"],
            "blocks": small["num_res_blocks"],
            "latent_dim": small["z_channels"],
        }
    return TiTokConfig.from_dict(convert_titok.convert_config(official, sizes=sizes, pixel_decoder=pixels))


def _official(latents: Tensor) -> Tensor:
    """(B, N, D) in the official layout (B, D, 1, N)."""
    return latents.transpose(1, 2).unsqueeze(2)


def run_titok(model: TiTok, fixture: Fixture) -> dict[str, Tensor]:
    images = fixture.inputs["images"]
    latents = model.encode_latents(images)
    computed = {"encoder_latents": _official(latents.values)}
    if not model.facts.is_discrete:
        return computed | _run_posterior(model, latents, fixture)

    heads: list[Any] = []
    model.decoder.head.register_forward_hook(lambda module, inputs, output: heads.append(output))
    trained = model(images)
    tokens = model.encode(images)
    assert torch.equal(trained.quantized.values, tokens.ids)
    assert torch.equal(trained.quantized.latents, model.quantizer.decode(tokens.ids))
    computed["tokens"] = tokens.ids.unsqueeze(1)
    computed["quantized"] = _official(trained.quantized.latents)
    computed["quantized_from_tokens"] = _official(model.quantizer.decode(tokens.ids))
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


def _run_posterior(model: TiTok, latents: Tokens, fixture: Fixture) -> dict[str, Tensor]:
    posterior = model.quantizer
    assert isinstance(posterior, GaussianPosterior)
    mean, logvar = posterior.moments(latents.values)
    sample = _official(mean) + torch.exp(0.5 * _official(logvar)) * fixture.inputs["posterior_noise"]
    ours = sample.squeeze(2).transpose(1, 2)
    tokens = model.encode(fixture.inputs["images"])
    return {
        "posterior_mean": _official(mean),
        "posterior_logvar": _official(logvar),
        "posterior_mode": _official(tokens.values),
        "posterior_sample": sample,
        "kl": posterior.kl(latents.values),
        "recon_from_mode": model.decode_latents(tokens),
        "recon_from_sample": model.decode_latents(model.stamp(ours)),
    }


_RUN = GoldenRun(convert_titok, lambda config: TiTok(titok_config(config)), run_titok)
RUNS = dict.fromkeys(("titok-s1", "titok-s2", "titok-vq8k", "titok-vae", "one-d-piece"), _RUN)
