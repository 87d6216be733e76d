"""The harmonic codec: exact lengths, prefixes, pieces, its excitation, and a training step that learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.audio.harmonic import HarmonicCodec, HarmonicConfig
from tokenzoo.audio.harmonic_parts import hiss, overlap_add, pulses, spectra

from .test_pitch import voice
from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")
HOP = 160


def babble(samples: int, seed: int = 0) -> Tensor:
    """(1, S): syllables of changing pitch, with noise between them."""
    chance = Generator().manual_seed(seed)
    parts, have = [], 0
    while have < samples:
        hz, length = (
            90 + 200 * float(torch.rand((), generator=chance)),
            0.05 + 0.2 * float(torch.rand((), generator=chance)),
        )
        parts += [voice(hz, length), 0.05 * torch.randn(800, generator=chance)]
        have += len(parts[-2]) + 800
    return torch.cat(parts)[None, :samples]


@pytest.fixture(scope="module")
def codec() -> HarmonicCodec:
    """Fitted, and with a pitch of its own."""
    toy = build_toy("harmonic")
    assert isinstance(toy, HarmonicCodec)
    toy.initialise(torch.stack([babble(8000, seed) for seed in range(8)]))
    torch.nn.init.normal_(toy.decoder.pitch.weight, std=0.1, generator=Generator().manual_seed(0))
    return toy.eval()


@pytest.mark.parametrize("samples", [1, 2, HOP - 1, HOP, HOP + 1, 3 * HOP, 1601])
def test_a_round_trip_gives_back_as_many_samples(codec: HarmonicCodec, samples: int) -> None:
    tokens = codec.encode([babble(samples)])
    assert tokens.ids.shape == (1, -(-samples // HOP), 3)
    assert codec.decode(tokens).shape == (1, 1, samples)


def test_a_batch_of_lengths_is_its_singles(codec: HarmonicCodec) -> None:
    items = [babble(samples, samples) for samples in (8000, 8001, 160, 8000, 1)]
    tokens = codec.encode(items)
    decoded = tokens.crop(codec.decode(tokens))
    for item, single, heard in zip(items, tokens.unbind(), decoded, strict=True):
        alone = codec.encode([item])
        assert alone.identical(single)
        torch.testing.assert_close(heard, codec.decode(alone)[0], atol=1e-5, rtol=0)


def test_a_prefix_of_the_codebooks_decodes_and_comes_nearer(codec: HarmonicCodec) -> None:
    item = babble(8000, 20)[None]
    latents = codec.encode_latents(item).values.detach()
    tokens = codec.encode(item)
    errors = []
    for count in (1, 2, 3):
        kept = tokens.keep(count)
        assert kept.identical(codec.encode(item, keep=count))
        assert codec.decode(kept).shape == item.shape
        errors.append(float((codec.dequantize(kept).values - latents).square().mean()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.7 * errors[0]


def test_pieces_encode_as_the_whole_and_decode_the_same_from_each_onset(codec: HarmonicCodec) -> None:
    item = babble(HOP * 600, 3)
    whole = codec.encode([item])
    assert codec.encode([item], chunk_seconds=1.3).identical(whole)
    full, parts = codec.decode(whole), codec.decode(whole, chunk_seconds=1.3)
    assert parts.shape == full.shape
    # The hiss is another; the levels are the same.
    levels = [spectra(each[:, 0], 512, 160, 600).abs().add(1e-3).log() for each in (full, parts)]
    assert float((levels[0] - levels[1]).abs().mean()) < 0.5


def test_overlapping_windows_give_the_sound_back() -> None:
    sound = torch.randn(2, 800, generator=Generator().manual_seed(0))
    frames = torch.fft.irfft(spectra(sound, 80, 20, 40), 80)
    torch.testing.assert_close(overlap_add(frames, 20)[:, 60:-60], sound[:, 60:-60])


def test_pulses_have_the_pitch_unit_power_and_start_with_the_voice() -> None:
    hz, voiced = torch.full((1, 200), 200.0), torch.ones(1, 200, dtype=torch.bool)
    train = pulses(hz, voiced, 16_000, 80)
    assert train.shape == (1, 16_000)
    assert float(train.square().mean()) == pytest.approx(1.0, rel=0.02)
    spectrum = torch.fft.rfft(train[0]).abs()
    # The nearest step is 200 Hz to a tenth of a percent; overtones go up to 7.8 kHz.
    strong = (spectrum > 0.5 * spectrum.max()).nonzero().flatten()
    assert set((strong / 200).round().int().tolist()) <= set(range(1, 40))
    late = voiced.clone()
    late[:, :50] = False
    assert torch.equal(pulses(hz, late, 16_000, 80)[:, 4000:], train[:, :12_000])


def test_the_hiss_is_the_same_everywhere() -> None:
    assert torch.equal(hiss(9), hiss(9)) and hiss(9).shape == (1009, 9)
    assert float(torch.view_as_real(hiss(81)).var()) == pytest.approx(1.0, rel=0.02)


def test_a_few_steps_learn_pitch_and_spectrum() -> None:
    codec = build_toy("harmonic").train()
    assert isinstance(codec, HarmonicCodec)
    sounds = torch.stack([babble(4800, seed) for seed in range(4)])
    codec.initialise(sounds)
    optimizer = torch.optim.Adam(codec.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        result = codec(sounds, lengths=torch.tensor([1, 2, 3, 3]))
        levels = [spectra(each[:, 0], 512, 128, 37).abs().add(1e-3).log() for each in (result.signal, sounds)]
        loss = (levels[0] - levels[1]).abs().mean() + result.quantized.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    still = [n for n, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_the_pitch_loss_is_that_of_the_teacher(codec: HarmonicCodec) -> None:
    sound = voice(200.0, 0.5)[None, None]
    latents = codec.encode_latents(sound).values
    guess = codec.decoder.guess_pitch(codec.decoder.features(latents.transpose(1, 2)))
    right = replace(
        guess,
        log2_hz=torch.full_like(guess.log2_hz, math.log2(200)),
        voicing=torch.full_like(guess.voicing, 9.0),
    )
    off = replace(right, log2_hz=right.log2_hz + 0.5)
    low, high = codec._pitch_loss(right, sound[:, 0]), codec._pitch_loss(off, sound[:, 0])
    assert float(low) < 0.2
    assert float(high - low) == pytest.approx(0.5 * codec.config.pitch_weight, rel=0.02)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hop_samples": 321}, "hop_samples=321, subframes=4: expected a hop that is a multiple"),
        ({"num_codes": 0}, r"num_codes=0: expected 1 \.\.\."),
        ({"pitch_weight": -1.0}, "pitch_weight=-1.0: expected 0"),
    ],
)
def test_wrong_configurations_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HarmonicConfig.from_dict(fields)


def test_two_kilobits_a_second() -> None:
    facts = HarmonicConfig().facts()
    assert facts.bits_per_token * (facts.token_rate_hz or 0) == 2000
    assert facts.nested == "codebooks"
