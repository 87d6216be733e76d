"""KARL on its fixtures: every budget and error recorded, in batches where the official code took singles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenzoo.checkpoints import convert_karl
from tokenzoo.image.karl import HALTING_THRESHOLD, Karl, KarlConfig
from tokenzoo.image.karl_parts import error_index
from tokenzoo.kernels.vq import nearest_code

from .golden_fixture import Fixture, GoldenRun


def official_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """A fixture's config.json in the form of the manifests; its images have 16 x 16 patches."""
    base = config["base_tokenizer"]
    resolution = 16 * config["args"]["patch_size"]
    arguments = base.get("vqgan", base | {"resolution": resolution})
    return {**config["args"], "base_tokenizer": base["id"], "base_tokenizer_config": arguments}


def run_karl(model: Karl, fixture: Fixture) -> dict[str, Tensor]:
    images, noise = fixture.inputs["images"], fixture.inputs.get("vae_posterior_noise")
    features = model.encoder.features(images, noise)
    computed = {"img_tokens": model.encoder.patches(images, noise)}
    if model.decoder.vqgan is None:
        computed["gt_code"] = features.flatten(2).transpose(1, 2)
    else:
        computed["gt_indices"] = nearest_code(
            features.flatten(2).transpose(1, 2), model.decoder.vqgan.codebook
        )
    runs = sorted(
        {found[1] for name in fixture.expected if (found := re.search(r"(budget\d+_q[\d.]+)$", name))}
    )
    for run in runs:
        budget, max_error = re.fullmatch(r"budget(\d+)_q([\d.]+)", run).groups()  # pyright: ignore
        computed |= _run(model, fixture, run, int(budget), float(max_error), noise)
    return computed


def _run(
    model: Karl, fixture: Fixture, run: str, budget: int, max_error: float, noise: Tensor | None
) -> dict[str, Tensor]:
    images = fixture.inputs["images"]
    latents, votes = model.encoder(images, error_index(max_error), budget, noise)
    ids = model.quantizer.encode(latents)
    quantized = model.quantizer.decode(ids)
    kept = votes.sigmoid() <= HALTING_THRESHOLD
    prediction = model.decoder.predict(quantized, keep=kept)
    # What a user has in the end: ids and positions of those that stayed.
    tokens = model.stamp(
        [row[mask].tolist() for row, mask in zip(ids, kept, strict=True)],
        positions=[mask.nonzero()[:, 0].tolist() for mask in kept],
    )
    recon = model.decode_latents(model.dequantize(tokens))
    torch.testing.assert_close(recon, model.decoder.paint(prediction), atol=1e-4, rtol=1e-4)
    encoded = model.encode_latents(images, keep=budget, max_error=max_error, noise=noise)
    assert model.quantize(encoded)._zero_padding().identical(tokens)
    return {
        f"latents_{run}": latents,
        f"halt_logits_{run}": votes.unsqueeze(-1),
        f"halted_mask_{run}": ~kept,
        f"tokens_{run}": ids,
        f"quantized_{run}": quantized,
        f"decoder_out_{run}": prediction[:1].flatten(2).transpose(1, 2),
        f"recon_{run}": recon,
    }


_RUN = GoldenRun(
    convert_karl,
    lambda config: Karl(KarlConfig.from_dict(convert_karl.convert_config(official_arguments(config)))),
    run_karl,
)
RUNS = dict.fromkeys(("karl-vqgan", "karl-vae"), _RUN)
