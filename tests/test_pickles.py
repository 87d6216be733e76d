"""A pickle is read where it is named, once, and runs nothing."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokenzoo.checkpoints import pickles
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.files import read_folder
from tokenzoo.checkpoints.hub import read_repo
from tokenzoo.checkpoints.pickles import Pickle, read_pickle

from .hub_server import HubServer

WEIGHTS = {"codebook": torch.arange(6.0).reshape(3, 2), "steps": torch.tensor(5)}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "tokenzoo" / "pickles"


def saved(folder: Path, content: object, name: str = "weights.bin") -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


def assert_weights(tensors: dict[str, Tensor]) -> None:
    assert list(tensors) == list(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert torch.equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        collections.OrderedDict(WEIGHTS),
        {
            name: nn.Parameter(value) if value.is_floating_point() else value
            for name, value in WEIGHTS.items()
        },
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"lr": 0.1}},
        {"model": {"state_dict": WEIGHTS}},
        {f"module.{name}": value for name, value in WEIGHTS.items()},
        {f"_orig_mod.{name}": value for name, value in WEIGHTS.items()},
    ],
    ids=["plain", "ordered", "parameters", "wrapped", "wrapped-twice", "ddp", "compiled"],
)
def test_the_state_dict_is_found(tmp_path: Path, content: object) -> None:
    assert_weights(read_pickle(saved(tmp_path / "a", content)))


def test_the_old_file_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    assert_weights(read_pickle(path))


def test_a_part_is_chosen_by_name(tmp_path: Path) -> None:
    other = {"codebook": torch.zeros(3, 2)}
    path = saved(tmp_path / "a", {"ema": WEIGHTS, "model": other, "parts": {"encoder": WEIGHTS}})
    with pytest.raises(
        CheckpointError, match="several parts that may be the weights: model, ema; name the part"
    ):
        read_pickle(path)
    assert_weights(read_pickle(path, Pickle("weights.bin", part="ema")))
    assert not read_pickle(path, Pickle("weights.bin", part="model"))["codebook"].any()
    assert_weights(read_pickle(path, Pickle("weights.bin", part="parts.encoder")))
    assert sorted(read_pickle(path, Pickle("weights.bin", part="parts"))) == [
        "encoder.codebook",
        "encoder.steps",
    ]
    with pytest.raises(CheckpointError, match=r"no part 'nope', only ema, model, parts"):
        read_pickle(path, Pickle("weights.bin", part="nope"))


@pytest.mark.parametrize("content", [{"a": 1, "b": torch.ones(1)}, [torch.ones(1)], torch.ones(1), {}, 3])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match="name the part that is the state dict"):
        read_pickle(saved(tmp_path / "a", content))


def test_a_pickle_that_holds_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped: dict[str, object] = {}
    wrapped["state_dict"] = wrapped
    inside: dict[str, object] = {}
    inside["x"] = inside
    deep: dict[str, object] = dict(WEIGHTS)
    for _ in range(100):
        deep = {"x": deep}
    for content in (wrapped, {"state_dict": inside}, deep):
        with pytest.raises(
            CheckpointError, match=r"holds itself, or nests dicts .*; name the part"
        ) as caught:
            read_pickle(saved(tmp_path / "a", content))
        assert caught.value.file == "weights.bin"
    many: dict[str, object] = dict(WEIGHTS)
    for _ in range(8):
        many = {str(index): many for index in range(8)}
    monkeypatch.setattr(pickles, "MAX_NAMES", 100)
    with pytest.raises(CheckpointError, match="100 names"):
        read_pickle(saved(tmp_path / "a", many))


@pytest.mark.filterwarnings("ignore")  # torch's own, on sparse and quantized tensors
@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (lambda: torch.zeros(1).expand(1 << 40), "which overlap"),
        (lambda: torch.zeros(8).as_strided((4, 4), (1, 1)), "which overlap"),
        (lambda: torch.zeros(3, device="meta"), "on the meta device"),
        (lambda: torch.eye(3).to_sparse(), r"sparse, nested or quantized \(torch\.sparse_coo"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "sparse, nested or quantized"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8), r"torch\.qint8"),
    ],
    ids=["expanded", "strided", "meta", "sparse", "nested", "quantized"],
)
def test_a_tensor_without_values_of_its_own_is_refused(
    tmp_path: Path, cache: Path, tensor: Callable[[], Tensor], what: str
) -> None:
    path = saved(tmp_path / "a", {**WEIGHTS, "odd": tensor()})
    with pytest.raises(CheckpointError, match=rf"weights\.bin: tensor odd is .*{what}.*; save it again"):
        read_pickle(path)
    assert not cache.exists()


def test_the_second_load_does_not_unpickle(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a", WEIGHTS)
    read_pickle(path)
    (copy,) = cache.iterdir()
    assert copy.suffix == ".safetensors"
    monkeypatch.setattr(pickles.torch, "load", None)
    assert_weights(read_pickle(path))


def test_a_damaged_copy_is_made_again(tmp_path: Path, cache: Path) -> None:
    path = saved(tmp_path / "a", WEIGHTS)
    read_pickle(path)
    (copy,) = cache.iterdir()
    copy.write_bytes(copy.read_bytes()[:-3])
    assert_weights(read_pickle(path))
    assert_weights(read_pickle(path))


def test_another_file_of_that_name_is_read_anew(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", WEIGHTS)
    read_pickle(path)
    saved(tmp_path / "a", {"other": torch.ones(2)})
    assert list(read_pickle(path)) == ["other"]


def test_without_a_writable_cache_the_pickle_is_read_each_time(tmp_path: Path, cache: Path) -> None:
    path = saved(tmp_path / "a", WEIGHTS)
    cache.parent.parent.mkdir()
    cache.parent.write_text("in the way")
    for _ in range(2):
        with pytest.warns(UserWarning, match="cannot keep a safetensors copy"):
            assert_weights(read_pickle(path))


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("allowed", [(), ("posix.mkdir", "nt.mkdir", "os.mkdir", "builtins.eval")])
@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_pickle_does_not_run(
    tmp_path: Path, cache: Path, is_zip: bool, allowed: tuple[str, ...]
) -> None:
    path, target = tmp_path / "weights.bin", tmp_path / "pwned"
    content = {**WEIGHTS, "x": Malicious(target)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match=r"wants .*mkdir.*nothing was run|code .*mkdir") as caught:
        read_pickle(path, Pickle("weights.bin", allowed=allowed), source="me/toy", revision="abc")
    assert (caught.value.source, caught.value.revision, caught.value.file) == ("me/toy", "abc", "weights.bin")
    assert caught.value.__cause__ is not None
    assert not target.exists()
    assert not cache.exists()


def test_an_allowed_class_is_not_imported(tmp_path: Path) -> None:
    content = {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=0.1, paths=["a"])}
    path = saved(tmp_path / "a", content)
    with pytest.raises(CheckpointError, match=r"wants argparse\.Namespace"):
        read_pickle(path)
    spec = Pickle("weights.bin", allowed=("argparse.Namespace",))
    assert_weights(read_pickle(path, spec))
    inside = pickles._unpickled(path, spec, {})
    assert isinstance(inside, dict) and not isinstance(inside["args"], argparse.Namespace)
    with pytest.raises(CheckpointError, match=r"wants argparse\.Namespace"):
        read_pickle(saved(tmp_path / "b", {**content, "epoch": 1}))


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04 broken", b"not a pickle at all", pickle.dumps({"a": 1})[:-4]]
)
def test_a_damaged_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable pickle of weights") as caught:
        read_pickle(path)
    assert caught.value.file == "weights.bin"


def test_torchscript_is_code_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is giving TorchScript up
        torch.jit.script(nn.Linear(2, 2)).save(path)
    with pytest.raises(CheckpointError, match="or one that is code"):
        read_pickle(path)


def test_a_missing_pickle_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"file weights\.bin: no such file"):
        read_pickle(tmp_path / "weights.bin")


def test_a_row_names_a_pickle_in_a_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", WEIGHTS, "pytorch_model.bin").parent
    checkpoint = read_folder(folder, config_file=None, weights=Pickle("pytorch_model.bin"))
    assert_weights(checkpoint.tensors)
    assert (checkpoint.config, checkpoint.file) == ({}, "pytorch_model.bin")


def test_a_row_names_a_pickle_on_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = saved(tmp_path / "a", WEIGHTS).read_bytes()
    sha = hub.commit("me/toy", {"README.md": b"", "pytorch_model.bin": content})
    checkpoint = read_repo("me/toy", config_file=None, weights=Pickle("pytorch_model.bin"))
    assert_weights(checkpoint.tensors)
    assert checkpoint.revision == sha
    monkeypatch.setattr(pickles.torch, "load", None)
    monkeypatch.setattr(pickles.hashlib, "file_digest", None)
    hub.requests.clear()
    assert_weights(read_repo("me/toy", sha, config_file=None, weights=Pickle("pytorch_model.bin")).tensors)
    assert hub.requests == []
