"""Pitch of sounds whose pitch is known."""

import math

import pytest
import torch
from torch import Tensor

from tokenzoo.audio.pitch import track_pitch

pytestmark = pytest.mark.usefixtures("one_thread")


def voice(hz: float, seconds: float = 0.5, rate_hz: int = 16_000) -> Tensor:
    """(S,) ten overtones, the second stronger than the first."""
    time = torch.arange(int(seconds * rate_hz)) / rate_hz
    levels = [0.1, 0.2, *(0.3 / k for k in range(3, 11))]
    return torch.stack([a * torch.cos(2 * math.pi * hz * k * time + k) for k, a in enumerate(levels, 1)]).sum(
        0
    )


@pytest.mark.parametrize("hz", [80.0, 117.3, 210.0, 333.3, 400.0])
@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_known_pitch_is_found(hz: float, rate_hz: int) -> None:
    pitch = track_pitch(voice(hz, rate_hz=rate_hz)[None], rate_hz, rate_hz // 100)
    assert pitch.hz.shape == pitch.voiced.shape == (1, 50)
    middle = slice(5, -5)
    assert bool(pitch.voiced[:, middle].all())
    torch.testing.assert_close(pitch.hz[:, middle], torch.full((1, 40), hz), rtol=0.01, atol=0)


def test_noise_and_silence_have_none() -> None:
    noise = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    for sound in (noise, torch.zeros(1, 16_000), 1e-4 * voice(200.0)[None]):
        pitch = track_pitch(sound, 16_000, 160)
        assert float(pitch.voiced.float().mean()) < 0.05
        assert not pitch.hz[~pitch.voiced].any()


def test_short_sounds_and_batches() -> None:
    assert track_pitch(torch.zeros(2, 159), 16_000, 160).hz.shape == (2, 0)
    both = torch.stack([voice(100.0), voice(300.0)])
    pitch = track_pitch(both, 16_000, 80)
    for index in range(2):
        assert torch.equal(track_pitch(both[index : index + 1], 16_000, 80).hz[0], pitch.hz[index])
