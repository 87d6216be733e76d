"""Sounds of every kind become what a model takes, or an error that says what to do."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from torch import Generator, Tensor

from tokenzoo.audio.preprocess import AudioPreprocess, AudioReadError, read_sound, resample

SAMPLE = Path(__file__).parent.parent / "audio" / "samples" / "dashwood_young_man.flac"


def tone(rate_hz: int, seconds: float = 0.2, pitch_hz: float = 440.0) -> Tensor:
    return torch.sin(2 * torch.pi * pitch_hz * torch.arange(round(rate_hz * seconds)) / rate_hz)[None] * 0.5


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_files_of_every_kind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(24_000, 0.5).T.numpy(), 24_000)
    waveform = AudioPreprocess(sample_rate_hz=24_000)(path)
    assert waveform.dtype == torch.float32 and waveform.shape[0] == 1
    if suffix != "mp3":  # whose frames are whole
        assert waveform.shape == (1, 12_000)
    lossless = suffix in ("wav", "flac")
    start = waveform[:, :12_000]
    torch.testing.assert_close(
        start[:, 3000:9000], tone(24_000, 0.5)[:, 3000:9000], atol=1e-4 if lossless else 0.1, rtol=0
    )


def test_recorded_speech_ships_with_the_package() -> None:
    waveform, rate_hz = read_sound(SAMPLE)
    assert rate_hz == 16_000 and waveform.shape == (1, 47_840)
    assert float(waveform.abs().max()) > 0.1
    passed = AudioPreprocess(sample_rate_hz=16_000)(SAMPLE)
    assert torch.equal(passed, waveform)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_resampling_is_torchaudios_and_keeps_the_pitch(rate_hz: int) -> None:
    waveform = AudioPreprocess(sample_rate_hz=24_000)((tone(rate_hz), rate_hz))
    assert abs(waveform.shape[1] - 4800) <= 1
    expected = torchaudio.functional.resample(tone(rate_hz), rate_hz, 24_000)
    assert torch.equal(waveform, expected)
    torch.testing.assert_close(waveform[:, 600:4200], tone(24_000)[:, 600:4200], atol=2e-3, rtol=0)


def test_channels() -> None:
    stereo = torch.rand(2, 50, generator=Generator().manual_seed(0))
    for mix, expected in (("mean", stereo.mean(0, keepdim=True)), ("first", stereo[:1])):
        assert torch.equal(AudioPreprocess(sample_rate_hz=100, mix=mix)((stereo, 100)), expected)
    both = AudioPreprocess(sample_rate_hz=100, channels=2)
    assert torch.equal(both((stereo, 100)), stereo)
    assert torch.equal(both((stereo[0], 100)), stereo[:1].expand(2, -1))
    with pytest.raises(ValueError, match="sound has 3 channels: expected 1 or 2; mix it down first"):
        both((torch.zeros(3, 50), 100))


def test_arrays_of_every_float() -> None:
    take = AudioPreprocess(sample_rate_hz=100)
    for dtype in (np.float32, np.float64, np.float16):
        waveform = take((np.linspace(-1, 1, 9, dtype=dtype)[::-1], 100))
        assert waveform.dtype == torch.float32 and waveform.shape == (1, 9)


@pytest.mark.parametrize(
    ("item", "kind", "message"),
    [
        (np.zeros(9, np.float32), TypeError, r"a ndarray: expected a path or \(waveform, rate_hz\)"),
        ((np.zeros(9, np.int16), 100), TypeError, "waveform is torch.int16: .* divide by 32768 first"),
        ((np.zeros(9, np.int32), 100), TypeError, r"divide by 2\*\*31 first"),
        ((np.zeros(9, np.uint8), 100), TypeError, "subtract 128 and divide by 128 first"),
        ((np.array([0.0, np.nan]), 100), ValueError, "waveform holds NaN or infinity"),
        ((np.zeros(0), 100), ValueError, "with at least one sample"),
        ((np.zeros((2, 3, 4)), 100), ValueError, r"shape \(2, 3, 4\): expected \(S,\) or \(C, S\)"),
        ((np.zeros((900, 2)), 100), ValueError, "expected channels first"),
        (([0.0, 1.0], 100), TypeError, "waveform is a list: expected an array or a tensor"),
        ((np.zeros(9), 0), ValueError, "rate_hz=0: expected a whole number of samples a second"),
        ((np.zeros(9), 44_100.5), ValueError, "rate_hz=44100.5"),
        ((np.zeros(9), "44100"), ValueError, "rate_hz='44100'"),
        ((np.zeros(9), True), ValueError, "rate_hz=True"),
        ((np.zeros(9), 700_001), ValueError, "700001 Hz to 100 Hz share no large divisor"),
    ],
)
def test_what_is_refused(item: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        AudioPreprocess(sample_rate_hz=100)(item)


def test_rates_without_a_common_divisor_are_refused_before_they_take_the_memory() -> None:
    with pytest.raises(
        ValueError, match=r"44101 Hz to 24000 Hz share .* filter taps: bring .* ffmpeg -ar 48000"
    ):
        resample(torch.zeros(1, 10), 44_101, 24_000)


def test_a_small_file_of_a_low_rate_is_no_memory_bomb() -> None:
    with pytest.raises(
        ValueError, match=r"250000 samples at 1 Hz would be more than .* at 24000 Hz; is the rate"
    ):
        resample(torch.zeros(1, 250_000), 1, 24_000)


def test_files_that_are_no_sound(tmp_path: Path) -> None:
    take = AudioPreprocess()
    (tmp_path / "text.wav").write_text("this is no sound, it only says so\n" * 20)
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "silent.wav", np.zeros(0, np.float32), 24_000)
    (tmp_path / "cut.flac").write_bytes(SAMPLE.read_bytes()[:40])
    for name in ("text.wav", "empty.wav", "cut.flac"):
        with pytest.raises(
            AudioReadError, match=f"{name} is no sound that libsndfile reads .* convert it to wav or flac"
        ):
            take(tmp_path / name)
    with pytest.raises(ValueError, match="with at least one sample"):
        take(tmp_path / "silent.wav")
    with pytest.raises(FileNotFoundError, match=r"missing\.wav: no such file"):
        take(tmp_path / "missing.wav")


def test_a_header_that_claims_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenzoo.audio.preprocess.MAX_SAMPLES", 1000)
    with pytest.raises(AudioReadError, match="claims 47840 x 1 samples: expected at most 1000"):
        read_sound(SAMPLE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 3}, "channels=3"),
        ({"sample_rate_hz": 0}, "sample_rate_hz=0"),
        ({"mix": "sum"}, "mix='sum'"),
    ],
)
def test_fields(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioPreprocess(**fields)
