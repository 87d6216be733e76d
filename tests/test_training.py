"""The training module: losses, averages, frozen parts, checkpoints, and a resume that leaves no trace."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import pytorch as lightning
from torch import Tensor, nn

import tokenzoo
from tokenzoo.image.data import ImageFolderData
from tokenzoo.image.losses import LossWeights
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.titok import TiTok, TiTokConfig
from tokenzoo.image.training import ImageTraining
from tokenzoo.zoo.ema import WeightAverage
from tokenzoo.zoo.optional import require
from tokenzoo.zoo.recipe import Identity, LengthSettings, OptimizerSettings, as_settings
from tokenzoo.zoo.tokenizer import Tokenizer
from tokenzoo.zoo.transformer import TransformerSize
from tokenzoo.zoo.usage import UsageCount

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")

TINY = TiTokConfig(
    num_tokens=4,
    latent_dim=4,
    encoder=TransformerSize(16, 1, 2),
    decoder=TransformerSize(16, 1, 2),
    image_size=16,
    preprocess=ImagePreprocess(size=16),
    encoder_patch_size=8,
    decoder_patch_size=8,
    num_codes=8,
    legacy=False,
    nested=True,
)


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """Seven random pictures of 16 x 16 pixels: three batches of two, and one left over."""
    path = tmp_path / "pictures.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8))
    return path


def new_module(**settings: Any) -> ImageTraining:
    torch.manual_seed(0)
    optimizer = {"learning_rate": 1e-2, "warmup_steps": 2, "decay_steps": 20}
    return ImageTraining("titok", TINY.to_dict(), **({"optimizer": optimizer, "ema_decay": 0.8} | settings))


def new_data(array: Path, **settings: Any) -> ImageFolderData:
    return ImageFolderData(str(array), **{"validation_share": 0.0, "batch_size": 2, **settings})


def new_trainer(steps: int, **settings: Any) -> Any:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "max_steps": steps}
    return lightning.Trainer(**(quiet | settings))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_the_module_is_a_tokenizer(array: Path) -> None:
    module = new_module()
    images = torch.rand(2, 3, 16, 16)
    assert isinstance(module, Tokenizer)
    assert module.facts is module.tokenizer.facts and module.preprocess == TINY.preprocess
    assert module.num_tokens((16, 16)) == 4
    tokens = module.encode(images)
    assert tokens.identical(module.tokenizer.encode(images))
    assert torch.equal(module.decode(module.stamp(tokens.ids)), module.tokenizer.decode(tokens))


def test_a_step_is_a_batch_and_lowers_the_loss(array: Path) -> None:
    module = new_module(losses={"mse": 1.0, "l1": 0.5, "log_mse": 0.1})
    seen: list[float] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            assert batch.dtype == torch.uint8 and batch.shape == (2, 3, 16, 16)
            seen.append(float(trainer.callback_metrics["train/loss"]))
            assert trainer.global_step == len(seen)

    new_trainer(20, callbacks=[Watch()], log_every_n_steps=1).fit(module, datamodule=new_data(array))
    assert len(seen) == 20
    assert np.mean(seen[-3:]) < 0.7 * np.mean(seen[:3])


def test_kept_lengths_are_drawn_for_each_item(array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    forward = TiTok.forward

    def spy(self: TiTok, signal: Tensor, *, lengths: Tensor, **others: Any) -> Any:
        drawn.append(lengths)
        return forward(self, signal, lengths=lengths, **others)

    monkeypatch.setattr(TiTok, "forward", spy)
    new_trainer(12).fit(
        new_module(lengths={"distribution": "fixed", "counts": [1, 4]}), datamodule=new_data(array)
    )
    assert all(lengths.shape == (2,) for lengths in drawn)
    assert {int(n) for lengths in drawn for n in lengths} == {1, 4}
    assert any(lengths[0] != lengths[1] for lengths in drawn)


def test_another_seed_draws_other_lengths(array: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, list[int]] = {0: [], 1: []}
    forward = TiTok.forward
    for seed, lengths_of in drawn.items():

        def spy(
            self: TiTok, signal: Tensor, *, lengths: Tensor, seen: Any = lengths_of, **others: Any
        ) -> Any:
            seen += lengths.tolist()
            return forward(self, signal, lengths=lengths, **others)

        monkeypatch.setattr(TiTok, "forward", spy)
        new_trainer(8).fit(new_module(seed=seed, lengths={}), datamodule=new_data(array))
    assert len(drawn[0]) == 16 and drawn[0] != drawn[1]


@pytest.mark.parametrize("stop", [4, 6])
@pytest.mark.parametrize("validate", [False, True])
def test_resume_equals_uninterrupted(array: Path, tmp_path: Path, stop: int, validate: bool) -> None:
    """Step 4 lies inside the second epoch of three batches, step 6 at its end."""
    settings: dict[str, Any] = {}
    data: dict[str, Any] = {}
    if validate:
        settings = {"val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
        data = {"validation": str(array)}
    whole = new_module()
    new_trainer(10, **settings).fit(whole, datamodule=new_data(array, **data))

    first, file = new_trainer(stop, **settings), tmp_path / "part.ckpt"
    first.fit(new_module(), datamodule=new_data(array, **data))
    first.save_checkpoint(file, weights_only=False)
    torch.manual_seed(123)
    resumed = new_module()
    for parameter in resumed.parameters():
        nn.init.normal_(parameter)
    second = new_trainer(10, **settings)
    second.fit(resumed, datamodule=new_data(array, **data), ckpt_path=file, weights_only=True)
    assert second.global_step == 10
    assert_same(weights_of(whole), weights_of(resumed))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resume_from_a_checkpoint_in_the_middle_of_a_fit(array: Path, tmp_path: Path) -> None:
    saver = lightning.callbacks.ModelCheckpoint(
        tmp_path / "saved", filename="{step}", every_n_train_steps=5, save_top_k=-1
    )
    whole = new_module()
    new_trainer(9, callbacks=[saver], enable_checkpointing=True).fit(whole, datamodule=new_data(array))
    resumed, file = new_module(), tmp_path / "saved" / "step=5.ckpt"
    trainer = new_trainer(9, callbacks=[copy.deepcopy(saver)], enable_checkpointing=True)
    trainer.fit(resumed, datamodule=new_data(array), ckpt_path=file, weights_only=True)
    assert_same(weights_of(whole), weights_of(resumed))


def test_a_finished_fit_goes_on_in_the_same_process(array: Path) -> None:
    """The module holds the average after a fit; the next one starts from the raw weights again."""
    module = new_module()
    new_trainer(3).fit(module, datamodule=new_data(array))
    average = weights_of(module.tokenizer)
    started: list[dict[str, Tensor]] = []

    class Look(lightning.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            started.append(weights_of(pl_module.tokenizer))

    new_trainer(2, callbacks=[Look()]).fit(module, datamodule=new_data(array))
    assert any(not torch.equal(started[0][name], average[name]) for name in average)


def test_a_checkpoint_reloads_by_itself(array: Path, tmp_path: Path) -> None:
    identity = {"name": "tiny", "licence": "MIT", "provenance": "a test"}
    new_module(identity=identity).save_pretrained(tmp_path / "start")
    module = ImageTraining(
        pretrained=str(tmp_path / "start"), losses=LossWeights(l1=2.0), freeze=("encoder",)
    )
    trainer = new_trainer(3)
    trainer.fit(module, datamodule=new_data(array))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    shutil.rmtree(tmp_path / "start")
    again = ImageTraining.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.hparams == module.hparams
    assert again.loss_weights == module.loss_weights and again.loss_weights.l1 == 2.0
    assert (again.facts.name, again.facts.licence) == ("tiny-finetuned", "MIT")
    assert again.tokenizer.provenance == f"fine-tuned from {tmp_path / 'start'}"
    assert_same(weights_of(again), weights_of(module))


def test_save_pretrained_writes_the_average_alone(array: Path, tmp_path: Path) -> None:
    module = new_module(identity={"name": "tiny"})
    saved: list[bool] = []

    class Save(lightning.Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.global_step == 4:
                raw = weights_of(pl_module.tokenizer)
                pl_module.save_pretrained(tmp_path / "middle")
                assert_same(raw, weights_of(pl_module.tokenizer))
                loaded = weights_of(tokenzoo.load(tmp_path / "middle"))  # pyright: ignore
                saved.append(all(torch.equal(raw[name], loaded[name]) for name in raw))

    new_trainer(5, callbacks=[Save()]).fit(module, datamodule=new_data(array))
    assert saved == [False]
    assert module.facts.fingerprint is None
    module.save_pretrained(tmp_path / "end")
    loaded = tokenzoo.load(tmp_path / "end")
    assert isinstance(loaded, TiTok) and loaded.facts.name == "tiny" and loaded.facts.fingerprint
    assert_same(weights_of(loaded), weights_of(module.tokenizer))


class Counting(lightning.LightningModule):
    """A counter and batch statistics are what an average must leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.judge = nn.Linear(2, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.judge(self.tokenizer(batch[0])).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_average_by_hand_and_without_buffers(tmp_path: Path) -> None:
    module, average = Counting(), WeightAverage(0.75)
    history: list[Tensor] = []
    judged: list[Tensor] = []

    class Note(lightning.Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            history.append(pl_module.tokenizer[0].weight.detach().clone())
            judged.append(pl_module.judge.weight.detach().clone())

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(12, 2)), batch_size=3)
    new_trainer(8, callbacks=[Note(), average]).fit(module, data)
    expected = history[0]
    for n, weight in enumerate(history):
        expected = torch.lerp(expected, weight, 1 - min(0.75, (1 + n) / (10 + n)))
    linear, norm = module.tokenizer
    assert isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
    torch.testing.assert_close(linear.weight.detach(), expected)
    assert norm.num_batches_tracked is not None and norm.num_batches_tracked.item() == 8
    assert torch.equal(module.judge.weight, judged[-1]), "what is not the tokenizer is not averaged"


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"ema_decay=.*expected between 0 and 1"):
        WeightAverage(decay)


