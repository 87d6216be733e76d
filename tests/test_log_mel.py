"""Whisper's log-mel spectrogram; the golden fixtures of the S3 tokenizers record the official one."""

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.audio import log_mel
from tokenzoo.audio.log_mel import LogMel, mel_filters


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.rand(samples, generator=Generator().manual_seed(seed)) - 0.5


@pytest.mark.parametrize(
    ("rate", "window", "mels"), [(16_000, 400, 80), (16_000, 400, 128), (24_000, 1024, 100)]
)
def test_filters_are_librosas(rate: int, window: int, mels: int) -> None:
    from torchaudio import functional

    theirs = functional.melscale_fbanks(
        window // 2 + 1, 0.0, rate / 2, mels, rate, norm="slaney", mel_scale="slaney"
    )
    torch.testing.assert_close(mel_filters(rate, window, mels), theirs.T, atol=2e-7, rtol=1e-4)


def test_a_tone_stands_in_its_band() -> None:
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)
    mel = LogMel()(tone)
    assert mel.shape == (128, 100)
    assert set(mel[:, 5:-5].argmax(dim=0).tolist()) == {int(mel_filters(16_000, 400, 128)[:, 25].argmax())}
    # 80 dB under the loudest is the floor, wherever the loudest lies.
    assert float(mel.max() - mel.min()) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("samples", [201, 319, 320, 321, 16_001])
def test_a_frame_every_hop_and_the_last_dropped(samples: int) -> None:
    assert LogMel()(sound(samples)).shape == (128, samples // 160) == (128, LogMel().frames(samples))


def test_each_item_is_scaled_by_its_own_loudest() -> None:
    loud, quiet = sound(4000), sound(4000, 1) * 1e-3
    together = LogMel()(torch.stack([loud, quiet])[:, None])
    assert together.shape == (2, 1, 128, 25)
    for index, alone in enumerate((loud, quiet)):
        torch.testing.assert_close(together[index, 0], LogMel()(alone), atol=1e-6, rtol=0)


def test_blocks_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LogMel()(sound(16_000))
    monkeypatch.setattr(log_mel, "BLOCK_FRAMES", 7)
    torch.testing.assert_close(LogMel()(sound(16_000)), whole, atol=1e-6, rtol=0)


def test_gradients_flow_also_after_inference() -> None:
    mel_filters.cache_clear()
    with torch.inference_mode():
        LogMel()(sound(1000))
    signal = sound(1000).requires_grad_()
    LogMel()(signal).sum().backward()
    assert signal.grad is not None and float(signal.grad.abs().sum()) > 0
    assert LogMel()(sound(1000).double()).dtype == torch.float64
    assert LogMel()(sound(1000).bfloat16()).dtype == torch.float32


def test_what_has_no_spectrogram_says_so() -> None:
    with pytest.raises(ValueError, match=r"sound of 200 samples: .* mirrors 200 at each end, so 201 or more"):
        LogMel()(sound(200))
    for wrong, message in (
        ({"window": 401}, "window=401: expected an even number"),
        ({"hop": 200}, r"hop=200: expected 1 \.\.\. 199"),
        ({"mels": 0}, "mels=0"),
    ):
        with pytest.raises(ValueError, match=message):
            LogMel(**wrong)
