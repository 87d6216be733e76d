"""Local checkpoints of KARL and ALIT: pickles with a training run around the weights, read safely."""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tokenzoo
from tokenzoo.checkpoints import convert_alit, convert_karl, pickles
from tokenzoo.checkpoints.distilled_names import convert_shared
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.zoo import catalogue, loading
from tokenzoo.zoo.cli import main

from .golden_karl import official_arguments

GOLDEN = Path(__file__).parent / "golden"
CONVERTERS = {"karl": convert_karl, "alit": convert_alit}
ARGUMENTS: dict[str, Any] = {
    "base_tokenizer": "vqgan",
    "base_tokenizer_config": {
        "n_embed": 1024,
        "ddconfig": {"ch": 128, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "z_channels": 256},
    },
    "patch_size": 16,
    "quantize_latent": True,
    **{
        f"{part}_{what}": 8
        for part in ("encoder", "decoder")
        for what in ("width", "num_layers", "num_heads")
    },
}


def released(folder: Path, fixture: str, name: str) -> tuple[Path, dict[str, Any]]:
    """A file as the authors' scripts write it, with the weights of a fixture; and our configuration of it."""
    weights = load_file(GOLDEN / fixture / "model.safetensors")
    content = {
        "model": {key: torch.zeros_like(value) for key, value in weights.items()},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}},
            "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95)}],
        },
        "ema": collections.OrderedDict(weights, **{"gan_losses.0.discriminator.weight": torch.zeros(2)}),
        "epoch": 399,
        "args": argparse.Namespace(model="small", batch_size=18, output_dir="./out", betas=[0.9, 0.95]),
    }
    path = folder / f"{name}.pth"
    torch.save(content, path)
    official = json.loads((GOLDEN / fixture / "config.json").read_text())
    return path, CONVERTERS[name.split("-")[0]].convert_config(official_arguments(official))


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("fixture", "name", "expected"),
    [
        ("karl-vqgan-a", "karl-small-vqgan", "tokens_budget64_q0.05"),
        ("karl-vae-a", "karl-small-vae", "tokens_budget64_q0.05"),
        ("alit-vqgan-a", "alit-small-vqgan", "tokens_iter0_ntok8"),
    ],
)
def test_a_downloaded_file_is_converted(
    fixture: str,
    name: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, config = released(tmp_path, fixture, name)
    family = name.split("-")[0]
    monkeypatch.setattr(loading, "read_yaml", lambda file: (family, config))
    assert main(["convert", str(path), "--like", name, "--out", str(tmp_path / "ours")]) == 0
    assert "licence of the weights: not stated (the repository has no licence file" in caplog.text
    monkeypatch.undo()
    tokenizer: Any = tokenzoo.load(tmp_path / "ours")
    assert tokenizer.facts.name == name and tokenizer.facts.licence == "not stated"
    assert "github.com/ShivamDuggal4" in tokenizer.provenance
    images = load_file(GOLDEN / fixture / "inputs.safetensors")["images"]
    ids = load_file(GOLDEN / fixture / "expected.safetensors")[expected]
    if family == "alit":
        assert torch.equal(tokenizer.encode(images, keep=8).ids, ids)
    elif fixture == "karl-vqgan-a":  # the VAE's fixture samples its posterior
        halted = load_file(GOLDEN / fixture / "expected.safetensors")["halted_mask_budget64_q0.05"]
        tokens = tokenizer.encode(images, keep=64)
        assert [row.ids[0].tolist() for row in tokens.unbind()] == [
            row[~mask].tolist() for row, mask in zip(ids, halted, strict=True)
        ]


def test_nothing_else_in_the_pickle_is_run(tmp_path: Path) -> None:
    path = tmp_path / "karl.pth"
    torch.save({"ema": {"w": torch.zeros(1)}, "args": Path("x")}, path)
    with pytest.raises(CheckpointError, match="no tensor and no plain container; nothing was run"):
        loading.load_file(path, "karl-small-vqgan")


def test_a_name_without_a_repository_says_what_to_do() -> None:
    for name in ("karl-small-vqgan", "alit-base-vqgan"):
        with pytest.raises(
            ValueError, match=f"not on the Hub: download them from .*convert FILE --like {name}"
        ):
            tokenzoo.load(name)
        row = catalogue.find(name)
        assert row is not None and row.part == "ema" and Path(row.file).suffix in pickles.PICKLE_SUFFIXES


@pytest.mark.parametrize("key", CONVERTERS)
def test_one_name_may_be_missing(key: str) -> None:
    converter = CONVERTERS[key]
    names = set(converter.SIGNATURE)
    assert converter.recognise(None, names) and converter.recognise({}, names - {min(names)})
    assert not converter.recognise({}, names - {min(names), max(names)})
    assert converter.convert_names(["gan_losses.3.perceptual_loss.lin0.weight"]) == {}
    assert converter.convert_names(["encoder.strange.1"]) == {"encoder.strange.1": "encoder.strange.1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": None}, None),
        ({"base_tokenizer": "dvae"}, "base_tokenizer 'dvae': expected 'vqgan' or 'vae'"),
        ({"quantize_latent": False, "factorize_latent": False}, "factorize_latent False"),
    ],
)
def test_other_arguments_are_refused(change: dict[str, Any], message: str | None) -> None:
    if message is None:
        arguments = {key: value for key, value in ARGUMENTS.items() if key not in change}
        with pytest.raises(ValueError, match="configuration without patch_size"):
            convert_shared(arguments, 256)
        return
    with pytest.raises(ValueError, match=message):
        convert_shared(ARGUMENTS | change, 256)


def test_without_dynamic_halting_nothing_is_masked() -> None:
    assert convert_alit.convert_config(ARGUMENTS)["mask_threshold"] == 0.55
    assert convert_alit.convert_config(ARGUMENTS | {"dynamic_halting": False})["mask_threshold"] is None
