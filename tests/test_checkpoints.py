"""A checkpoint folder: what is saved comes back, what is wrong is named, what fails leaves the old one."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tokenzoo.checkpoints import files
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.files import find_folder, read_folder, write_folder
from tokenzoo.checkpoints.weights import fingerprint, load_strict, read_weights, write_weights

CONFIG = {
    "tokenizer_type": "toy",
    "format_version": 1,
    "width": 3,
    "licence": "mit",
    "provenance": "made here",
}


class Toy(nn.Module):
    """Two float parameters, an integer buffer, and an LSTM, whose flat weights are easily lost."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)
        self.memory = nn.LSTM(width, 2)
        self.steps: Tensor
        self.register_buffer("steps", torch.tensor(7))


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


@pytest.fixture
def folder(toy: Toy, tmp_path: Path) -> Path:
    return write_folder(tmp_path / "toy", CONFIG, toy.state_dict(), "# Toy\n")


def on_meta() -> Toy:
    with torch.device("meta"):
        return Toy()


def test_what_is_saved_comes_back(toy: Toy, folder: Path) -> None:
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    checkpoint = read_folder(folder)
    assert checkpoint.config == CONFIG
    assert (checkpoint.licence, checkpoint.provenance) == ("mit", "made here")
    assert (checkpoint.source, checkpoint.revision) == (str(folder), None)
    loaded = on_meta()
    load_strict(loaded, checkpoint.tensors, source=folder)
    for name, value in toy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    signal = torch.ones(4, 1, 3)
    assert torch.equal(loaded.memory(signal)[0], toy.memory(signal)[0])
    assert loaded.linear.weight.requires_grad


def test_floats_are_fp32_however_they_were_stored(toy: Toy, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "half", CONFIG, toy.state_dict(), "", dtype=torch.float16)
    tensors = read_folder(folder).tensors
    assert tensors["linear.weight"].dtype == torch.float16
    loaded = on_meta()
    load_strict(loaded, tensors)
    assert loaded.linear.weight.dtype == torch.float32
    assert torch.equal(loaded.linear.weight, toy.linear.weight.half().float())
    assert (loaded.steps.dtype, loaded.steps.item()) == (torch.int64, 7)
    load_strict(loaded, tensors, dtype=torch.bfloat16)
    assert loaded.linear.weight.dtype == torch.bfloat16


def test_weights_do_not_follow_the_file(folder: Path) -> None:
    loaded = on_meta()
    load_strict(loaded, read_folder(folder).tensors)
    before = loaded.linear.weight.clone()
    file = folder / "model.safetensors"
    with file.open("r+b") as opened:
        opened.write(b"\0" * file.stat().st_size)
    assert torch.equal(loaded.linear.weight, before)


@pytest.mark.parametrize("module", [Toy, on_meta], ids=["real", "meta"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("linear.bias"), "missing (1): linear.bias"),
        (lambda t: t.update(discriminator=torch.zeros(1)), "unexpected (1): discriminator"),
        (
            lambda t: t.update({"linear.weight": torch.zeros(2, 4)}),
            "linear.weight is (2, 4), expected (2, 3)",
        ),
        (lambda t: t.update(steps=torch.tensor(7.0)), "steps is torch.float32, expected torch.int64"),
    ],
    ids=["missing", "unexpected", "shape", "kind"],
)
def test_a_misfit_is_named_and_changes_nothing(toy: Toy, module, change, words: str) -> None:
    tensors = dict(toy.state_dict())
    change(tensors)
    target = module()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_strict(target, tensors, source="me/toy", revision="abc", file="model.safetensors")
    assert words in str(caught.value)
    assert str(caught.value).startswith("me/toy@abc, file model.safetensors: the weights do not fit Toy")
    assert (caught.value.source, caught.value.revision, caught.value.file) == (
        "me/toy",
        "abc",
        "model.safetensors",
    )
    for name, value in target.state_dict().items():
        assert value.is_meta or torch.equal(value, before[name])


def test_a_long_list_of_names_is_cut(toy: Toy) -> None:
    extra = {f"gan.{i}": torch.zeros(1) for i in range(500)}
    with pytest.raises(CheckpointError, match=r"unexpected \(500\): gan\.0, .*gan\.7 and 492 more"):
        load_strict(toy, {**toy.state_dict(), **extra})


