"""The comparison with and without distillation, and a recipe of configs/, run at the size of a toy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

import tokenzoo
from tokenzoo.audio import lm_spt_report
from tokenzoo.zoo import fit

from .toys import build_toy
from .whispers import save_transformers, tiny_whisper

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


def write_pool(folder: Path) -> None:
    chance = np.random.default_rng(0)
    for name in ("train", "held_out", "unseen"):
        lengths = [16_000, 8_000, 20_000]
        np.save(folder / f"{name}.npy", chance.integers(-3000, 3000, sum(lengths), dtype=np.int16))
        starts = np.cumsum([0, *lengths[:-1]]).tolist()
        places = [
            {"name": f"{name}{i}", "start": start, "samples": samples}
            for i, (start, samples) in enumerate(zip(starts, lengths, strict=True))
        ]
        (folder / f"{name}.json").write_text(json.dumps(places))
    (folder / "provenance.json").write_text(json.dumps({"sample_rate_hz": 16_000}))


def test_twins_are_trained_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pool(tmp_path)
    whisper = save_transformers(tiny_whisper(), tmp_path / "whisper")
    told = ["--hops", "2560", "--steps", "2", "--batch", "2", "--weight", "3", "--recordings", "5"]
    numbers = tmp_path / "numbers.json"
    assert lm_spt_report.main([str(tmp_path), str(whisper), *told, "--json", str(numbers)]) == 0
    scores = json.loads(numbers.read_text())["scores"]
    # Two of the three recordings of each set last a second.
    assert [(each["weight"], each["set"], each["recordings"]) for each in scores] == [
        (0, "held_out", 2),
        (0, "unseen", 2),
        (3, "held_out", 2),
        (3, "unseen", 2),
    ]
    assert all(each["token_rate_hz"] == 6.25 and each["distance"] > 0 for each in scores)
    assert scores[0]["distance"] != scores[2]["distance"]
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 6 and table[2].startswith("| 6.25 | 0 | held_out, 2 | ")


@pytest.mark.filterwarnings("ignore")
def test_the_recipe_runs_at_the_size_of_a_toy(tmp_path: Path, checkout: Path) -> None:
    """All that a recipe of configs/ says is understood, and the result is saved without the recognizer."""
    write_pool(tmp_path)
    recipe = yaml.safe_load((checkout / "configs/train_lm_spt_6hz.yaml").read_text())
    toy = build_toy("small-lm-spt-6").config.to_dict() | {"revives": True}
    whisper = save_transformers(tiny_whisper(), tmp_path / "whisper")
    recipe["out"] = str(tmp_path / "out")
    recipe["trainer"] |= {
        "max_steps": 2,
        "precision": "32-true",
        "accelerator": "cpu",
        "val_check_interval": 1,
    }
    recipe["model"]["config"] = toy
    recipe["model"]["losses"]["asr_encoder"] = str(whisper)
    recipe["model"]["adversary"] |= {"width": 2, "periods": [2, 3], "band_windows": [256]}
    recipe["data"] = {"train": str(tmp_path / "train.npy"), "validation": str(tmp_path / "held_out.npy")}
    recipe["data"] |= {"batch_size": 2, "crop_seconds": 0.96}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert fit.main(["--config", str(tmp_path / "recipe.yaml")]) == 0
    saved = load_file(tmp_path / "out/model.safetensors")
    assert saved and all(name.startswith(("encoder.", "quantizer.", "decoder.")) for name in saved)
    trained = tokenzoo.load(tmp_path / "out")
    assert trained.facts.token_rate_hz == 6.25 and trained.facts.name == "lm-spt-6.25hz"
