"""Measures of speech against their reference packages, on recorded speech."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pystoi
import pytest
import soundfile
import torch
from torch import Tensor

from tokenzoo.audio.audio_files import AudioFiles
from tokenzoo.audio.speech_metrics import dnsmos, mel_distance, pesq_wb
from tokenzoo.audio.stoi import stoi

RATE_HZ = 16_000
PESQ_IS_THERE = importlib.util.find_spec("pesq") is not None
wants_pesq = pytest.mark.skipif(
    not PESQ_IS_THERE, reason='NOT TESTED: pesq has no wheels; pip install "tokenzoo[pesq]" compiles it'
)
pytestmark = pytest.mark.usefixtures("one_thread")


def speech(index: int = 0) -> Tensor:
    """(1, 1, S): an utterance of LibriVox."""
    waveform, rate_hz = soundfile.read(AudioFiles().samples()[index], dtype="float32")
    assert rate_hz == RATE_HZ
    return torch.from_numpy(waveform)[None, None]


def noisy(sound: Tensor, level: float) -> Tensor:
    return sound + level * torch.randn(sound.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("level", [0.003, 0.03, 0.3])
def test_stoi_is_that_of_pystoi(level: float) -> None:
    for index in (0, 1):
        sound = speech(index)[..., : 40_000 + index]
        heard = noisy(sound, level)
        expected = pystoi.stoi(sound[0, 0].double().numpy(), heard[0, 0].double().numpy(), RATE_HZ)
        assert float(stoi(heard, sound)[0]) == pytest.approx(expected, abs=1e-9)


def test_stoi_of_a_batch_and_its_ends() -> None:
    sound = speech(1)
    batch = torch.cat([sound, noisy(sound, 0.1)])
    scores = stoi(batch, sound.expand(2, -1, -1))
    assert float(scores[0]) == pytest.approx(1, abs=1e-9)
    assert float(scores[1]) == pytest.approx(0.4, abs=0.3) and scores.dtype == torch.float64
    assert stoi(sound[..., :4000], sound[..., :4000]).isnan().all()  # a quarter of a second
    assert stoi(sound[..., :100], sound[..., :100]).isnan().all()
    with pytest.raises(ValueError, match=r"\(1, 2, 9\).*mix channels down"):
        stoi(torch.zeros(1, 2, 9), torch.zeros(1, 2, 9))


@wants_pesq
def test_pesq_is_that_of_the_package() -> None:
    import pesq

    sound = torch.cat([speech()[..., :40_000], speech(1)[..., :40_000]])
    heard = noisy(sound, 0.01)
    expected = [
        pesq.pesq(RATE_HZ, ref[0].numpy(), deg[0].numpy(), "wb")
        for ref, deg in zip(sound, heard, strict=True)
    ]
    assert pesq_wb(heard, sound).tolist() == pytest.approx(expected)
    assert pesq_wb(sound, sound).tolist() == pytest.approx([4.6439] * 2, abs=1e-3)


@wants_pesq
def test_pesq_has_nothing_to_say_of_silence() -> None:
    sound = speech()[..., :16_000]
    assert pesq_wb(torch.zeros_like(sound), sound).isnan().all()
    assert pesq_wb(sound[..., :1000], sound[..., :1000]).isnan().all()
    with pytest.raises(ValueError, match="mono at 16 kHz"):
        pesq_wb(torch.zeros(1, 2, 9), torch.zeros(1, 2, 9))


@pytest.fixture
def speechmos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The reference, without the libraries that only its second net (P.808) and its file reader want."""
    librosa = ModuleType("librosa")
    librosa.feature = ModuleType("librosa.feature")  # pyright: ignore
    librosa.feature.melspectrogram = lambda **_: np.zeros((120, 900), np.float32)  # pyright: ignore
    librosa.power_to_db = lambda mel, ref: mel  # pyright: ignore
    requests = ModuleType("requests")
    requests.session = None  # pyright: ignore
    for name, module in (("librosa", librosa), ("requests", requests)):
        monkeypatch.setitem(sys.modules, name, module)
    import speechmos.dnsmos

    monkeypatch.delitem(sys.modules, "speechmos.dnsmos")
    return speechmos.dnsmos


@pytest.mark.parametrize("seconds", [2.9, 11])
def test_dnsmos_is_that_of_speechmos(speechmos: ModuleType, seconds: float) -> None:
    """Once shorter than its window, once long enough for two."""
    sound = speech().repeat(1, 1, 4)[..., : int(seconds * RATE_HZ)]
    heard = torch.cat([sound, noisy(sound, 0.01).clamp(-1, 1)])
    found = dnsmos(heard)
    for index in range(2):
        expected = speechmos.run(heard[index, 0].numpy(), RATE_HZ)
        assert float(found.overall[index]) == pytest.approx(expected["ovrl_mos"], abs=1e-4)
        assert float(found.speech[index]) == pytest.approx(expected["sig_mos"], abs=1e-4)
        assert float(found.background[index]) == pytest.approx(expected["bak_mos"], abs=1e-4)
    assert found.overall[0] > found.overall[1] + 0.5
    with pytest.raises(ValueError, match=r"\(1, 0\): expected \(B, 1, S\)"):
        dnsmos(torch.zeros(1, 0))


def test_the_mel_distance_of_equals_and_of_silence() -> None:
    sound = speech()
    assert float(mel_distance(sound, sound)[0]) == 0
    assert mel_distance(0 * sound, sound)[0] > mel_distance(noisy(sound, 0.001), sound)[0] > 0


def test_the_mel_distance_is_that_of_torchaudio_filters() -> None:
    import torchaudio

    sound, heard = speech().double(), noisy(speech().double(), 0.01)
    expected = 0.0
    for window, bands in ((2048, 150), (512, 80)):
        mel = torchaudio.transforms.MelSpectrogram(
            RATE_HZ, window, hop_length=window // 4, n_mels=bands, power=1, norm="slaney", mel_scale="slaney"
        ).double()
        x, y = mel(heard), mel(sound)
        logs = [each.square().clamp(min=1e-5).log10() for each in (x, y)]
        expected += float((logs[0] - logs[1]).abs().mean() + (x - y).abs().mean())
    assert float(mel_distance(heard, sound)[0]) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="sounds of 1024 samples"):
        mel_distance(torch.zeros(1, 1, 1024), torch.zeros(1, 1, 1024))