def test_tied_parameters_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3, bias=False)
            self.outer = nn.Linear(3, 3, bias=False)
            self.outer.weight = self.inner.weight

    tied = Tied()
    folder = write_folder(tmp_path / "tied", {}, tied.state_dict(), "")
    assert (folder / "model.safetensors").stat().st_size < 36 * 2 + 150
    with torch.device("meta"):
        loaded = Tied()
    load_strict(loaded, read_folder(folder).tensors)
    assert loaded.outer.weight is loaded.inner.weight
    assert torch.equal(loaded.inner.weight, tied.inner.weight)


def test_views_of_one_memory_are_copied(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    write_weights(tmp_path / "w.safetensors", {"whole": whole, "turned": whole.T, "row": whole[1]})
    tensors = read_weights(tmp_path / "w.safetensors")
    assert torch.equal(tensors["turned"], whole.T)
    assert tensors["row"].tolist() == [4, 5, 6, 7]


def test_a_table_outside_the_state_dict_is_refused_on_meta() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(3), persistent=False)

    with torch.device("meta"):
        module = Forgetful()
    with pytest.raises(CheckpointError, match="keeps tensors that its state dict does not have: table"):
        load_strict(module, {})


def test_names_lose_the_prefix_of_torch_compile(toy: Toy, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"_orig_mod.a": torch.ones(1), "b._orig_mod.c": torch.ones(1)}, file)
    assert sorted(read_weights(file)) == ["a", "b.c"]
    save_file({"_orig_mod.a": torch.ones(1), "a": torch.ones(1)}, file)
    with pytest.raises(CheckpointError, match="two tensors are called 'a'"):
        read_weights(file)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def _corrupt_header(file: Path) -> None:
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])


def _point_outside(file: Path) -> None:
    header = json.dumps(
        {"linear.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    "damage", [_truncate, _corrupt_header, _point_outside, lambda file: file.write_bytes(b"")],
    ids=["truncated", "header", "too-large", "empty"],
)  # fmt: skip
def test_a_damaged_safetensors_file_is_named(folder: Path, damage) -> None:
    damage(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="corrupt or truncated") as caught:
        read_folder(folder, source="me/toy", revision="abc")
    assert (caught.value.source, caught.value.revision, caught.value.file) == (
        "me/toy",
        "abc",
        "model.safetensors",
    )
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "holds a list, expected an object"),
        (b" " * (files.MAX_CONFIG_BYTES + 1), "expected at most"),
    ],
    ids=["missing", "cut", "not-utf8", "too-deep", "list", "too-large"],
)
def test_a_bad_config_is_named(folder: Path, content: bytes | None, words: str) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_folder(folder)
    assert caught.value.file == "config.json"


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file; a checkpoint needs it"):
        read_folder(folder)


def test_a_folder_with_only_a_pickle_is_refused_unread(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print))
    with pytest.raises(CheckpointError, match=r"only pickled weights \(pytorch_model\.bin\).*read_pickle"):
        read_folder(folder)


def test_saving_again_replaces_our_files_and_no_others(toy: Toy, folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    nn.init.zeros_(toy.linear.weight)
    write_folder(
        folder, {**CONFIG, "width": 4}, toy.state_dict(), "# New\n", extra_files={"tokenizer.json": b"{}"}
    )
    assert sorted(os.listdir(folder)) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "notes.txt",
        "tokenizer.json",
    ]
    assert (folder / "README.md").read_text() == "# New\n"
    checkpoint = read_folder(folder)
    assert checkpoint.config["width"] == 4
    assert not checkpoint.tensors["linear.weight"].any()


def _contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "ctrl-c"]
)
def test_an_interrupted_save_leaves_the_old_folder(
    toy: Toy, folder: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _contents(folder)

    def failing(path: Path, tensors: dict[str, Tensor], **_options: object) -> None:
        path.write_bytes(b"half a fi")
        raise error

    monkeypatch.setattr(files, "write_weights", failing)
    with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt):
        write_folder(folder, {**CONFIG, "width": 4}, toy.state_dict(), "# New\n")
    assert _contents(folder) == before
    with pytest.raises(CheckpointError if isinstance(error, OSError) else KeyboardInterrupt):
        write_folder(folder.parent / "fresh", CONFIG, toy.state_dict(), "")
    assert os.listdir(folder.parent) == ["toy"]


