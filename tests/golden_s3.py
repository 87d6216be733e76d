"""The S3 tokenizers on their fixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenzoo.audio.s3 import S3Config, S3Tokenizer
from tokenzoo.checkpoints import convert_s3

from .golden_fixture import Fixture, GoldenRun


def run_s3(model: S3Tokenizer, fixture: Fixture) -> dict[str, Tensor]:
    """`*_batch_i` are the official masks at work, `*_single_i` each item alone."""
    waves = [fixture.inputs[f"wave_{index}"][None] for index in range(2)]
    mels = [model.log_mel(wave[None])[0] for wave in waves]
    frames = torch.tensor([mel.shape[1] for mel in mels])
    mel_batch = torch.nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
    hidden, padded = model.encoder.trunk(mel_batch, frames), model.encode(waves, padded=True)
    ids = fixture.expected["codes_batch_0"].dtype
    computed = {
        "mel_batch": mel_batch,
        "mel_len": frames.to(torch.int32),
        "code_len": padded.lengths.to(torch.int32),
    }
    for index, (wave, mel, count) in enumerate(zip(waves, mels, padded.lengths.tolist(), strict=True)):
        alone, latents = model.encode([wave]), model.encode_latents(wave[None]).values
        computed |= {
            f"mel_{index}": mel,
            f"latents_batch_{index}": hidden[index, :count],
            f"latents_single_{index}": model.encoder.trunk(mel[None])[0],
            f"codes_batch_{index}": padded.ids[index, :count].to(ids),
            f"codes_single_{index}": alone.ids[0].to(ids),
        }
        stood_for = model.dequantize(alone).values[0]
        if model.config.levels:
            computed[f"fsq_pre_round_{index}"] = latents[0].tanh() * 0.999
            computed[f"fsq_digits_{index}"] = stood_for + 1
        else:
            computed[f"normalized_latents_{index}"] = latents[0]
            computed[f"quantized_{index}"] = stood_for.T
    return computed


def _s3(config: Mapping[str, Any]) -> S3Tokenizer:
    """The fixtures' table of positions is too short for 30 s."""
    converted = convert_s3.convert_config({"name": config["name"], **config["model"]})
    return S3Tokenizer(S3Config.from_dict(converted | {"window_frames": 640}))


RUNS = {"xingchensong/S3Tokenizer": GoldenRun(convert_s3, _s3, run_s3)}
