"""Discriminators of sound: shapes, what they look at, and that they tell real from made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.audio.discriminators import (
    AudioAdversarySettings,
    BandDiscriminator,
    PeriodDiscriminator,
    SpectrumDiscriminator,
    audio_adversary,
)


def noise(seed: int, samples: int = 210, channels: int = 1) -> Tensor:
    return 0.3 * torch.randn(2, channels, samples, generator=Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("kind", "size", "logits", "features"),
    [
        # 210 samples are 70 rows of three, then strides of 3: 24, 8, 3, 1.
        (PeriodDiscriminator, 3, (2, 1, 1, 3), 5),
        # 210 / 16 + 1 frames of 33 bins, three times halved.
        (SpectrumDiscriminator, 64, (2, 1, 14, 5), 5),
        # Bands of 3, 5, 8, 8 and 9 bins, each three times halved: 1, 1, 1, 1 and 2.
        (BandDiscriminator, 64, (2, 1, 14, 6), 25),
    ],
)
def test_shapes(kind: Any, size: int, logits: tuple[int, ...], features: int, channels: int) -> None:
    (found,) = kind(size, channels, 4)(noise(0, channels=channels))
    assert found.logits.shape == logits and len(found.features) == features
    assert all(feature.shape[:2] == (2, found.features[0].shape[1]) for feature in found.features[:1])


def test_default_widths_are_the_papers() -> None:
    """8.2, 0.09 and 0.5 million weights, beside the gains of weight norm."""
    kinds = ((PeriodDiscriminator, 2), (SpectrumDiscriminator, 1024), (BandDiscriminator, 1024))
    counts = [sum(each.numel() for each in kind(size).parameters() if each.ndim > 1) for kind, size in kinds]
    period = 32 * 5 + 32 * 128 * 5 + 128 * 512 * 5 + 512 * 1024 * 5 + 1024 * 1024 * 5 + 1024 * 3
    spectrum = 2 * 32 * 27 + 3 * 32 * 32 * 27 + 32 * 32 * 9 + 32 * 9
    bands = 5 * (2 * 32 * 27 + 3 * 32 * 32 * 27 + 32 * 32 * 9) + 32 * 9
    for count, expected in zip(counts, (period, spectrum, bands), strict=True):
        assert expected <= count <= 1.01 * expected


def test_a_period_sees_each_phase_by_itself() -> None:
    sound, judge = noise(0), PeriodDiscriminator(3, width=4)
    other = sound.clone()
    other[..., 1::3] = 0
    (first,), (second,) = judge(sound), judge(other)
    assert torch.equal(first.logits[..., 0], second.logits[..., 0])
    assert torch.equal(first.logits[..., 2], second.logits[..., 2])
    assert not torch.equal(first.logits[..., 1], second.logits[..., 1])


def test_bands_do_not_look_at_each_other_before_the_end() -> None:
    judge, sound = BandDiscriminator(64, width=4), noise(0)
    time = torch.arange(210)
    (first,), (second,) = judge(sound), judge(sound + 0.2 * torch.sin(2 * torch.pi * time * 30 / 64))
    low = [
        torch.allclose(a, b, atol=2e-2) for a, b in zip(first.features[:5], second.features[:5], strict=True)
    ]
    apart = [(a - b).abs().max() for a, b in zip(first.features[20:], second.features[20:], strict=True)]
    assert all(low) and float(torch.stack(apart).max().detach()) > 0.1


def test_a_few_steps_tell_noise_from_tones() -> None:
    torch.manual_seed(0)
    settings = AudioAdversarySettings(
        discriminators=("periods", "stft", "bands"),
        periods=(2, 3),
        stft_windows=(64,),
        band_windows=(64,),
        width=2,
        learning_rate=3e-3,
    )
    adversary = audio_adversary(settings, channels=1)
    assert len(adversary.discriminators) == 4
    tones = torch.sin(torch.arange(210) * torch.tensor([0.3, 0.7])[:, None])[:, None]
    figures = [adversary.learn(tones, noise(step)) for step in range(30)]
    assert float(figures[-1]["discriminator"]) < 0.6 * float(figures[0]["discriminator"])
    losses = adversary.losses(tones, noise(99))
    assert set(losses) == {"adversarial", "features"} and adversary.weights == {
        "adversarial": 1.0,
        "features": 2.0,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminators": ()}, "expected one or more of periods, stft, bands"),
        ({"width": 0}, "width=0"),
        ({"periods": (0,)}, r"periods \[0\]"),
        ({"stft_windows": (30,)}, r"stft_windows \[30\]: expected multiples of 4"),
        ({"loss": "nonsense"}, "loss 'nonsense'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioAdversarySettings(**settings)


def test_a_sound_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="sound of 32 samples for a discriminator with a window of 64"):
        SpectrumDiscriminator(64)(torch.zeros(1, 1, 32))
