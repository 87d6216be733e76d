"""Captions to features: the ids of open_clip, the tower itself, where it lives, and what is refused."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.image import captions
from tokenzoo.image.captions import CaptionEncoder, TextTowerConfig, caption_ids

from .hub_server import HubServer, Repository
from .tiny_clip import LAYERS, LENGTH, WIDTH, WORDS, clip_tensors, tiny_clip

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
BEGIN, END = len(WORDS) - 2, len(WORDS) - 1
CAPTIONS = ("a cat", "", "two dogs in the rain")


def loaded() -> CaptionEncoder:
    encoder = CaptionEncoder(tiny_clip())
    encoder(["warm up"], **CPU)
    return encoder


def tower_of(encoder: CaptionEncoder) -> Any:
    assert encoder._tower is not None
    return encoder._tower.model


def test_ids_are_padded_with_zeros_as_open_clip_does() -> None:
    encoder = loaded()
    assert encoder._tower is not None
    ids = caption_ids(encoder._tower.tokenizer, ["  A &amp;amp; b", "", "x" * 40], LENGTH)
    spelled = [WORDS.index(f"{letter}</w>") for letter in "a&b"]
    assert ids[0].tolist() == [BEGIN, *spelled, END, 0, 0, 0, 0, 0]
    assert ids[1].tolist() == [BEGIN, END, *[0] * 8]
    assert ids[2].tolist() == [BEGIN, *[WORDS.index("x")] * 8, END]
    assert caption_ids(encoder._tower.tokenizer, [], LENGTH).shape == (0, LENGTH)


def reference(ids: Tensor) -> Tensor:
    """CLIP's text tower in plain torch: pre-norm, causal, quick GELU, the last norm at every position."""
    weights = {name.removeprefix("text_model."): tensor for name, tensor in clip_tensors().items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = weights["embeddings.token_embedding.weight"][ids] + weights["embeddings.position_embedding.weight"]
    for layer in range(LAYERS):
        at = f"encoder.layers.{layer}"
        y = norm(f"{at}.layer_norm1", x)
        parts = (linear(f"{at}.self_attn.{part}_proj", y) for part in "qkv")
        heads = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(f"{at}.self_attn.out_proj", y)
        y = linear(f"{at}.mlp.fc1", norm(f"{at}.layer_norm2", x))
        x = x + linear(f"{at}.mlp.fc2", y * torch.sigmoid(1.702 * y))
    return norm("final_layer_norm", x)


def test_features_are_the_last_norm_at_all_positions() -> None:
    encoder = loaded()
    features = encoder(CAPTIONS, **CPU)
    assert features.shape == (3, LENGTH, WIDTH) and not features.requires_grad
    assert encoder._tower is not None
    ids = caption_ids(encoder._tower.tokenizer, CAPTIONS, LENGTH)
    torch.testing.assert_close(features, reference(ids), atol=1e-5, rtol=1e-5)


def test_the_tower_comes_on_first_use_and_is_no_part_of_the_model() -> None:
    encoder = CaptionEncoder(tiny_clip())
    assert encoder._tower is None
    state = torch.get_rng_state()
    encoder(["a cat"], **CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert not encoder.state_dict() and not list(encoder.parameters()) and not list(encoder.children())
    assert not any(parameter.requires_grad for parameter in tower_of(encoder).parameters())
    assert not encoder.train().state_dict() and not tower_of(encoder).training


def test_the_tower_moves_with_the_model() -> None:
    encoder = loaded()
    whole = torch.nn.Sequential(encoder).to(torch.float64)
    assert tower_of(encoder).dtype == torch.float64
    whole.to("meta")
    assert tower_of(encoder).device.type == "meta"


def test_a_tower_from_the_hub_is_fetched_at_its_commit(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(clip_tensors(), tmp_path / "pytorch_model.bin")
    files = {path.name: path.read_bytes() for path in Path(tiny_clip().repo).iterdir()}
    del files["model.safetensors"]
    files["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    hub.repositories["me/clip"] = Repository()
    sha = hub.repositories["me/clip"].commit(files)
    hub.repositories["me/clip"].commit({"config.json": b"{}"})
    config = replace(tiny_clip(), repo="me/clip", revision=sha, weights="pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: a pickle, .* weights are safetensors"):
        CaptionEncoder(config)(CAPTIONS, **CPU)
    # Were it the default tower, the one that the catalogue names, its pickle would be read.
    monkeypatch.setattr(captions, "TextTowerConfig", lambda **sizes: replace(config, **sizes))
    features = CaptionEncoder(config)(CAPTIONS, **CPU)
    assert torch.equal(features, loaded()(CAPTIONS, **CPU))


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "auto_map"])
def test_settings_that_fetch_code_are_not_read(tmp_path: Path, key: str) -> None:
    folder = shutil.copytree(tiny_clip().repo, tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"][key] = "nobody/kernels"
    (folder / "config.json").write_text(json.dumps(config))
    encoder = CaptionEncoder(replace(tiny_clip(), repo=str(folder)))
    assert torch.equal(encoder(CAPTIONS, **CPU), loaded()(CAPTIONS, **CPU))
    assert "nobody/kernels" not in json.dumps(tower_of(encoder).config.to_dict())


def test_no_captions_need_no_tower() -> None:
    encoder = CaptionEncoder(tiny_clip())
    assert encoder([], **CPU).shape == (0, LENGTH, WIDTH) and encoder._tower is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 8}, r"a text tower of \(positions, features\) \(10, 16\); expected \(10, 8\)"),
        ({"repo": "me/clip"}, "without a revision"),
        ({"repo": "./nowhere"}, "no such folder"),
        ({"weights": "other.safetensors"}, "no such file"),
    ],
)
def test_a_tower_that_is_not_there_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        CaptionEncoder(replace(tiny_clip(), **change))(["a cat"], **CPU)


def test_a_tower_with_a_tensor_missing_is_refused() -> None:
    tensors = clip_tensors()
    del tensors["text_model.final_layer_norm.weight"]
    save_file(tensors, Path(tiny_clip().repo, "broken.safetensors"))
    with pytest.raises(CheckpointError, match=r"final_layer_norm\.weight missing or unexpected"):
        CaptionEncoder(replace(tiny_clip(), weights="broken.safetensors"))(["a cat"], **CPU)


def test_without_transformers_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install "tokenzoo\[transformers\]"'):
        CaptionEncoder(tiny_clip())(["a cat"], **CPU)


def test_a_branch_is_no_revision() -> None:
    with pytest.raises(ValueError, match="revision='main': expected the sha of a commit"):
        TextTowerConfig(revision="main")
