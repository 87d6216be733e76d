"""ALIT on its fixtures: the whole roll-out with the recorded uniforms, and what a user gets of each round."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenzoo.checkpoints import convert_alit
from tokenzoo.image.alit import Alit, AlitConfig
from tokenzoo.kernels.vq import nearest_code

from .golden_fixture import Fixture, GoldenRun
from .golden_karl import official_arguments


def run_alit(model: Alit, fixture: Fixture) -> dict[str, Tensor]:
    images, uniform = fixture.inputs["images"], fixture.inputs["halting_uniform"]
    encoder, decoder = model.encoder, model.decoder
    features = encoder.features(images)
    truth = nearest_code(features.flatten(2).transpose(1, 2), decoder.vqgan.codebook)
    computed: dict[str, Tensor] = {"gt_indices": truth}
    x = encoder.first(images, features)
    for index in range(model.config.rounds):
        x = encoder(x)
        latents = encoder.latents(x)
        ids = model.quantizer.encode(latents)
        quantized = model.quantizer.decode(ids)
        prediction = decoder.predict(quantized)
        drop = model.masked_patches(prediction, features, uniform[index])
        run = f"iter{index}_ntok{ids.shape[1]}"
        computed |= {
            f"latents_{run}": latents,
            f"quantized_{run}": quantized,
            f"tokens_{run}": ids,
            f"decoder_logits_iter{index}": prediction.flatten(2).transpose(1, 2),
            f"pred_gt_prob_iter{index}": prediction.flatten(2).softmax(1).gather(1, truth[:, None])[:, 0],
            f"drop_mask_iter{index}": drop,
            f"recon_{run}": model.decode_latents(model.dequantize(model.stamp(ids))),
        }
        if index == model.config.rounds - 1:
            computed["encoder_latent_tokens_last"] = x[:, 1 + encoder.places :]
        else:
            x = encoder.grow(x, index + 1, drop)
    for index in range(model.config.rounds):
        count = (index + 1) * model.config.tokens_per_round
        latents = model.encode_latents(images, keep=count, uniform=uniform.transpose(0, 1))
        assert torch.equal(model.quantize(latents).ids, computed[f"tokens_iter{index}_ntok{count}"])
    return computed


_RUN = GoldenRun(
    convert_alit,
    lambda config: Alit(AlitConfig.from_dict(convert_alit.convert_config(official_arguments(config)))),
    run_alit,
)
RUNS = {"alit-vqgan": _RUN}
