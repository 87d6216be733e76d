"""A tokenizer against a PatchGan under Lightning: a step is a batch, and a resume leaves no trace."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import pytorch as lightning
from torch import Tensor, nn

import tokenzoo
from tokenzoo.image import training
from tokenzoo.image.patch_gan import PatchGan
from tokenzoo.image.training import ImageTraining

from .test_training import array, assert_same, new_data, new_module, new_trainer, weights_of

__all__ = ["array"]  # a fixture

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.usefixtures("one_thread", "small_gan"),
]
GAN = {"weight": 0.1, "features": 0.5, "lecam": 0.01, "learning_rate": 1e-2}


@pytest.fixture
def small_gan(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for images of 16 x 16 pixels."""
    monkeypatch.setattr(training, "PatchGan", lambda: PatchGan(4, 2))


def judges_of(module: ImageTraining) -> dict[str, Tensor]:
    assert module.adversary is not None
    return weights_of(module.adversary)


class Note(lightning.Callback):
    """The discriminators and the steps after every batch."""

    def __init__(self) -> None:
        self.judges: list[dict[str, Tensor]] = []
        self.steps: list[int] = []
        self.rates: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.judges.append(judges_of(pl_module))
        self.steps.append(trainer.global_step)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_steps_checkpoints_and_schedules_count_batches(array: Path, tmp_path: Path) -> None:
    saver = lightning.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1
    )
    note, module = Note(), new_module(adversary=GAN)
    trainer = new_trainer(7, callbacks=[saver, note], enable_checkpointing=True)
    trainer.fit(module, datamodule=new_data(array))
    assert trainer.global_step == 7 and note.steps == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=3.ckpt", "step=6.ckpt"]
    settings = module.optimizer_settings
    # What stands there after a batch is the rate of the next one.
    assert note.rates == pytest.approx([1e-2 * settings.factor(step, step / 20) for step in range(1, 8)])
    assert len(trainer.optimizers) == 1
    names = {id(parameter) for parameter in module.tokenizer.parameters()}
    assert {id(each) for group in trainer.optimizers[0].param_groups for each in group["params"]} == names


def test_it_begins_at_its_step(array: Path) -> None:
    note, module = Note(), new_module(adversary=GAN | {"start_step": 3})
    trainer = new_trainer(5, callbacks=[note], log_every_n_steps=1)
    trainer.fit(module, datamodule=new_data(array))
    first = note.judges[0]
    assert_same(first, note.judges[2])
    assert any(not torch.equal(first[name], note.judges[3][name]) for name in first)
    terms = {"adversarial", "features", "discriminator", "real", "fake"}
    assert {f"train/{name}" for name in terms} <= set(trainer.callback_metrics)


def test_an_accumulated_gradient_is_one_step_of_both(array: Path) -> None:
    note, module = Note(), new_module(adversary=GAN)
    new_trainer(2, accumulate_grad_batches=2, callbacks=[note]).fit(module, datamodule=new_data(array))
    # Batches of an epoch: two that make a step, then the last one, which makes a step by itself.
    assert note.steps == [0, 1, 2]
    heads = [judges["discriminators.0.head.weight"] for judges in note.judges]
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[1], heads[2])
    fresh = judges_of(new_module(adversary=GAN))
    assert torch.equal(heads[0], fresh["discriminators.0.head.weight"])


def test_resume_equals_uninterrupted_with_both_optimizers(array: Path, tmp_path: Path) -> None:
    settings = {"adversary": GAN | {"start_step": 1}, "balance": True}
    whole = new_module(**settings)
    new_trainer(8).fit(whole, datamodule=new_data(array))
    first, file = new_trainer(5), tmp_path / "part.ckpt"
    first.fit(new_module(**settings), datamodule=new_data(array))
    first.save_checkpoint(file, weights_only=False)
    torch.manual_seed(5)
    resumed = new_module(**settings)
    for parameter in resumed.parameters():
        nn.init.normal_(parameter)
    second = new_trainer(8)
    second.fit(resumed, datamodule=new_data(array), ckpt_path=file, weights_only=True)
    assert second.global_step == 8
    assert_same(weights_of(whole), weights_of(resumed))
    assert whole.adversary is not None and resumed.adversary is not None
    ours, theirs = (each.adversary.training_state()["state"] for each in (whole, resumed))  # pyright: ignore
    assert all(torch.equal(ours[place][name], theirs[place][name]) for place in ours for name in ours[place])
    assert {float(each["step"]) for each in ours.values()} == {7.0}


def test_the_saved_weights_are_the_average_of_the_tokenizer_alone(array: Path, tmp_path: Path) -> None:
    module = new_module(adversary=GAN, identity={"name": "tiny"})
    trainer = new_trainer(4)
    trainer.fit(module, datamodule=new_data(array))
    module.save_pretrained(tmp_path / "out")
    loaded = tokenzoo.load(tmp_path / "out")
    assert isinstance(loaded, nn.Module)
    assert_same(weights_of(loaded), weights_of(module.tokenizer))
    assert not any("discriminator" in name for name in loaded.state_dict())
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    again = ImageTraining.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.hparams["adversary"]["lecam"] == 0.01
    assert_same(weights_of(again), weights_of(module))


def test_bfloat16_trains_and_float16_is_refused(array: Path) -> None:
    module = new_module(adversary=GAN)
    before = judges_of(module), weights_of(module.tokenizer)
    new_trainer(2, precision="bf16-mixed").fit(module, datamodule=new_data(array))
    for old, new in zip(before, (judges_of(module), weights_of(module.tokenizer)), strict=True):
        assert all(each.isfinite().all() for each in new.values())
        assert any(not torch.equal(old[name], new[name]) for name in old)
        assert all(each.dtype == torch.float32 for each in new.values())
    module._trainer = SimpleNamespace(precision="16-mixed")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"16-mixed scales the loss.*use bf16-mixed or 32-true"):
        module.on_fit_start()
