"""The Hub: the real client against a stand-in; one sha a load, one error for whatever goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokenzoo.checkpoints import hub as client
from tokenzoo.checkpoints.card import model_card, pinned_revision
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.files import write_folder
from tokenzoo.checkpoints.hub import fetch, parse_id, push, read_repo, resolve

from .hub_server import HubServer

CONFIG = {"tokenizer_type": "toy", "format_version": 1}
NOWHERE = "http://127.0.0.1:9"

# The client's own doing, on every upload.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def tensors(value: float = 1.0) -> dict[str, Tensor]:
    return {"codebook": torch.full((4, 2), value)}


def checkpoint_files(folder: Path, value: float = 1.0) -> dict[str, bytes]:
    """What a repository with one toy checkpoint holds."""
    write_folder(folder, {**CONFIG, "value": value}, tensors(value), "# Toy\n")
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    card = model_card({"name": "toy", "modality": "image", "licence": "mit"})
    return write_folder(tmp_path / "toy", CONFIG, tensors(), card)


def test_push_creates_and_uploads_and_the_card_names_the_commit(hub: HubServer, folder: Path) -> None:
    (folder / "secrets.env").write_text("TOKEN=1")
    sha = push(folder, "me/toy", message="First")
    assert sorted(hub.files("me/toy")) == ["README.md", "config.json", "model.safetensors"]
    assert hub.repositories["me/toy"].branches["main"] == sha
    assert hub.files("me/toy", sha)["config.json"] == (folder / "config.json").read_bytes()
    card = hub.files("me/toy")["README.md"].decode()
    named = pinned_revision(card, "me/toy")
    assert f'tokenizer = tokenzoo.load("me/toy@{named}")\n' in card and "@main" not in card
    assert sorted(hub.files("me/toy", named)) == ["config.json", "model.safetensors"]
    assert hub.asked("POST", "/commit/") == 2
    for revision in (sha, named):
        assert torch.equal(read_repo("me/toy", revision).tensors["codebook"], tensors()["codebook"])


def test_an_identical_push_makes_no_commit(hub: HubServer, folder: Path) -> None:
    first = push(folder, "me/toy")
    assert push(folder, "me/toy") == first
    assert hub.asked("POST", "/commit/") == 2
    write_folder(folder, {**CONFIG, "width": 2}, tensors(), (folder / "README.md").read_text())
    second = push(folder, "me/toy")
    assert second != first and push(folder, "me/toy") == second
    assert hub.asked("POST", "/commit/") == 4
    named = [
        pinned_revision(hub.files("me/toy", sha)["README.md"].decode(), "me/toy") for sha in (first, second)
    ]
    assert json.loads(hub.files("me/toy", named[0])["config.json"]) == CONFIG
    assert json.loads(hub.files("me/toy", named[1])["config.json"]) == {**CONFIG, "width": 2}


def test_a_card_alone_is_pushed_alone(hub: HubServer, folder: Path) -> None:
    first = push(folder, "me/toy")
    card = folder / "README.md"
    card.write_text(card.read_text() + "More words.\n")
    push(folder, "me/toy")
    assert hub.asked("POST", "/commit/") == 3
    told = hub.files("me/toy")["README.md"].decode()
    assert "More words." in told and pinned_revision(told, "me/toy") == first


def test_a_broken_folder_is_not_pushed(hub: HubServer, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        push(folder, "me/toy")
    with pytest.raises(CheckpointError, match="leave @revision out"):
        push(folder, "me/toy@main")
    assert hub.requests == []


def test_pull_by_branch_and_by_sha(hub: HubServer, tmp_path: Path) -> None:
    old = hub.commit("me/toy", checkpoint_files(tmp_path / "a", 1.0))
    new = hub.commit("me/toy", checkpoint_files(tmp_path / "b", 2.0))
    hub.commit("me/toy", checkpoint_files(tmp_path / "c", 3.0), branch="v3")
    for revision, sha, value in ((None, new, 2.0), ("main", new, 2.0), (old, old, 1.0), ("v3", None, 3.0)):
        checkpoint = read_repo("me/toy", revision)
        assert torch.equal(checkpoint.tensors["codebook"], tensors(value)["codebook"])
        assert checkpoint.config["value"] == value
        assert checkpoint.source == "me/toy"
        assert sha is None or checkpoint.revision == sha


def test_a_pinned_load_of_cached_files_asks_nothing(hub: HubServer, tmp_path: Path) -> None:
    sha = hub.commit("me/toy", checkpoint_files(tmp_path / "a"))
    read_repo("me/toy", sha)
    hub.requests.clear()
    read_repo("me/toy", sha)
    assert hub.requests == []


def test_a_push_between_two_downloads_does_not_mix_revisions(hub: HubServer, tmp_path: Path) -> None:
    old = hub.commit("me/toy", checkpoint_files(tmp_path / "a", 1.0))
    newer = checkpoint_files(tmp_path / "b", 2.0)

    def someone_pushes(method: str, path: str) -> None:
        if method == "GET" and path.endswith("/config.json"):
            hub.commit("me/toy", newer)

    hub.on_answer = someone_pushes
    checkpoint = read_repo("me/toy")
    assert hub.repositories["me/toy"].branches["main"] != old
    assert (checkpoint.revision, checkpoint.config["value"]) == (old, 1.0)
    assert torch.equal(checkpoint.tensors["codebook"], tensors(1.0)["codebook"])
    assert hub.asked("GET", "/api/models/") == 1


def test_offline_after_caching(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    sha = hub.commit("me/toy", checkpoint_files(tmp_path / "a"))
    read_repo("me/toy")
    hub.requests.clear()
    assert read_repo("me/toy", local_files_only=True).revision == sha
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision in (None, "main", sha):
        assert read_repo("me/toy", revision).revision == sha
    for revision in ("v2", "0" * 40):
        with pytest.raises(CheckpointError, match=r"not in the cache.*load it once online") as caught:
            read_repo("me/toy", revision)
        assert (caught.value.source, caught.value.revision) == ("me/toy", revision)
    with pytest.raises(CheckpointError, match="not in the cache"):
        push(tmp_path / "a", "me/toy")
    assert hub.requests == []


def test_offline_by_environment_in_a_new_process(hub: HubServer, tmp_path: Path) -> None:
    sha = hub.commit("me/toy", checkpoint_files(tmp_path / "a"))
    read_repo("me/toy")
    program = "from tokenzoo.checkpoints.hub import read_repo; print(read_repo('me/toy').revision)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub-cache")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == sha


def test_an_unreachable_hub_falls_back_on_the_cache(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.commit("me/toy", checkpoint_files(tmp_path / "a"))
    read_repo("me/toy")
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    with pytest.warns(UserWarning, match=f"did not deliver.*using the copy cached at {sha}"):
        assert read_repo("me/toy").revision == sha
    with pytest.raises(CheckpointError, match=r"did not deliver.*HF_ENDPOINT") as caught:
        read_repo("me/other")
    assert caught.value.source == "me/other"
    assert caught.value.__cause__ is not None


def test_a_full_disk_is_not_blamed_on_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import file_download

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    hub.commit("me/toy", checkpoint_files(tmp_path / "a"))
    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(CheckpointError, match=r"could not be kept on this disk .*free some space") as caught:
        read_repo("me/toy")
    assert caught.value.file == "config.json"


def _gate(hub: HubServer) -> None:
    hub.repositories["me/toy"].is_gated = True


def _drop(name: str):
    def change(hub: HubServer) -> None:
        repository = hub.repositories["me/toy"]
        repository.commit({key: value for key, value in hub.files("me/toy").items() if key != name})

    return change


def _put(name: str, content: bytes):
    return lambda hub: hub.commit("me/toy", {name: content})


@pytest.mark.parametrize(
    ("repo", "revision", "change", "file", "words"),
    [
        ("me/nope", None, None, None, "no such repository, or it is private.*hf auth login"),
        ("me/toy", "v9", None, None, "no such revision.*commits/main"),
        ("me/toy", "f" * 40, None, "config.json", "no such revision"),
        ("me/toy", None, _gate, "config.json", "access must be granted first.*accept its terms"),
        ("me/toy", None, _drop("config.json"), "config.json", "no such file in the repository"),
        (
            "me/toy",
            None,
            _drop("model.safetensors"),
            "model.safetensors",
            "no such file; a checkpoint needs it",
        ),
        ("me/toy", None, _put("config.json", b"{"), "config.json", "not valid JSON"),
        (
            "me/toy",
            None,
            _put("model.safetensors", b"\xff" * 99),
            "model.safetensors",
            "corrupt or truncated",
        ),
    ],
    ids=["repo", "branch", "sha", "gated", "no-config", "no-weights", "bad-config", "bad-weights"],
)
def test_what_goes_wrong_is_named(hub, tmp_path, repo, revision, change, file, words) -> None:
    hub.commit("me/toy", checkpoint_files(tmp_path / "a"))
    if change is not None:
        change(hub)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_repo(repo, revision)
    assert caught.value.source == repo
    assert caught.value.file == file
    assert caught.value.revision is not None
    assert str(caught.value).startswith(f"{repo}@{caught.value.revision}")
    if change is None or file is None or "no such file" in words:
        assert caught.value.__cause__ is not None


def test_a_missing_config_costs_no_weights(hub: HubServer, tmp_path: Path) -> None:
    hub.commit("me/toy", checkpoint_files(tmp_path / "a"))
    _drop("config.json")(hub)
    with pytest.raises(CheckpointError):
        read_repo("me/toy")
    assert hub.asked("GET", "model.safetensors") == 0


def test_a_repository_with_only_a_pickle_is_refused_unread(hub: HubServer) -> None:
    hub.commit("me/toy", {"config.json": b"{}", "pytorch_model.bin": b"cos\nsystem\n"})
    with pytest.raises(CheckpointError, match=r"only pickled weights \(pytorch_model\.bin\)") as caught:
        read_repo("me/toy")
    assert caught.value.file == "model.safetensors"
    assert hub.asked("GET", "pytorch_model.bin") == 0


def test_a_refused_push_is_explained(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    with pytest.raises(CheckpointError, match="did not deliver"):
        push(folder, "me/toy")


def test_extra_files_and_several_at_once(hub: HubServer, tmp_path: Path) -> None:
    sha = hub.commit("me/toy", {**checkpoint_files(tmp_path / "a"), "tokenizer.json": b"{}"})
    checkpoint = read_repo("me/toy", extra_files=["tokenizer.json"])
    assert (checkpoint.folder / "tokenizer.json").read_bytes() == b"{}"
    first, second = fetch("me/toy", sha, ["README.md", "config.json"])
    assert first.read_text() == "# Toy\n"
    assert json.loads(second.read_text())["tokenizer_type"] == "toy"
    assert resolve("me/toy") == sha


def test_weights_may_lie_in_a_folder_of_the_repository(hub: HubServer, tmp_path: Path) -> None:
    files = checkpoint_files(tmp_path / "a")
    sha = hub.commit(
        "me/toy", {"config.json": files["config.json"], "weights/a.safetensors": files["model.safetensors"]}
    )
    checkpoint = read_repo("me/toy", weights="weights/a.safetensors")
    assert checkpoint.file == "weights/a.safetensors"
    assert (checkpoint.folder.name, list(checkpoint.tensors)) == (sha, ["codebook"])


def test_ids_are_parsed() -> None:
    assert parse_id("me/toy") == client.HubId("me/toy", None)
    assert parse_id("me/toy@v1.0") == client.HubId("me/toy", "v1.0")
    assert parse_id("me/toy@refs/pr/1", "refs/pr/1") == client.HubId("me/toy", "refs/pr/1")
    for text in (
        "toy",
        "me/",
        "/toy",
        "me/to y",
        "a/b/c",
        "me/" + "x" * 100,
        "https://huggingface.co/me/toy",
    ):
        with pytest.raises(CheckpointError, match="write owner/name"):
            parse_id(text)
    for revision in ("../../x", "", "a b", "/x", "-x"):
        with pytest.raises(CheckpointError, match="give a branch, a tag or a commit sha"):
            parse_id("me/toy", revision)
    with pytest.raises(CheckpointError, match="two revisions, 'a' and 'b'"):
        parse_id("me/toy@a", "b")


def test_importing_the_client_is_put_off() -> None:
    program = "import sys, tokenzoo.checkpoints.hub; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_card_tells_facts_use_licence_and_provenance() -> None:
    facts = {
        "name": "toy",
        "modality": "audio",
        "licence": "mit",
        "codebook_sizes": (4096, 4096),
        "is_causal": True,
    }
    card = model_card(facts, provenance=f"me/toy@{'a' * 40}", repo="you/toy", revision="b" * 40)
    front = card.split("---")[1]
    assert "library_name: tokenzoo\nlicense: mit\n" in front
    assert 'base_model: "me/toy"' in front
    assert '- "audio-tokenization"' in front
    assert "| Codebook sizes | 2 x 4096 |" in card
    assert "| Causal | yes |" in card
    assert f'tokenzoo.load("you/toy@{"b" * 40}")' in card


def test_a_card_is_escaped_and_bounded() -> None:
    hostile = "x|y\n---\n<script>`" + "z" * 5000
    card = model_card(
        {"name": hostile, "modality": hostile}, licence=hostile, provenance=hostile, tags=[hostile] * 99
    )
    assert "<script>" not in card
    assert len(card) < 4000
    assert card.count("\n---\n") == 1
    assert 'license: other\nlicense_name: "x-y-script-zzz' in card
    assert "x\\|y" in card
