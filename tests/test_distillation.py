"""Semantic distillation: teachers of every kind, matched rates, the two distances, and training by them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import pytorch as lightning
from torch import Generator, Tensor
from torch.nn import functional as F

from tokenzoo.audio.distillation import at_rate_of, first_codes, semantic_distance
from tokenzoo.audio.speech_teacher import Conformer, HiddenStates, Recognizer, read_teacher
from tokenzoo.audio.training import AudioTraining
from tokenzoo.zoo.objective import Step

from .tiny_speech import tiny_speech, write_speech
from .toys import build_toy
from .training_audio import OneBatch, differing, new_module, new_trainer, tones, weights_of
from .whispers import save_transformers, tiny_whisper

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]
WIDTH = 16


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


@pytest.fixture
def hubert(tmp_path: Path) -> Path:
    """Three layers of width 16, a vector every 4 samples."""
    return write_speech(tiny_speech("hubert", large=False), tmp_path / "hubert")


@pytest.mark.parametrize(("kind", "large"), [("hubert", False), ("wavlm", True)])
def test_hidden_states_are_those_of_transformers(tmp_path: Path, kind: str, large: bool) -> None:
    model = tiny_speech(kind, large=large)
    folder = str(write_speech(model, tmp_path / "teacher"))
    sound = noise(0, 2, 81)
    # A window is 6 samples and a hop 4: one sample of silence on each side, and 3 to fill the last hop.
    padded = F.pad(F.layer_norm(sound, (81,)) if large else sound, (1, 4))
    with torch.no_grad():
        states = model(padded, output_hidden_states=True).hidden_states
        for layer, expected in ((2, states[2]), (None, torch.stack(states).mean(0))):
            if layer is None and large:
                continue  # the last of transformers' states is normalised once more there
            teacher = read_teacher(folder, layer)
            assert isinstance(teacher, HiddenStates) and teacher.width == WIDTH
            found = teacher(sound)
            assert found.shape == (2, 21, WIDTH)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_teacher_is_frozen(hubert: Path) -> None:
    teacher = read_teacher(str(hubert)).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_units_whisper_and_x_codec_teach_too(tmp_path: Path) -> None:
    units = build_toy("units")
    units.save_pretrained(tmp_path / "units")
    sound = noise(0, 2, 80)
    teacher = read_teacher(str(tmp_path / "units"))
    expected = read_teacher(str(tmp_path / "units")).encoder(F.pad(sound, (1, 1)))  # pyright: ignore
    assert isinstance(teacher, HiddenStates) and torch.equal(teacher(sound), expected)
    with pytest.raises(ValueError, match=r"teacher_layer=1: .* has its layer; leave it out"):
        read_teacher(str(tmp_path / "units"), 1)
    build_toy("xcodec2").save_pretrained(tmp_path / "xcodec2")
    teacher = read_teacher(str(tmp_path / "xcodec2"))
    assert isinstance(teacher, Conformer) and teacher(noise(0, 2, 900)).shape == (2, 3, teacher.width)
    teacher = read_teacher(str(save_transformers(tiny_whisper(), tmp_path / "whisper")), 2)
    assert isinstance(teacher, Recognizer) and teacher(noise(0, 2, 900)).shape == (2, 3, WIDTH)
    build_toy("dac").save_pretrained(tmp_path / "dac")
    with pytest.raises(ValueError, match="is a Dac: expected units, X-Codec 2, or the folder"):
        read_teacher(str(tmp_path / "dac"))


def test_rates_are_matched_by_means_or_between_neighbours() -> None:
    features = torch.arange(8.0).reshape(1, 8, 1)
    assert at_rate_of(features, 8) is features
    assert at_rate_of(features, 4).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
    # 3 of 8: the means of 0 ... 2, 2 ... 5 and 5 ... 7, whose spans overlap.
    assert at_rate_of(features, 3).flatten().tolist() == [1, 3.5, 6]
    assert at_rate_of(features[:, :2], 4).flatten().tolist() == [0, 0.25, 0.75, 1]


def test_the_distances_by_hand() -> None:
    made, wanted = noise(0, 2, 5, 3), noise(1, 2, 5, 3)
    total = 0.0
    for item in range(2):
        for feature in range(3):
            a, b = made[item, :, feature], wanted[item, :, feature]
            cosine = float(a @ b / (a.norm() * b.norm()))
            total -= math.log(1 / (1 + math.exp(-cosine)))
    assert float(semantic_distance(made, wanted)) == pytest.approx(total / 6)
    cosines = (made * wanted).sum(-1) / (made.norm(dim=-1) * wanted.norm(dim=-1))
    assert float(semantic_distance(made, wanted, "cosine")) == pytest.approx(float(1 - cosines.mean()))
    assert float(semantic_distance(made, made, "cosine")) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="distance 'l2': expected d_axis or cosine"):
        semantic_distance(made, wanted, "l2")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "toy", ["encodec", "dac", "snac", "speechtokenizer", "mimi", "wavtokenizer", "xcodec2"]
)
def test_the_first_codes_are_what_the_first_ids_decode_to(toy: str) -> None:
    tokenizer = build_toy(toy)
    sound = torch.from_numpy(tones(2, 960)).float() / 32768
    latents = tokenizer.encode_latents(sound).values.detach().requires_grad_()
    quantized = tokenizer.quantizer(latents)
    first = first_codes(Step(sound, sound, quantized, tokenizer))
    counts = tokenizer.facts.keeps or range(1, len(tokenizer.facts.codebook_sizes) + 1)
    values = quantized.values[..., : counts[0]] if quantized.values.ndim == 3 else quantized.values
    torch.testing.assert_close(first, tokenizer.quantizer.decode(values), atol=1e-5, rtol=1e-4)
    first.square().sum().backward()
    assert latents.grad is not None and bool(latents.grad.any())


def teaching(toy: str, teacher: Path, **losses: Any) -> AudioTraining:
    told = {"semantic": 10.0, "teacher": str(teacher), "teacher_width": WIDTH, "waveform": 0.0, "mel": 0.0}
    config = {"semantic_dim": WIDTH} if toy == "speechtokenizer" else None
    return new_module(toy, config=config, losses=told | losses, lengths={"full": 1.0})


class SemanticLoss(lightning.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append(float(trainer.callback_metrics["train/semantic"]))


@pytest.mark.parametrize(
    ("toy", "distance"), [("speechtokenizer", "d_axis"), ("mimi", "cosine"), ("encodec", "d_axis")]
)
def test_training_draws_the_first_codebook_to_the_teacher(toy: str, distance: str, hubert: Path) -> None:
    module, seen = teaching(toy, hubert, semantic_distance=distance), SemanticLoss()
    batch = torch.from_numpy(tones(2, 320))
    before = weights_of(module.tokenizer)
    new_trainer(40, callbacks=[seen], log_every_n_steps=1).fit(module, datamodule=OneBatch(batch, 40))
    assert min(seen.seen[-3:]) < 0.97 * seen.seen[0]
    moved = differing(before, weights_of(module.tokenizer))
    assert any(name.startswith("encoder.") for name in moved)
    assert not any(name.startswith("decoder.") for name in moved), "nothing but the term teaches here"
    has_own = toy == "speechtokenizer"
    assert has_own == any(name.startswith("transform.") for name in moved)
    assert not any("teacher" in name for name in module.state_dict())
    assert has_own == ("objectives.0.map.weight" not in module.state_dict())


def test_what_nothing_teaches_does_not_learn() -> None:
    """DDP would wait for the gradient of SpeechTokenizer's map."""
    frozen = {
        name
        for name, each in new_module("speechtokenizer").tokenizer.named_parameters()
        if not each.requires_grad
    }
    assert frozen == {"transform.weight", "transform.bias"}


def test_widths_must_agree(hubert: Path) -> None:
    batch = OneBatch(torch.from_numpy(tones(2, 320)), 1)
    module = teaching("encodec", hubert, teacher_width=8)
    with pytest.raises(ValueError, match=r"teacher_width=8: .*hubert has features of width 16"):
        new_trainer(1).fit(module, datamodule=batch)
