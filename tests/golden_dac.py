"""DAC and SNAC on their fixtures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tokenzoo import Tokens
from tokenzoo.audio.dac import Dac, DacConfig
from tokenzoo.audio.snac import Snac, SnacConfig
from tokenzoo.checkpoints import convert_dac, convert_snac

from .golden_fixture import Fixture, GoldenRun


def build_dac(official: Mapping[str, Any]) -> Dac:
    return Dac(DacConfig.from_dict(convert_dac.convert_config(official["model"])))


def build_snac(official: Mapping[str, Any]) -> Snac:
    return Snac(SnacConfig.from_dict(convert_snac.convert_config(official["model"])))


def run_dac(model: Dac, fixture: Fixture) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for index in range(len(fixture.config["lens"])):
        wave = fixture.inputs[f"wave_{index}"]
        latents, tokens, trained = model.encode_latents(wave), model.encode(wave), model(wave)
        looked_up = model.dequantize(tokens)
        commitment, codebook = _losses(model, latents.values, tokens.ids)
        weighted = model.config.commitment_weight * commitment + codebook
        torch.testing.assert_close(trained.quantized.loss, weighted)
        found |= {
            f"padded_{index}": model.pad_signal(wave),
            f"latents_{index}": latents.values.transpose(1, 2),
            f"codes_{index}": tokens.ids.transpose(1, 2),
            f"quantized_{index}": trained.quantized.latents.transpose(1, 2),
            f"quantized_from_codes_{index}": looked_up.values.transpose(1, 2),
            f"projected_latents_{index}": _projected(model, latents.values, tokens.ids),
            f"projected_from_codes_{index}": _codes(model, tokens.ids),
            f"commitment_loss_{index}": commitment[None],
            f"codebook_loss_{index}": codebook[None],
            f"recon_{index}": model.sound_of(looked_up.values),
            f"forward_audio_{index}": _as_long(model.decode_latents(looked_up), fixture, index),
        }
        for keep in (1, 2):
            kept = model.encode(wave, keep=keep)
            assert kept.identical(tokens.keep(keep))
            first = model.dequantize(kept).values
            found |= {
                f"codes_first{keep}_{index}": kept.ids.transpose(1, 2),
                f"quantized_first{keep}_{index}": first.transpose(1, 2),
                f"recon_first{keep}_{index}": model.sound_of(first),
            }
    return found


def run_snac(model: Snac, fixture: Fixture) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for index in range(len(fixture.config["lens"])):
        wave = fixture.inputs[f"wave_{index}"]
        latents, tokens, trained = model.encode_latents(wave), model.encode(wave), model(wave)
        noise = _token_noise(model, fixture, index)
        levels = tokens.ids.split(model.config.ids_per_token, dim=2)
        looked_up, coarse = model.dequantize(tokens), model.dequantize(tokens.keep(model.facts.keeps[0]))
        found |= {
            f"padded_{index}": model.pad_signal(wave),
            f"latents_{index}": latents.values.transpose(1, 2),
            f"quantized_{index}": trained.quantized.latents.transpose(1, 2),
            f"quantized_from_codes_{index}": looked_up.values.transpose(1, 2),
            f"recon_noise_{index}": _whole(model, looked_up, noise),
            f"recon_nonoise_{index}": _whole(model, looked_up, 0 * noise),
            f"recon_first1_nonoise_{index}": _whole(model, coarse, 0 * noise),
            f"forward_noise_{index}": model.decode_latents(looked_up, noise=noise),
        }
        found |= {f"codes_{index}_level{level}": ids.flatten(1) for level, ids in enumerate(levels)}
    return found


def _losses(model: Dac, latents: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The two losses of the official code, sums over codebooks; in numbers they are the same."""
    difference = _projected(model, latents, ids) - _codes(model, ids)
    loss = difference.unflatten(1, (ids.shape[2], -1)).square().mean(dim=(0, 2, 3)).sum()
    return loss, loss


def _projected(model: Dac, latents: Tensor, ids: Tensor) -> Tensor:
    """(B, Q * d, N): what each codebook is searched for."""
    residual, found = latents, []
    for stage, each in zip(model.quantizer.stages, ids.unbind(2), strict=True):
        found.append(stage.project_in(residual))
        residual = residual - stage.decode(each)
    return torch.cat(found, dim=2).transpose(1, 2)


def _codes(model: Dac, ids: Tensor) -> Tensor:
    """(B, Q * d, N): the rows of the codebooks."""
    stages = zip(model.quantizer.stages, ids.unbind(2), strict=True)
    return torch.cat([stage.inner.decode(each) for stage, each in stages], dim=2).transpose(1, 2)


def _as_long(sound: Tensor, fixture: Fixture, index: int) -> Tensor:
    """The official `forward` leaves out the samples that its decoder does not give; ours are zeros."""
    official = fixture.expected[f"forward_audio_{index}"].shape[2]
    assert sound[..., official:].count_nonzero() == 0
    return sound[..., :official]


def _whole(model: Snac, latents: Tokens, noise: Tensor) -> Tensor:
    """Sound with its padding."""
    extents = (latents.lengths // model.config.frames[0] * model.config.hop_samples)[:, None]
    return model.decode_latents(replace(latents, extents=extents), noise=noise)


def _token_noise(model: Snac, fixture: Fixture, index: int) -> Tensor:
    """(B, N, W): the noise of the decoder's blocks, token by token."""
    blocks = [
        fixture.inputs[f"noise_{index}_{block}"].flatten(1).unflatten(1, (-1, count))
        for block, count in enumerate(model.config.noise_per_token)
    ]
    return torch.cat(blocks, dim=2)


RUNS = {
    "descriptinc/descript-audio-codec": GoldenRun(convert_dac, build_dac, run_dac),
    "hubertsiuzdak/snac": GoldenRun(convert_snac, build_snac, run_snac),
}