def test_frozen_parts_do_not_move(array: Path) -> None:
    module = new_module(freeze=("encoder", "quantizer", "decoder.head"))
    before = weights_of(module.tokenizer)
    new_trainer(4).fit(module, datamodule=new_data(array))
    moved = {
        name for name, tensor in weights_of(module.tokenizer).items() if not torch.equal(tensor, before[name])
    }
    assert moved and all(name.startswith("decoder.") for name in moved)
    assert not any(name.startswith("decoder.head") for name in moved)
    with pytest.raises(ValueError, match=r"freeze \['decoderr'\].*parts: .*encoder"):
        new_module(freeze=("decoderr",))
    with pytest.raises(ValueError, match="every part is frozen"):
        OptimizerSettings().build(nn.Linear(2, 2).requires_grad_(False))


def test_finetune_starts_from_the_weights(tmp_path: Path) -> None:
    new_module(identity={"name": "tiny", "licence": "MIT"}).save_pretrained(tmp_path / "start")
    tokenizer = tokenzoo.load(tmp_path / "start", dtype=torch.bfloat16)
    assert isinstance(tokenizer, TiTok)
    module = tokenizer.finetune(identity={"provenance": "here"}, optimizer={"learning_rate": 1e-5})
    assert isinstance(module, ImageTraining) and module.tokenizer is not tokenizer
    assert module.optimizer_settings.learning_rate == 1e-5
    facts = module.facts
    assert (facts.name, facts.licence, module.tokenizer.provenance) == ("tiny-finetuned", "MIT", "here")
    again = module.tokenizer.finetune(identity={"licence": "0BSD"})
    assert (again.facts.name, again.facts.licence) == ("tiny-finetuned", "0BSD")
    assert again.tokenizer.provenance == "fine-tuned from tiny-finetuned"
    assert module.facts.fingerprint is None and not module.is_new
    assert_same({n: t.float() for n, t in weights_of(tokenizer).items()}, weights_of(module.tokenizer))
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())


