"""Every recipe of an image tokenizer in configs/ becomes a module, its data and a trainer's arguments."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import pytorch as lightning

import tokenzoo
from tokenzoo.image.data import ImageFolderData
from tokenzoo.image.flexible import flexible
from tokenzoo.image.training import ImageTraining
from tokenzoo.zoo import fit, loading, trainee
from tokenzoo.zoo.recipes import shipped

from .photo_crops import photo_crops
from .toys_training import titok

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
CONFIGS = Path(__file__).parents[1] / "configs"
IMAGE = [each.file for each in shipped() if each.file.startswith("train_") and each.modality in ("image", "")]
# What lies in the folders that recipes start from, as a configuration of its kind.
STARTS = {
    "flextok-d12-d12": "flextok_d12_d12.yaml",
    "runs/titok-l32/stage2-start": "titok_l32.yaml",
    "runs/karl/start": "karl_small_vqgan.yaml",
    "runs/karl/stage1": "karl_small_vqgan.yaml",
    "runs/alit/start": "alit_small_vqgan.yaml",
    "runs/flexible/start": "one_d_piece_b_256.yaml",
}


def start_of(source: str) -> Any:
    return loading.build(*loading.read_yaml(STARTS[source]))


@pytest.mark.parametrize("name", IMAGE)
def test_a_recipe_is_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (CONFIGS / name).read_text()
    recipe, head = yaml.safe_load(text), text[: text.index("seed_everything")]
    assert set(recipe) == {"seed_everything", "out", "checkpoint_every", "trainer", "model", "data"}
    assert f"tokenzoo fit --config configs/{name}" in head
    assert re.search("^# Hardware: ", head, re.MULTILINE) and "xpected: " in head
    assert set(recipe["trainer"]) <= set(inspect.signature(lightning.Trainer).parameters)
    ImageFolderData(**recipe["data"])
    monkeypatch.setattr(trainee, "load", start_of)
    with torch.device("meta"):
        module = ImageTraining(**recipe["model"])
    parameters = list(module.tokenizer.parameters())
    assert {each.device.type for each in parameters} == {"meta"}
    assert any(each.requires_grad for each in parameters)
    wanted = {
        name for name, weight in recipe["model"]["losses"].items() if isinstance(weight, float) and weight
    }
    assert wanted | {"quantizer", *recipe["model"].get("terms", {})} == {
        each.name for each in module._each_objective()
    }
    for frozen in filter(None, recipe["model"].get("freeze", "").split(",")):
        assert not any(each.requires_grad for each in module.tokenizer.get_submodule(frozen).parameters())


def test_every_family_with_its_own_terms_has_a_recipe() -> None:
    told = " ".join((CONFIGS / name).read_text() for name in IMAGE)
    for term in ("codes:", "alignment:", "halting:", "rounds:", "semantic:", "captions: true", "adversary:"):
        assert term in told


@pytest.mark.usefixtures("one_thread")
def test_the_recipe_runs_at_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fixed to flexible, as its header says it, with a tiny tokenizer in place of the official one."""
    flexible(titok().eval()).save_pretrained(tmp_path / "start")
    np.save(tmp_path / "crops.npy", photo_crops(["cat", "fig"], 8, 16))
    settings = {
        "out": tmp_path / "out",
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 1,
        "model.pretrained": tmp_path / "start",
        "data.train": tmp_path / "crops.npy",
        "data.validation": tmp_path / "crops.npy",
        "data.batch_size": 4,
        "data.num_workers": 0,
    }
    told = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    assert fit.main(["--config", str(CONFIGS / "train_fixed_to_flexible.yaml"), *told]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    made = tokenzoo.load(tmp_path / "out")
    assert made.facts.nested == "tokens" and made.facts.name == "my-flexible-titok"
    assert made.provenance == f"fine-tuned from {tmp_path / 'start'}"
