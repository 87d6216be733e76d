"""Models of full size with random weights: repeatable, named as what they are, and what they cost."""

import json
from pathlib import Path

import pytest
import torch

import tokenzoo
from tokenzoo.zoo import catalogue, full_size
from tokenzoo.zoo.cli import main
from tokenzoo.zoo.untrained import untrained

from .test_titok import CONFIGS, make
from .toys import build_toy

CAT = Path(tokenzoo.__file__).parent / "image" / "samples" / "cat.jpg"


def test_random_weights_are_those_of_the_seed() -> None:
    state = torch.get_rng_state()
    first, again, other = (untrained("titok-s128", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [next(each.parameters()) for each in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert first.facts.name == "titok-s128-untrained"
    assert first.facts.fingerprint is None and first.facts.licence is None
    assert not first.training
    half = untrained("titok-s128", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_names_without_a_configuration_are_refused() -> None:
    for name in ("bytes", "pyramid-128", "nothing"):
        with pytest.raises(
            ValueError, match=f"'{name}' has no configuration to build from; known: titok-l32"
        ):
            untrained(name)


def test_the_command_says_that_the_weights_are_random(tmp_path: Path, capsys) -> None:
    command = ["encode", str(CAT), "--tokenizer", "titok-s128", "--untrained", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "titok-s128: random weights, so what comes out means nothing" in capsys.readouterr().err
    tokens = tokenzoo.Tokens.load(tmp_path / "cat.tok")
    assert tokens.facts.name == "titok-s128-untrained" and tokens.ids.shape == (1, 128)
    decode = ["decode", str(tmp_path / "cat.tok"), "--out", str(tmp_path)]
    assert main(decode) == 1
    assert "made by 'titok-s128-untrained', with random weights: add --untrained" in capsys.readouterr().err
    assert main([*decode, "--untrained"]) == 0
    assert (tmp_path / "cat.png").is_file()


def test_what_a_model_costs(monkeypatch, capsys) -> None:
    small = make(CONFIGS["painting"])
    monkeypatch.setattr(full_size, "untrained", lambda name, dtype: small.to(dtype))
    assert full_size.main(["titok-s128", "--one", "float32"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["name"] == "titok-s128" and cost["peak_gib"] > 0.05
    assert cost["parameters"] == sum(each.numel() for each in small.parameters()) / 1e6
    monkeypatch.setattr(full_size, "measure_apart", lambda name, dtype, options: full_size.Cost(**cost))
    assert full_size.main(["titok-s128", "--dtypes", "float32"]) == 0
    page = capsys.readouterr().out
    assert "| `titok-s128` | float32 | 0 M |" in page and page.count("\n| ") == 2


def test_what_a_long_sound_costs(monkeypatch, capsys) -> None:
    monkeypatch.setattr(full_size, "untrained", lambda name, dtype: build_toy("toy-codec").to(dtype))
    command = ["encodec-24khz", "--seconds", "3", "--chunk-seconds", "0.5"]
    assert full_size.main([*command, "--one", "float32"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["sound_seconds"] == 3.0 and cost["decode_seconds"] > 0
    told: list = []
    monkeypatch.setattr(
        full_size, "measure_apart", lambda *each: told.append(each[2]) or full_size.Cost(**cost)
    )
    assert full_size.main([*command, "--dtypes", "float32"]) == 0
    assert "x real time |" in capsys.readouterr().out
    assert (told[0].seconds, told[0].chunk_seconds) == (3.0, 0.5)


def test_every_official_row_can_be_built() -> None:
    """On the meta device: the configuration of every row is one that its family takes."""
    from tokenzoo.zoo.loading import build, read_yaml

    rows = [row for row in catalogue.rows() if row.config is not None]
    assert len(rows) >= 50
    for row in rows:
        assert build(*read_yaml(str(row.config))).facts.modality == row.facts.modality
