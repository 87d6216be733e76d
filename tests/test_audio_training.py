"""Training of audio tokenizers: every family learns, with and without discriminators, and resumes exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import pytorch as lightning
from torch import Tensor, nn

import tokenzoo
from tokenzoo.audio.audio_tokenizer import AudioTokenizer
from tokenzoo.audio.metrics import si_sdr, spectral_distance
from tokenzoo.audio.snac import Snac
from tokenzoo.audio.training import AudioTraining
from tokenzoo.zoo.tokenizer import NoDecoder, Tokenizer

from .toys import build_toy
from .training_audio import (
    ADVERSARY,
    AUDIO,
    DECODING,
    LOSSES,
    SAMPLES,
    OneBatch,
    Saver,
    differing,
    new_data,
    new_module,
    new_trainer,
    tones,
    weights_of,
    write_array,
)

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """Seven sounds: three batches of two, and one left over."""
    return write_array(tmp_path)


def batch_for(module: AudioTraining, count: int = 2) -> Tensor:
    return torch.from_numpy(tones(count, channels=module.facts.channels or 1))


class Gradients(lightning.Callback):
    """Which parameters of the tokenizer never had a gradient, and of which it was always zero."""

    def __init__(self) -> None:
        self.reached: set[str] = set()
        self.moved: set[str] = set()

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        for name, parameter in pl_module.tokenizer.named_parameters():
            if parameter.grad is not None:
                self.reached.add(name)
                if parameter.grad.any():
                    self.moved.add(name)


@pytest.mark.parametrize("toy", DECODING)
def test_gradients_reach_what_should_learn_and_nothing_frozen(toy: str) -> None:
    """Three steps, for parts that start at zero hide those behind them."""
    seen, module = Gradients(), new_module(toy, lengths={"full": 1.0})
    new_trainer(3, callbacks=[seen]).fit(module, datamodule=OneBatch(batch_for(module), 3))
    learning = {name for name, each in module.tokenizer.named_parameters() if each.requires_grad}
    assert learning and seen.reached == seen.moved == learning


@pytest.mark.parametrize("toy", [name for name in AUDIO if name not in DECODING])
def test_what_only_encodes_is_not_finetuned(toy: str) -> None:
    with pytest.raises(NoDecoder, match=r"only encodes: there is no sound to train it on"):
        new_module(toy)


# The mel distance left after 200 steps on one batch, as a share of the first steps': 0.09 to 0.46 by family.
LEFT = 0.6
FAST = ("encodec", "dac")


@pytest.mark.parametrize(
    "toy", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in DECODING]
)
def test_within_two_hundred_steps_the_objective_falls(toy: str) -> None:
    # At the rate of the other tests some seeds of the windowed SNAC diverge.
    optimizer = {"learning_rate": 3e-3, "warmup_steps": 2, "decay_steps": 400}
    module = new_module(toy, lengths={"full": 1.0}, optimizer=optimizer)

    def is_low(seen: list[float]) -> bool:
        return len(seen) > 20 and np.mean(seen[-10:]) < LEFT * np.mean(seen[:3])

    assert is_low(losses_of(module, OneBatch(batch_for(module), 200), 200, "train/mel", until=is_low))


def losses_of(
    module: AudioTraining,
    data: Any,
    steps: int,
    name: str,
    *,
    until: Callable[[list[float]], bool] = lambda seen: False,
    **settings: Any,
) -> list[float]:
    """A figure after each step of a fit, in which a step is a batch; `until` says when to end early."""
    seen: list[float] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            seen.append(float(trainer.callback_metrics[name]))
            assert trainer.global_step == len(seen)
            trainer.should_stop = until(seen)

    trainer = new_trainer(steps, callbacks=[Watch()], log_every_n_steps=1, **settings)
    trainer.fit(module, datamodule=data)
    return seen


def test_the_module_is_a_tokenizer() -> None:
    module = new_module("dac")
    sound = torch.rand(2, 1, SAMPLES) - 0.5
    tokens = module.encode(sound)
    assert isinstance(module, Tokenizer) and tokens.identical(module.tokenizer.encode(sound))
    assert torch.equal(module.decode(module.stamp(tokens.ids)), module.tokenizer.decode(tokens))


def test_with_discriminators_a_step_is_still_a_batch(array: Path) -> None:
    """And the schedule, `max_steps` and the checkpoint count batches; before `start_step` nobody judges."""
    module = new_module("encodec", adversary=ADVERSARY | {"start_step": 3})
    names: list[set[str]] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            names.append(set(trainer.callback_metrics))
            assert trainer.global_step == len(names)
            assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == len(names)

    trainer = new_trainer(6, callbacks=[Watch()], log_every_n_steps=1)
    trainer.fit(module, datamodule=new_data(array))
    judged = {"train/adversarial", "train/features", "train/discriminator", "train/real", "train/fake"}
    assert len(names) == 6 and not names[2] & judged and names[3] >= judged
    assert module.adversary is not None
    assert all(not parameter.requires_grad for parameter in module.adversary.parameters())


@pytest.mark.parametrize(
    ("toy", "stop", "adversary"),
    [*((name, 4, None) for name in DECODING), ("encodec", 4, ADVERSARY), ("encodec", 6, ADVERSARY)],
)
def test_resume_equals_uninterrupted(
    toy: str, array: Path, tmp_path: Path, stop: int, adversary: dict[str, Any] | None
) -> None:
    """Step 4 lies inside the second epoch of three batches, step 6 at its end. Crops are random."""
    settings = {"adversary": adversary, "balance": adversary is not None, "ema_decay": 0.8}

    def module() -> AudioTraining:
        return new_module(toy, **settings)

    whole, resumed, file = module(), module(), tmp_path / "part.ckpt"
    saving = new_trainer(8, callbacks=[Saver(file, stop)], enable_checkpointing=True)
    saving.fit(whole, datamodule=new_data(array))
    torch.manual_seed(123)
    for parameter in resumed.parameters():
        nn.init.normal_(parameter)
    second = new_trainer(8)
    second.fit(resumed, datamodule=new_data(array), ckpt_path=file, weights_only=True)
    assert second.global_step == 8
    assert differing(weights_of(whole), weights_of(resumed)) == []


def test_a_resumed_fit_revives_codes_at_the_same_steps(array: Path, tmp_path: Path) -> None:
    """Every fifth step: in the middle of the fit that goes on."""

    def module() -> AudioTraining:
        found = new_module("encodec")
        for stage in found.tokenizer.quantizer.stages:
            stage.started.fill_(1)
            stage.counts[:8] = 1e-3
        return found

    whole, first, resumed = module(), new_trainer(4), module()
    new_trainer(9).fit(whole, datamodule=new_data(array))
    first.fit(module(), datamodule=new_data(array))
    first.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    new_trainer(9).fit(resumed, datamodule=new_data(array), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert differing(weights_of(whole), weights_of(resumed)) == []


def test_a_checkpoint_reloads_by_itself_and_what_is_saved_has_no_discriminator(
    array: Path, tmp_path: Path
) -> None:
    identity = {"name": "tiny", "licence": "MIT", "provenance": "a test"}
    new_module("dac", identity=identity).save_pretrained(tmp_path / "start")
    told: dict[str, Any] = {"losses": LOSSES, "adversary": ADVERSARY, "freeze": "encoder, quantizer"}
    module = AudioTraining(pretrained=str(tmp_path / "start"), **told)
    trainer = new_trainer(2)
    trainer.fit(module, datamodule=new_data(array))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    shutil.rmtree(tmp_path / "start")
    again = AudioTraining.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.hparams == module.hparams and again.hparams["freeze"] == ["encoder", "quantizer"]
    assert differing(weights_of(again), weights_of(module)) == []
    module.save_pretrained(tmp_path / "end")
    loaded: Any = tokenzoo.load(tmp_path / "end")
    assert (loaded.facts.name, loaded.facts.licence) == ("tiny-finetuned", "MIT") and loaded.facts.fingerprint
    assert differing(weights_of(loaded), weights_of(module.tokenizer)) == []
    assert not any("discriminator" in name for name in loaded.state_dict())


def test_frozen_parts_do_not_move(array: Path) -> None:
    """Nor do codebooks that learn by statistics, or their counts."""
    module = new_module("encodec", freeze="encoder,quantizer", adversary=ADVERSARY)
    before = weights_of(module.tokenizer)
    new_trainer(4).fit(module, datamodule=new_data(array))
    moved = differing(before, weights_of(module.tokenizer))
    assert moved and all(name.startswith("decoder.") for name in moved)


def test_codebooks_that_are_averages_are_not_averaged_again(array: Path) -> None:
    plain, averaged = new_module("encodec"), new_module("encodec", ema_decay=0.9)
    for module in (plain, averaged):
        new_trainer(5).fit(module, datamodule=new_data(array))
    first, second = weights_of(plain.tokenizer), weights_of(averaged.tokenizer)
    parameters = {name for name, _ in plain.tokenizer.named_parameters()}
    apart = differing(first, second)
    assert apart and set(apart) <= parameters
    assert {name for name in first if "codebook" in name} and not {n for n in apart if "codebook" in n}


def test_kept_codebooks_are_drawn_for_each_item(array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    forward = Snac.forward

    def spy(self: Snac, signal: Tensor, *, lengths: Tensor, **others: Any) -> Any:
        drawn.append(lengths)
        return forward(self, signal, lengths=lengths, **others)

    monkeypatch.setattr(Snac, "forward", spy)
    new_trainer(12).fit(new_module("snac", lengths={}), datamodule=new_data(array))
    assert {int(n) for lengths in drawn for n in lengths} == {1, 3, 7}
    assert any(lengths[0] != lengths[1] for lengths in drawn)


def test_finetune_starts_from_the_weights() -> None:
    tokenizer = build_toy("dac").to(torch.bfloat16)
    assert isinstance(tokenizer, AudioTokenizer)
    # The toy's own class is not in the catalogue; its family is.
    module = tokenizer.finetune(losses=LOSSES, identity={"name": "mine"}, optimizer={"learning_rate": 1e-5})
    assert isinstance(module, AudioTraining) and module.facts.name == "mine" and not module.is_new
    assert module.optimizer_settings.learning_rate == 1e-5
    start = {name: tensor.float() for name, tensor in weights_of(tokenizer).items()}
    assert differing(start, weights_of(module.tokenizer)) == []
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())


def test_validation_scores_fewer_codebooks_too(array: Path) -> None:
    module = new_module("encodec", ema_decay=0.8)
    trainer = new_trainer(4, val_check_interval=2, check_val_every_n_epoch=None, limit_val_batches=1.0)
    trainer.fit(module, datamodule=new_data(array, validation=str(array), crop_seconds=SAMPLES / 16_000))
    sound = torch.from_numpy(tones(7)).float() / 32768
    tokens = module.encode(sound)
    for name, count in (("val/spectrum", 3), ("val/spectrum_1", 1), ("val/spectrum_2", 2)):
        score = spectral_distance(module.decode(tokens.keep(count)), sound).mean()
        assert float(trainer.callback_metrics[name]) == pytest.approx(float(score), rel=1e-4)
    score = si_sdr(module.decode(tokens), sound).mean()
    assert float(trainer.callback_metrics["val/si_sdr"]) == pytest.approx(float(score), abs=1e-3)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="give either `config`"):
        AudioTraining()
    with pytest.raises(TypeError, match="bytes is a ByteTokenizer: expected an audio tokenizer"):
        AudioTraining(pretrained="bytes")
    with pytest.raises(ValueError, match="AudioLossWeights has no field l3; known: waveform, mel"):
        new_module("dac", losses={"l3": 1.0})
    with pytest.raises(ValueError, match="weight of mel is -1"):
        new_module("dac", losses={"mel": -1})
    with pytest.raises(ValueError, match=r"discriminators \['pitch'\]: expected one or more of periods"):
        new_module("dac", adversary={"discriminators": ["pitch"]})
    with pytest.raises(TypeError, match=r"a batch is a tensor \(1, 160\): expected one tensor of sounds"):
        new_module("dac").validation_step(torch.zeros(1, SAMPLES), 0)
    with pytest.raises(TypeError, match="a batch is a list"):
        new_module("dac").validation_step([torch.zeros(1, 1, SAMPLES)], 0)
