"""DAC: exact length though its decoder falls short, pieces that are the whole, and transformers' model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from transformers import DacConfig as TransformersConfig
from transformers import DacModel

import tokenzoo
from tokenzoo.audio.dac import Dac, DacConfig
from tokenzoo.audio.snac import Snac, SnacConfig
from tokenzoo.audio.stream import join
from tokenzoo.checkpoints import convert_dac
from tokenzoo.checkpoints.error import CheckpointError

from .toys import build_toy
from .toys_dac import SmallDacConfig

pytestmark = pytest.mark.usefixtures("one_thread")

HOP = 10


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.rand(1, samples, generator=Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def enliven(model: nn.Module) -> nn.Module:
    """Weights that use many codes, and a sound that moves: at first a model is nearly silent."""
    chance = Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.copy_(torch.rand(parameter.shape, generator=chance) + 0.5)
        elif "codebook" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=chance))
        elif parameter.ndim > 1:
            size = parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=chance) * size)
    return model.eval()


@pytest.fixture(scope="module")
def dac() -> Dac:
    model = enliven(build_toy("dac"))
    assert isinstance(model, Dac)
    return model


@pytest.mark.parametrize("samples", [1, 2, 9, 10, 11, 19, 20, 21, 95, 100, 101])
def test_a_round_trip_gives_back_as_many_samples(dac: Dac, samples: int) -> None:
    tokens = dac.encode([sound(samples)])
    assert tokens.ids.shape == (1, -(-samples // HOP), 3) == (1, dac.num_tokens([samples]), 3)
    decoded = dac.decode(tokens)
    assert decoded.shape == (1, 1, samples) and bool(decoded.abs().amax() <= 1)


def test_what_an_odd_stride_loses_is_zeros_at_the_end() -> None:
    """8 samples at 16 and 24 kHz, whatever the length."""
    config = SmallDacConfig(encoder_strides=(2, 4, 5, 8), decoder_strides=(8, 5, 4, 2))
    model = enliven(Dac(config))
    tokens = model.encode([sound(640)])
    assert model.sound_of(model.dequantize(tokens).values).shape[-1] == 2 * 320 - 8
    decoded = model.decode(tokens)[0, 0]
    assert decoded.shape == (640,)
    assert decoded[-8:].count_nonzero() == 0 and bool((decoded[:-8] != 0).all())
    shorter = model.decode(model.encode([sound(630)]))[0, 0]
    assert shorter.shape == (630,) and bool((shorter != 0).all())


def test_lengths_and_bit_rate() -> None:
    for name, rate, samples, tokens in (("dac-16khz", 6000, 320, 50), ("dac-44khz", 7752, 512, 87)):
        row = tokenzoo.zoo.catalogue.find(name)
        assert row is not None
        assert round(row.facts.bitrate_bps() or 0) == rate
        assert row.facts.token_rate_hz == (row.facts.sample_rate_hz or 0) / samples
        assert -(-(row.facts.sample_rate_hz or 0) // samples) == tokens


@pytest.mark.parametrize("seconds", [0.001, 0.004, 0.03])
def test_pieces_are_the_whole(seconds: float) -> None:
    """In float64, where pieces and whole round alike: all ids, and the sound to the last digits."""
    exact = enliven(build_toy("dac")).double()
    items = [sound(samples, samples).double() for samples in (1, 400, 777)]
    whole = exact.encode(items)
    assert exact.encode(items, chunk_seconds=seconds).identical(whole)
    sounds = exact.decode(whole), exact.decode(whole, chunk_seconds=seconds)
    torch.testing.assert_close(*sounds, atol=1e-6, rtol=0)


def test_float32_pieces_differ_by_near_ties_alone(dac: Dac) -> None:
    items = [sound(8000, seed) for seed in range(4)]
    whole, pieces = dac.encode(items), dac.encode(items, chunk_seconds=0.02)
    rate = float((whole.ids != pieces.ids).float().mean())
    assert rate <= 1e-3, f"{rate:.2%} of {whole.ids.numel()} ids differ"


def test_one_token_less_of_context_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    model, item = enliven(build_toy("dac")).double(), sound(1200).double()
    assert isinstance(model, Dac)
    enough, whole = model.overlap, model.encode([item])
    scant = replace(enough, encode_tokens=enough.encode_tokens - 2, decode_tokens=enough.decode_tokens - 2)
    monkeypatch.setattr(Dac, "overlap", scant)
    assert not torch.equal(model.decode(whole, chunk_seconds=0.01), model.decode(whole, chunk_seconds=10.0))
    latents = model.encode_latents(item[None]).values
    start = 60 * HOP - scant.encode_tokens * HOP
    part = model.encode_latents(item[None, :, start:]).values[:, scant.encode_tokens :]
    assert not torch.allclose(part, latents[:, 60:], atol=1e-9)


@pytest.mark.parametrize("step", [1, 7, 64])
def test_a_stream_takes_pieces_of_any_size(dac: Dac, step: int) -> None:
    item = sound(207)
    stream = dac.stream(block_seconds=0.002)
    pieces = [stream.encode(piece) for piece in item.split(step, dim=-1)]
    tokens = join([*pieces, stream.flush().tokens])
    assert tokens.identical(dac.encode([item]))
    heard = [stream.decode(tokens), stream.flush().signal]
    assert torch.cat(heard, dim=-1).shape == (1, 1, 207)
    torch.testing.assert_close(torch.cat(heard, dim=-1), dac.decode(tokens), atol=1e-4, rtol=0)


def test_fewer_codebooks_are_the_first_ones(dac: Dac) -> None:
    items = [sound(95)]
    tokens = dac.encode(items)
    for keep in (1, 2, 3):
        kept = dac.encode(items, keep=keep)
        assert kept.identical(tokens.keep(keep))
        latents = sum(
            stage.decode(tokens.ids[..., place])
            for place, stage in enumerate(dac.quantizer.stages)
            if place < keep
        )
        torch.testing.assert_close(dac.dequantize(kept).values, latents)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(1, 4, 4, dtype=torch.int64), "codebook"),
        (torch.full((1, 4, 3), 16), "16"),
        (torch.full((1, 4, 3), -1), "-1"),
    ],
)
def test_ids_that_the_model_does_not_have(dac: Dac, values: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dac.stamp(values)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder_strides": (2, 4)}, r"strides \(2, 4\) and \(5, 2\): expected the same product"),
        ({"decoder_strides": ()}, "number of decoder_strides=0: expected 1 ... 8"),
        ({"encoder_strides": (0, 5)}, "encoder_strides=0: expected 1 ... 64"),
        ({"decoder_channels": 2}, "decoder_channels=2: expected 4 ... 16384"),
    ],
)
def test_configurations_that_make_no_model(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SmallDacConfig(), **wrong)
    with pytest.raises(ValueError, match="2 channels: expected mono"):
        preprocess = replace(SmallDacConfig().preprocess, channels=2)
        SmallDacConfig(preprocess=preprocess)


TINY = {
    "even": {"downsampling_ratios": [2, 4], "n_codebooks": 3, "codebook_size": 32, "codebook_dim": 4},
    "odd": {"downsampling_ratios": [3, 2, 5], "n_codebooks": 5, "codebook_size": 16, "codebook_dim": 8},
}


@pytest.fixture(params=TINY)
def theirs(request: pytest.FixtureRequest) -> DacModel:
    config = TransformersConfig(
        encoder_hidden_size=4, decoder_hidden_size=16, sampling_rate=16_000, **TINY[request.param]
    )
    model = enliven(DacModel(config))
    assert isinstance(model, DacModel)
    return model


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_model_of_transformers_gives_the_same(
    theirs: DacModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Saved by transformers, loaded strictly through the converter, as a folder of the Hub would be."""
    theirs.save_pretrained(tmp_path)
    ours, theirs = tokenzoo.load(tmp_path).to(dtype), theirs.to(dtype)
    assert isinstance(ours, Dac)
    # These networks magnify rounding, a saturated tanh above all.
    near = {"atol": 1e-10, "rtol": 0} if dtype == torch.float64 else {"atol": 2e-3, "rtol": 1e-4}
    for samples in (1, 299, 300, 601):
        wave = sound(samples)[None].to(dtype)
        padded = ours.pad_signal(wave)
        expected = theirs.encode(padded)
        tokens = ours.encode(wave)
        assert torch.equal(tokens.ids.transpose(1, 2), expected.audio_codes)
        fewer = theirs.encode(padded, n_quantizers=2).audio_codes
        assert torch.equal(ours.encode(wave, keep=2).ids.transpose(1, 2), fewer)
        latents = ours.dequantize(tokens).values
        quantized = expected.quantized_representation
        torch.testing.assert_close(latents.transpose(1, 2), quantized, **near)
        heard = theirs.decode(quantized_representation=quantized).audio_values
        torch.testing.assert_close(ours.sound_of(latents)[:, 0], heard, **near)


def test_a_tensor_missing_in_that_layout_is_named(theirs: DacModel, tmp_path: Path) -> None:
    tensors = dict(theirs.state_dict())
    ours = Dac(DacConfig.from_dict(convert_dac.convert_config(theirs.config.to_dict())))
    names = convert_dac.convert_names(tensors)
    assert set(names.values()) == set(ours.state_dict()) and len(set(names.values())) == len(names)
    removed = tensors.pop("decoder.block.1.res_unit2.conv1.weight")
    theirs.save_pretrained(tmp_path, state_dict=tensors)
    with pytest.raises(
        CheckpointError, match=r"missing \(1\): decoder\.model\.2\.block\.3\.block\.1\.weight"
    ):
        tokenzoo.load(tmp_path)
    assert removed.ndim == 3


def test_snac_is_not_taken_for_dac() -> None:
    ours = Snac(SnacConfig(encoder_channels=4, decoder_channels=16, num_codes=8))
    from tokenzoo.checkpoints import convert_snac

    official = [convert_snac.official_name(name) for name in ours.state_dict()]
    assert convert_snac.recognise(None, official) and not convert_dac.recognise(None, official)