@pytest.mark.parametrize("moves_before_failure", range(6))
def test_a_failed_rename_puts_the_old_files_back(
    toy: Toy, folder: Path, moves_before_failure: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _contents(folder)
    replace, moves = os.replace, []

    def failing(old: Path, new: Path) -> None:
        moves.append(new)
        if len(moves) == moves_before_failure + 1:
            raise PermissionError(13, "not yours")
        replace(old, new)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(CheckpointError, match="could not be written"):
        write_folder(folder, {**CONFIG, "width": 4}, {}, "# New\n", extra_files={"a.json": b"{}"})
    assert _contents(folder) == before


def test_what_cannot_be_saved_is_refused(toy: Toy, tmp_path: Path) -> None:
    target = tmp_path / "new"
    with pytest.raises(CheckpointError, match="not plain JSON"):
        write_folder(target, {"width": float("nan")}, {}, "")
    with pytest.raises(CheckpointError, match="not plain JSON"):
        write_folder(target, {"width": torch.float32}, {}, "")
    with pytest.raises(CheckpointError, match=r"too large for torch\.float16"):
        write_folder(target, {}, {"a": torch.tensor([1e6])}, "", dtype=torch.float16)
    with pytest.raises(CheckpointError, match="on the meta device"):
        write_folder(target, {}, {"a": torch.zeros(2, device="meta")}, "")
    with pytest.raises(CheckpointError, match="plain name"):
        write_folder(target, {}, {}, "", extra_files={"../x": b""})
    assert not target.exists()


def test_a_tokenizer_without_weights_is_a_checkpoint_too(tmp_path: Path) -> None:
    checkpoint = read_folder(write_folder(tmp_path / "bytes", {"tokenizer_type": "bytes"}, {}, ""))
    assert (checkpoint.config, checkpoint.tensors) == ({"tokenizer_type": "bytes"}, {})


def test_paths_are_told_from_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert find_folder("toy") == Path("toy")
    assert find_folder(folder) == folder
    for name in ("titok-l32", "me/toy", "me/toy@refs/pr/1"):
        assert find_folder(name) is None
    for path in ("./nope", "/nope", "~/nope", "..\\nope", "a/b/c", "", Path("nope")):
        with pytest.raises(CheckpointError, match="no such folder"):
            find_folder(path)
    with pytest.raises(CheckpointError, match="that is a file"):
        find_folder("./toy/config.json")


def test_fingerprints_tell_checkpoints_apart(toy: Toy, folder: Path) -> None:
    tensors = toy.state_dict()
    digest = fingerprint(CONFIG, tensors)
    assert digest == fingerprint(CONFIG, dict(reversed(tensors.items())))
    assert digest == fingerprint(CONFIG, read_folder(folder).tensors)
    assert digest == fingerprint({**CONFIG, "licence": "other"}, tensors)
    assert digest != fingerprint({**CONFIG, "width": 4}, tensors)
    assert digest != fingerprint(CONFIG, {**tensors, "steps": torch.tensor(8)})
    assert digest != fingerprint(CONFIG, {**tensors, "linear.weight": tensors["linear.weight"] + 1e-3})
    assert digest != fingerprint(CONFIG, {**tensors, "linear.weight": tensors["linear.weight"].reshape(3, 2)})


def test_a_fingerprint_survives_fp16_only_if_the_values_do() -> None:
    exact = {"a": torch.tensor([0.5, -2.0, 3.25])}
    assert fingerprint({}, exact) == fingerprint({}, {"a": exact["a"].half()})
    rounded = {"a": torch.tensor([0.1])}
    assert fingerprint({}, rounded) != fingerprint({}, {"a": rounded["a"].half()})


def test_a_fingerprint_is_the_same_forever() -> None:
    tensors = {
        "table": torch.arange(1000.0).reshape(10, 100),
        "steps": torch.tensor([3]),
        "none": torch.zeros(0),
    }
    known = "38ed6fa2f41af6f4c1cfe56018867e5f11326a09c1698e8ce0e4493ea2d15f8e"
    assert fingerprint({"tokenizer_type": "toy", "sizes": [1, 2]}, tensors) == known


def test_an_error_survives_pickling() -> None:
    error = CheckpointError("no such file", source="me/toy", revision="abc", file="x", remedy="look again")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.file) == (str(error), "x")
    assert str(error) == "me/toy@abc, file x: no such file; look again"