def test_a_new_tokenizer_is_started_from_data_once(
    array: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tensor] = []

    def initialise(self: TiTok, images: Tensor) -> None:
        calls.append(images)
        self.quantizer.codebook.fill_(0.5)

    monkeypatch.setattr(TiTok, "initialise", initialise, raising=False)
    settings = {"initialise_images": 5, "freeze": ("quantizer",)}
    module = new_module(**settings)
    trainer = new_trainer(2)
    trainer.fit(module, datamodule=new_data(array))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert len(calls) == 1 and calls[0].shape == (5, 3, 16, 16) and calls[0].dtype == torch.float32
    assert calls[0].min() >= 0 and 0.9 < calls[0].max() <= 1
    assert (module.tokenizer.quantizer.codebook == 0.5).all()
    new_trainer(2).fit(module, datamodule=new_data(array))
    new_trainer(4).fit(new_module(**settings), datamodule=new_data(array), ckpt_path=tmp_path / "a.ckpt")
    new_trainer(2).fit(module.tokenizer.finetune(), datamodule=new_data(array))
    assert len(calls) == 1


def test_validation_scores_prefixes_with_the_average(array: Path) -> None:
    module = new_module()
    trainer = new_trainer(4, val_check_interval=2, check_val_every_n_epoch=None)
    trainer.fit(module, datamodule=new_data(array, validation=str(array)))
    images = torch.from_numpy(np.load(array)).permute(0, 3, 1, 2).float() / 255
    for name, keep in (("val/psnr", 4), ("val/psnr_1", 1)):
        painted = module.decode(module.encode(images, keep=keep))
        score = -10 * (painted - images).square().flatten(1).mean(1).log10()
        assert float(trainer.callback_metrics[name]) == pytest.approx(float(score.mean()), abs=1e-3)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="give either `config`"):
        ImageTraining()
    with pytest.raises(ValueError, match=r"tokenizer_type is missing; known: .*titok"):
        ImageTraining(config=TINY.to_dict())
    with pytest.raises(TypeError, match="bytes is a ByteTokenizer: expected an image tokenizer"):
        ImageTraining(pretrained="bytes")
    with pytest.raises(ValueError, match="LossWeights has no field l3; known: l1, mse"):
        new_module(losses={"l3": 1.0})
    with pytest.raises(TypeError, match="seed=None: expected an integer"):
        new_module(seed=None)
    with pytest.raises(ValueError, match="weight of l1 is -1"):
        new_module(losses={"l1": -1})


