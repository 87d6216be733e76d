"""The recognizer that listens in training: transformers' numbers, both layouts, gradients to the sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.audio.asr_encoder import AsrEncoder
from tokenzoo.checkpoints.ctranslate2 import read_ctranslate2
from tokenzoo.checkpoints.error import CheckpointError

from .whispers import ctranslate2_file, save_ctranslate2, save_transformers, tiny_whisper

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whisper() -> Any:
    return tiny_whisper()


@pytest.fixture(scope="module")
def folder(whisper: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_transformers(whisper, tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def encoder(folder: Path) -> AsrEncoder:
    return AsrEncoder.from_whisper(folder)


def sound(samples: int = 4000, seed: int = 0, *, loudness: float = 0.3) -> Tensor:
    return loudness * torch.randn(1, samples, generator=Generator().manual_seed(seed))


def test_features_are_those_of_transformers(whisper: Any, encoder: AsrEncoder) -> None:
    heard = torch.cat([sound(96_000), sound(96_000, 1, loudness=0.01)])  # as long as transformers asks for
    with torch.no_grad():
        wanted = whisper.encoder(encoder.log_mel(heard), output_hidden_states=True)
        found = encoder(heard, (1, 2, 3))
    assert [tuple(each.shape) for each in found] == [(2, 300, 16)] * 3
    for layer in (1, 2):
        torch.testing.assert_close(found[layer - 1], wanted.hidden_states[layer], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[2], wanted.last_hidden_state, rtol=1e-5, atol=1e-5)


def test_a_sound_is_heard_as_long_as_it_is(encoder: AsrEncoder) -> None:
    assert encoder.max_samples == 96_000 and encoder.layers == 3
    for samples, vectors in ((4000, 13), (4800, 15), (201, 1)):
        (found,) = encoder(sound(samples))
        assert found.shape == (1, vectors, 16)
    with pytest.raises(ValueError, match=r"301 vectors: this encoder knows 300 positions"):
        encoder(sound(96_320))
    with pytest.raises(ValueError, match=r"layers \(4,\): expected 1 ... 3"):
        encoder(sound(), (4,))


def test_it_is_frozen_and_the_sound_has_the_gradient(encoder: AsrEncoder) -> None:
    assert not encoder.training and not any(each.requires_grad for each in encoder.parameters())
    heard = sound().requires_grad_()
    (found,) = encoder(heard)
    found.square().sum().backward()
    assert heard.grad is not None and bool(heard.grad.isfinite().all())
    assert float(heard.grad.abs().mean()) > 1e-4


def test_the_gradient_is_the_slope(encoder: AsrEncoder) -> None:
    """Through the spectrum, the logarithm and the floor: float64, against central differences."""
    double = encoder.double()
    heard = sound(800).double().requires_grad_()
    direction = torch.randn(1, 800, dtype=torch.float64, generator=Generator().manual_seed(3))

    def loss(given: Tensor) -> Tensor:
        return double(given)[0].square().sum()

    (gradient,) = torch.autograd.grad(loss(heard), heard)
    step = 1e-6
    with torch.no_grad():
        slope = (loss(heard + step * direction) - loss(heard - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-6)


def test_silence_has_no_gradient_and_none_that_is_not_a_number(encoder: AsrEncoder) -> None:
    silence = torch.zeros(1, 4000, requires_grad=True)
    (found,) = encoder(silence)
    found.square().sum().backward()
    assert silence.grad is not None and silence.grad.abs().max() == 0

    # Silence after speech lies 80 dB under the loudest band: only what its windows share with it counts.
    heard = torch.cat([sound(3200), torch.zeros(1, 3200)], dim=1).requires_grad_()
    encoder(heard)[0].square().sum().backward()
    assert heard.grad is not None and bool(heard.grad.isfinite().all())
    assert heard.grad[:, :3200].abs().max() > 0 and heard.grad[:, 3200 + 400 :].abs().max() == 0


def test_both_layouts_give_one_encoder(whisper: Any, folder: Path, tmp_path: Path) -> None:
    (wanted,) = AsrEncoder.from_whisper(folder)(sound())
    other = AsrEncoder.from_whisper(save_ctranslate2(whisper, tmp_path / "ct2"))
    assert torch.equal(other(sound())[0], wanted)
    half = AsrEncoder.from_whisper(save_ctranslate2(whisper, tmp_path / "half", dtype=torch.float16))
    assert next(half.parameters()).dtype == torch.float32
    torch.testing.assert_close(half(sound())[0], wanted, rtol=0, atol=0.02)
    bare = AsrEncoder.from_whisper(save_transformers(whisper, tmp_path / "bare", prefix=""))
    assert torch.equal(bare(sound())[0], wanted)


def test_what_is_no_whisper_is_refused(folder: Path, whisper: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        AsrEncoder.from_whisper(tmp_path / "nowhere")
    config = (folder / "config.json").read_text()
    other = save_transformers(whisper, tmp_path / "other")
    (other / "config.json").write_text(config.replace('"whisper"', '"hubert"'))
    with pytest.raises(CheckpointError, match=r"a model of type 'hubert'; give a Whisper"):
        AsrEncoder.from_whisper(other)
    quantized = tmp_path / "quantized"
    save_ctranslate2(whisper, quantized, dtype=torch.int8)
    with pytest.raises(CheckpointError, match=r"quantized weights.*convert with --quantization float16"):
        AsrEncoder.from_whisper(quantized)


def test_a_ctranslate2_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    good = ctranslate2_file({"encoder/a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)})
    path.write_bytes(good)
    found = read_ctranslate2(path, prefix="encoder/")
    assert list(found) == ["encoder/a"] and found["encoder/a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert list(read_ctranslate2(path)) == ["encoder/a", "b"]
    for cut in range(1, len(good) - 70):
        path.write_bytes(good[:cut])
        with pytest.raises(CheckpointError, match=r"cut off|claims"):
            read_ctranslate2(path)
    path.write_bytes(ctranslate2_file({}, version=5))
    with pytest.raises(CheckpointError, match="not a CTranslate2 model of format 6"):
        read_ctranslate2(path)
    path.write_bytes(good.replace(b"\x02\x02\0\0\0", b"\x02\xff\xff\xff\xff", 1))
    with pytest.raises(CheckpointError, match=r"tensor encoder/a of type 0, shape .* claims 24 bytes"):
        read_ctranslate2(path)
