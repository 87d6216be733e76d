"""The terms of audio training, by hand and against librosa's filters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.audio.log_mel import mel_filters
from tokenzoo.audio.losses import (
    AudioLossWeights,
    DistortionRatio,
    MelError,
    SpectralError,
    WaveformError,
    audio_objectives,
    magnitudes,
    mel_distance,
    mel_magnitudes,
)
from tokenzoo.audio.metrics import si_sdr
from tokenzoo.zoo.objective import Step
from tokenzoo.zoo.quantizer import Quantized

from .toys import build_toy

RATE_HZ = 16_000


def noise(seed: int, samples: int = 400, channels: int = 1) -> Tensor:
    return 0.3 * torch.randn(2, channels, samples, generator=Generator().manual_seed(seed))


def step_of(rebuilt: Tensor, signal: Tensor) -> Step:
    quantized = Quantized(torch.zeros(1), torch.zeros(1), torch.tensor(2.5), None)
    return Step(signal, rebuilt, quantized, build_toy("dac"))


def test_the_error_of_samples_by_hand() -> None:
    signal = torch.zeros(2, 1, 4)
    assert float(WaveformError(1.0)(step_of(signal + 0.25, signal))) == 0.25


def test_magnitudes_are_those_of_torch() -> None:
    sound = noise(0, channels=2)
    found = magnitudes(sound, 64)
    for row, each in zip(sound.flatten(0, 1), found, strict=True):
        window = torch.hann_window(64)
        expected = torch.stft(row, 64, 16, window=window, center=True, return_complex=True).abs()
        torch.testing.assert_close(each, expected.clamp(min=1e-6))


@pytest.mark.parametrize("distance", ["l1", "l1_l2"])
def test_the_mel_distance_by_hand(distance: str) -> None:
    made, wanted = noise(0), noise(1)
    scales = ((32, 4), (64, 8))
    terms = []
    for window, bands in scales:
        filters = mel_filters(RATE_HZ, window, bands)
        a, b = filters @ magnitudes(made, window), filters @ magnitudes(wanted, window)
        torch.testing.assert_close(a, mel_magnitudes(made, window, bands, RATE_HZ))
        logs = a.clamp(min=1e-5).log10() - b.clamp(min=1e-5).log10()
        natural = logs * math.log(10)
        terms.append(
            logs.abs().mean() if distance == "l1" else (a - b).abs().mean() + natural.square().mean()
        )
    found = mel_distance(made, wanted, scales, RATE_HZ, distance)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found, torch.stack(terms).mean())
    assert float(mel_distance(made, made, scales, RATE_HZ)) == 0


def test_the_spectral_error_by_hand() -> None:
    made, wanted = noise(0), noise(1)
    a, b = magnitudes(made, 64), magnitudes(wanted, 64)
    converged = ((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).mean()
    for floor in (1e-5, 0.5):
        expected = converged + (a.clamp(min=floor).log() - b.clamp(min=floor).log()).abs().mean()
        torch.testing.assert_close(SpectralError(1.0, [64], floor)(step_of(made, wanted)), expected)


def test_the_ratio_of_distortion_is_the_metric() -> None:
    made, wanted = noise(0), noise(1)
    torch.testing.assert_close(DistortionRatio(1.0)(step_of(made, wanted)), -si_sdr(made, wanted).mean())


@pytest.mark.parametrize("term", ["waveform", "mel", "stft", "si_sdr"])
def test_gradients_are_finite_even_in_silence(term: str) -> None:
    weights = {"waveform": 0.0, "mel": 0.0} | {term: 1.0}
    settings = AudioLossWeights(**weights, mel_windows=(32, 64), mel_bands=(4, 8), stft_windows=(64,))  # pyright: ignore
    objective, _ = audio_objectives(settings, build_toy("dac"))
    assert objective.name == term
    for made, wanted in ((noise(0), noise(1)), (torch.zeros(2, 1, 400), torch.zeros(2, 1, 400))):
        made = made.clone().requires_grad_()
        objective(step_of(made, wanted)).backward()
        assert made.grad is not None and bool(made.grad.isfinite().all())


def test_terms_without_weight_are_left_out_but_the_quantizer_s() -> None:
    objectives = audio_objectives(AudioLossWeights(waveform=0, quantizer=0), build_toy("dac"))
    assert [(each.name, each.weight) for each in objectives] == [("mel", 15.0), ("quantizer", 0)]
    sound = noise(0)
    assert float(objectives[-1](step_of(sound, sound))) == 2.5
    assert isinstance(objectives[0], MelError) and objectives[0].sample_rate_hz == RATE_HZ


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="mel_distance 'l3'"):
        AudioLossWeights(mel_distance="l3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="1 mel_windows and 7 mel_bands"):
        AudioLossWeights(mel_windows=(32,))
    with pytest.raises(ValueError, match=r"stft_windows \(30,\): expected multiples of 4"):
        AudioLossWeights(stft_windows=(30,))
    with pytest.raises(ValueError, match="sound of 16 samples under a window of 32"):
        magnitudes(torch.zeros(1, 1, 16), 32)
    with pytest.raises(ValueError, match="semantic needs teacher"):
        audio_objectives(AudioLossWeights(semantic=1.0), build_toy("dac"))