def test_a_batch_that_is_no_image_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="a batch is a list: expected one tensor"):
        new_module().validation_step([torch.zeros(1, 3, 16, 16)], 0)  # pyright: ignore


def test_the_learning_rate_by_hand() -> None:
    settings = OptimizerSettings(learning_rate=2.0, warmup_steps=4, min_learning_rate=0.5)
    assert settings.factor(0, 0.0) == pytest.approx(0.25)
    assert settings.factor(3, 0.0) == pytest.approx(1.0)
    assert settings.factor(10, 0.5) == pytest.approx(0.625)
    assert settings.factor(20, 1.0) == settings.factor(30, 1.5) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="min_learning_rate=3"):
        OptimizerSettings(learning_rate=1.0, min_learning_rate=3.0)


def test_the_cosine_follows_time_where_time_ends_the_fit(array: Path) -> None:
    module = new_module(optimizer={"learning_rate": 1.0, "warmup_steps": 1})
    rates: list[float] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = new_trainer(-1, max_epochs=-1, max_time={"seconds": 5}, callbacks=[Watch()])
    trainer.fit(module, datamodule=new_data(array))
    assert rates == sorted(rates, reverse=True) and rates[0] > 0.7 and rates[-1] < 0.1
    with pytest.raises(ValueError, match="the cosine has no end"):
        new_trainer(-1, max_epochs=-1).fit(
            new_module(optimizer={"learning_rate": 1.0}), datamodule=new_data(array)
        )


def test_vectors_have_no_weight_decay() -> None:
    groups = OptimizerSettings(weight_decay=0.5).build(nn.Linear(2, 3)).param_groups
    assert [(group["weight_decay"], group["params"][0].ndim) for group in groups] == [(0.5, 2), (0.0, 1)]


def test_settings_are_checked_and_merged() -> None:
    facts = TINY.facts()
    policy = LengthSettings(per="batch", full=0.5).policy(facts)
    assert policy is not None and (policy.longest, policy.per, policy.full) == (4, "batch", 0.5)
    assert Identity("a", "MIT").updated({"name": "b"}) == Identity("b", "MIT")
    with pytest.raises(TypeError, match="Identity is given as 'x'"):
        as_settings(Identity, "x")  # pyright: ignore


def test_code_usage_by_hand() -> None:
    count = UsageCount()
    assert count.take() is None
    count.add(torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0]]))
    count.add(torch.tensor([[1, 2, 0, 0], [0, 0, 0, 0]]))
    usage = count.take()
    assert usage is not None and count.take() is None
    assert float(usage.share) == pytest.approx((0.5 + 0.25) / 2)
    assert float(usage.perplexity) == pytest.approx((2 + 1) / 2)


def test_a_missing_library_names_the_extra() -> None:
    with pytest.raises(ImportError, match=r'no_such_library is missing.*pip install "tokenzoo\[train\]"'):
        require("no_such_library", "train")
