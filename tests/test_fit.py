"""`tokenzoo fit` from the first line of a recipe to a tokenizer that loads."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import tokenzoo
from tokenzoo.zoo import fit

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")

RECIPE: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {"max_steps": 6, "accelerator": "cpu", "log_every_n_steps": 2},
    "model": {
        "tokenizer_type": "titok",
        "config": {
            "num_tokens": 4,
            "latent_dim": 4,
            "encoder": {"width": 16, "layers": 1, "heads": 2},
            "decoder": {"width": 16, "layers": 1, "heads": 2},
            "image_size": 16,
            "preprocess": {"size": 16},
            "encoder_patch_size": 8,
            "decoder_patch_size": 8,
            "num_codes": 8,
            "legacy": False,
            "nested": True,
        },
        "identity": {"name": "tiny", "licence": "MIT"},
        "optimizer": {"learning_rate": 1e-3, "decay_steps": 12},
    },
    "data": {"batch_size": 2, "validation_share": 0.25},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe beside seven pictures and one broken file; it writes to tmp_path / "out"."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(7):
        pixels = torch.randint(256, (20, 24, 3), generator=generator).to(torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    settings = RECIPE | {"out": str(tmp_path / "out"), "data": RECIPE["data"] | {"train": str(folder)}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "recipe.yaml"


def run(recipe: Path, *arguments: str) -> int:
    return fit.main(["--config", str(recipe), *arguments])


def test_a_recipe_becomes_a_tokenizer(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = recipe.parent / "out"
    assert run(recipe) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == f"{out}\n", "stdout is for the result alone"
    assert "6/6" in stderr and "train/psnr" in stderr
    tokenizer = tokenzoo.load(out)
    assert (tokenizer.facts.name, tokenizer.facts.licence) == ("tiny", "MIT")
    assert tokenizer.encode(torch.rand(1, 3, 16, 16)).ids.shape == (1, 4)
    with (out / "training" / "log" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name for row in rows for name, value in row.items() if value}
    assert {"train/loss", "train/learning_rate", "train/usage", "train/perplexity", "val/psnr_1"} <= columns


def test_last_goes_on_where_the_fit_stopped(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, parts = recipe.parent / "whole", recipe.parent / "parts"
    assert run(recipe, "--out", str(whole), "--trainer.max_steps", "11") == 0
    assert run(recipe, "--out", str(parts), "--ckpt_path", "last") == 0
    assert "last.ckpt is not there yet: training starts anew" in capsys.readouterr().err
    assert run(recipe, "--out", str(parts), "--ckpt_path", "last", "--trainer.max_steps", "11") == 0
    assert tokenzoo.load(parts).facts.fingerprint == tokenzoo.load(whole).facts.fingerprint


def test_an_interrupted_fit_resumes_from_its_last_checkpoint(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenzoo.image.training import ImageTraining

    whole, parts = recipe.parent / "whole", recipe.parent / "parts"
    assert run(recipe, "--out", str(whole)) == 0
    step = ImageTraining.training_step

    def break_down(self: ImageTraining, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == 4:
            raise OSError("the disk is gone")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ImageTraining, "training_step", break_down)
    assert run(recipe, "--out", str(parts), "--checkpoint_every", "3") == 1
    assert not (parts / "model.safetensors").exists()
    monkeypatch.undo()
    assert run(recipe, "--out", str(parts), "--ckpt_path", "last") == 0
    assert tokenzoo.load(parts).facts.fingerprint == tokenzoo.load(whole).facts.fingerprint


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model.lossess.l1", "1"], 2, "lossess"),
        (["--model.losses.l3", "1"], 2, "l3"),
        (["--data.batch_size", "many"], 2, "batch_size"),
        (["--data.train", "nowhere"], 1, "nowhere: no such folder"),
        (["--data.batch_size", "100"], 1, "items do not fill a batch of 100"),
        (["--model.losses.perceptual", "1"], 1, "set perceptual_weights to the file"),
        (["--trainer.max_steps", "-5"], 1, "`max_steps` must be a non-negative integer"),
        (["--ckpt_path", "elsewhere.ckpt"], 1, "elsewhere.ckpt: no such file"),
        (["--model.config.num_tokens", "0"], 1, "num_tokens=0"),
    ],
)
def test_mistakes_have_their_exit_codes(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run(recipe, *arguments) == code
    assert message in capsys.readouterr().err


def test_help_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit.main(["--help"]) == 0


def test_without_lightning_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    assert fit.main(["--config", "x.yaml"]) == 1
    assert 'pip install "tokenzoo[train]"' in capsys.readouterr().err


def test_loading_an_image_tokenizer_imports_no_lightning() -> None:
    code = "import sys, tokenzoo.image.titok; print('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.slow
def test_the_overfit_recipe_learns_six_photographs_by_heart(checkout: Path, tmp_path: Path) -> None:
    samples = str(checkout / "image" / "samples")
    out = tmp_path / "out"
    recipe = checkout / "configs" / "image_overfit.yaml"
    assert run(recipe, "--out", str(out), "--data.train", samples, "--data.validation", samples) == 0
    tokenizer = tokenzoo.load(out)
    images = torch.stack([tokenizer.preprocess(path) for path in sorted(Path(samples).glob("*.jpg"))])
    tokens = tokenizer.encode(images)

    def score(keep: int) -> float:
        errors = (tokenizer.decode(tokens.keep(keep)) - images).square().flatten(1).mean(1)
        return float((-10 * errors.log10()).mean())

    assert score(26) > 27 and score(1) > 17


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.optimizer.clip_norm", "-1"], "clip_norm=-1.0: expected above 0"),
        (["--model.optimizer.decay_steps", "-3"], "decay_steps=-3: expected at least 1"),
        (["--model.losses.mse", "0", "--model.losses.quantizer", "0"], "every weight of the loss is 0"),
        (["--data.validation_images", "0"], "validation_images=0: expected at least 1"),
    ],
)
def test_settings_that_would_not_train_are_refused(
    recipe: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(recipe, *arguments) != 0
    assert message in " ".join(capsys.readouterr().err.split())


def test_what_lies_in_out_is_not_lost(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = recipe.parent / "out"
    out.mkdir()
    (out / "config.json").write_text('{"mine": 1}')
    assert run(recipe) == 1 and "holds a config.json that is no tokenizer's" in capsys.readouterr().err
    assert (out / "config.json").read_text() == '{"mine": 1}'
    (out / "config.json").unlink()
    assert run(recipe) == 0
    capsys.readouterr()
    assert run(recipe) == 1 and "go on with --ckpt_path last" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_is_named(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe.parent / "junk.ckpt"
    for save in (lambda: path.write_text("junk"), lambda: torch.save({"state_dict": {}}, path)):
        save()
        assert run(recipe, "--ckpt_path", str(path)) == 1
        assert f"--ckpt_path {path} is no checkpoint of a fit" in capsys.readouterr().err
