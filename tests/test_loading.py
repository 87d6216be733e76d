"""The whole way: save, push, and load by name, Hub id or folder, with the real client against a stand-in."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

import tokenzoo
from tokenzoo.checkpoints.card import pinned_revision
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.image.maskgit import PixelDecoderConfig
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.titok import TiTok, TiTokConfig
from tokenzoo.zoo import loading
from tokenzoo.zoo.transformer import TransformerSize

from .golden_titok import titok_config
from .hub_server import HubServer

# The client's own doing, on every upload.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

GOLDEN = Path(__file__).parent / "golden"
ONE_D_PIECE = "turing-motors/One-D-Piece-S-256"


@pytest.fixture
def titok() -> TiTok:
    """A TiTok small enough to save in no time."""
    torch.manual_seed(0)
    size = TransformerSize(width=16, layers=1, heads=2)
    pixels = PixelDecoderConfig(channels=32, multipliers=(1, 1), blocks=1, latent_dim=8)
    config = TiTokConfig(
        num_tokens=4,
        latent_dim=6,
        encoder=size,
        decoder=size,
        image_size=8,
        preprocess=ImagePreprocess(size=8),
        encoder_patch_size=2,
        decoder_patch_size=2,
        num_codes=16,
        pixel_codes=32,
        pixel_decoder=pixels,
        nested=True,
    )
    return TiTok(config).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def assert_same(one: tokenzoo.Tokenizer, other: tokenzoo.Tokenizer, images: Tensor) -> None:
    tokens = one.encode(images)
    assert torch.equal(tokens.ids, other.encode(images).ids)
    assert torch.equal(one.decode(tokens), other.decode(other.stamp(tokens.ids)))


def test_a_saved_tokenizer_is_the_same_one(titok: TiTok, images: Tensor, tmp_path: Path) -> None:
    titok.save_pretrained(tmp_path / "toy")
    loaded = tokenzoo.load(tmp_path / "toy")
    assert isinstance(loaded, TiTok)
    assert loaded.config == titok.config
    assert_same(titok, loaded, images)
    assert next(loaded.parameters()).dtype == torch.float32
    loaded.save_pretrained(tmp_path / "again")
    assert tokenzoo.load(tmp_path / "again").facts.fingerprint == loaded.facts.fingerprint
    assert loaded.decode(loaded.encode(images)).shape == images.shape


def test_pushed_and_pulled_by_branch_and_by_sha(hub: HubServer, titok: TiTok, images: Tensor) -> None:
    first = titok.push_to_hub("me/toy")
    assert titok.push_to_hub("me/toy") == first
    with torch.no_grad():
        for parameter in titok.parameters():
            parameter.mul_(-1)
    second = titok.push_to_hub("me/toy")
    pinned, newest = tokenzoo.load(f"me/toy@{first}"), tokenzoo.load("me/toy")
    assert (pinned.facts.revision, newest.facts.revision) == (first, second)
    assert pinned.facts.fingerprint != newest.facts.fingerprint
    assert_same(titok, newest, images)
    hub.requests.clear()
    assert tokenzoo.load("me/toy", revision=first).facts == pinned.facts
    assert hub.requests == []
    with pytest.raises(ValueError, match=r"another tokenizer|made by"):
        pinned.decode(newest.encode(images))


def test_a_card_comes_along(hub: HubServer, titok: TiTok) -> None:
    titok.push_to_hub("me/toy")
    card = hub.files("me/toy")["README.md"].decode()
    named = pinned_revision(card, "me/toy")
    assert tokenzoo.load(f"me/toy@{named}").facts.fingerprint == tokenzoo.load("me/toy").facts.fingerprint
    assert "| Tokens per item, at most | 4 |" in card
    assert "## Licence" in card


def test_the_bytes_tokenizer_saves_and_loads(tmp_path: Path) -> None:
    tokenizer = tokenzoo.load("bytes")
    tokenizer.save_pretrained(tmp_path / "bytes")
    loaded = tokenzoo.load(tmp_path / "bytes")
    assert loaded.decode(loaded.encode(["Grüße"])) == ["Grüße".encode()]


def _official(monkeypatch: pytest.MonkeyPatch, fixture: str) -> dict[str, Tensor]:
    """The official weights of a golden fixture, whose small sizes every catalogue row is given."""
    config = titok_config(json.loads((GOLDEN / fixture / "config.json").read_text()))
    monkeypatch.setattr(loading, "read_yaml", lambda _name: ("titok", config.to_dict()))
    return load_file(GOLDEN / fixture / "model.safetensors")


def test_an_official_repository_loads_under_its_id(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repo = "yucornetto/tokenizer_titok_s128_imagenet"
    weights = _official(monkeypatch, "titok-s2-a")
    sha = hub.commit(repo, {"model.safetensors": save(weights)})
    with caplog.at_level(logging.WARNING, "tokenzoo"):
        by_id, by_name = tokenzoo.load(repo), tokenzoo.load("titok-s128", revision=sha)
    assert by_id.facts == by_name.facts
    assert (by_id.facts.name, by_id.facts.revision) == ("titok-s128", sha)
    assert "titok-s128: licence of the weights: Apache-2.0 (the authors ask for research" in caplog.text
    images = load_file(GOLDEN / "titok-s2-a" / "inputs.safetensors")["images"]
    expected = load_file(GOLDEN / "titok-s2-a" / "expected.safetensors")["tokens"]
    assert torch.equal(by_id.encode(images).ids, expected.squeeze(1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("latent_tokens"), r"missing \(1\): .*latent_tokens"),
        (lambda t: t.update(logit_scale=torch.zeros(1)), r"unexpected \(1\): logit_scale"),
        (lambda t: t.update(latent_tokens=t["latent_tokens"][:-1]), r"wrong shape \(1\): .*latent_tokens is"),
    ],
    ids=["removed", "added", "reshaped"],
)
def test_an_official_layout_that_does_not_fit_is_named(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    repo = "yucornetto/tokenizer_titok_s128_imagenet"
    weights = _official(monkeypatch, "titok-s2-a")
    change(weights)
    sha = hub.commit(repo, {"model.safetensors": save(weights)})
    with pytest.raises(CheckpointError, match=words) as caught:
        tokenzoo.load("titok-s128")
    place = (caught.value.source, caught.value.revision, caught.value.file)
    assert place == (repo, sha, "model.safetensors")


@pytest.mark.parametrize("name", [ONE_D_PIECE, "one-d-piece-s-256", "me/toy"])
def test_two_revisions_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="two revisions, 'aaaa' and 'bbbb'; give it once"):
        tokenzoo.load(f"{name}@aaaa", revision="bbbb")


def test_an_official_pickle_is_read_once(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = _official(monkeypatch, "one-d-piece-a")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    hub.commit(ONE_D_PIECE, {"pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()})
    first = tokenzoo.load("one-d-piece-s-256")
    monkeypatch.setattr(torch, "load", None)
    again = tokenzoo.load(ONE_D_PIECE)
    assert again.facts == first.facts
    images = load_file(GOLDEN / "one-d-piece-a" / "inputs.safetensors")["images"]
    expected = load_file(GOLDEN / "one-d-piece-a" / "expected.safetensors")["tokens"]
    assert torch.equal(again.encode(images).ids, expected.squeeze(1))


def test_an_unnamed_pickle_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.commit("me/toy", {"config.json": b"{}", "pytorch_model.bin": b"cos\nsystem\n"})
    with pytest.raises(CheckpointError, match="only pickled weights"):
        tokenzoo.load("me/toy")
    shutil.copy(__file__, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="only pickled weights"):
        tokenzoo.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(tokenizer_type="nope"), "unknown tokenizer_type 'nope'"),
        (lambda c: c.update(tokenizer_type="os:system"), "unknown tokenizer_type 'os:system'"),
        (lambda c: c.update(format_version=99), "format_version 99"),
        (lambda c: c.pop("num_tokens"), "lacks num_tokens"),
        (lambda c: c.update(num_tokens=10**9), "num_tokens=1000000000"),
        (lambda c: c["encoder"].update(width=10**9), "width"),
        (lambda c: c.update(_target_="os.system"), "no field _target_"),
        (lambda c: c.pop("tokenizer_type"), "no known layout"),
        (lambda c: c.update(name="\x1b[2J"), "expected printable characters"),
    ],
    ids=["type", "class-path", "future", "missing", "range", "nested-range", "target", "untyped", "name"],
)
def test_a_config_that_cannot_be_right_is_named(
    titok: TiTok, tmp_path: Path, change: Callable[[dict], object], words: str
) -> None:
    titok.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words) as caught:
        tokenzoo.load(tmp_path)
    assert (caught.value.source, caught.value.file) == (str(tmp_path), "config.json")


def test_arguments_that_cannot_be_right_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x" * 5000, "/" + "x" * 5000, "~nobody-of-this-name/x"):
        with pytest.raises(tokenzoo.CheckpointError, match="check the path"):
            tokenzoo.load(name)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "photo.jpg").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tokenzoo.CheckpointError, match="that is a file"):
        tokenzoo.load("owner/photo.jpg")
    for dtype in ("float16", torch.int64):
        with pytest.raises(TypeError, match="expected a floating torch dtype"):
            tokenzoo.load("pyramid-128", dtype=dtype)
    for kind in ([], {}, 3, None):
        (tmp_path / "config.json").write_text(json.dumps({"tokenizer_type": kind, "format_version": 1}))
        save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(tokenzoo.CheckpointError, match="unknown tokenizer_type"):
            tokenzoo.load(tmp_path)


def test_a_name_nobody_knows_is_explained() -> None:
    with pytest.raises(
        ValueError, match=r"unknown tokenizer 'TiTok-L33'; did you mean titok-l32.*\? `tokenzoo list`"
    ):
        tokenzoo.load("TiTok-L33")
    with pytest.raises(ValueError, match="unknown tokenizer 'qqq'; `tokenzoo list` prints all names"):
        tokenzoo.load("qqq")
    with pytest.raises(CheckpointError, match="no such folder"):
        tokenzoo.load("./nope")


def test_the_card_tells_the_fingerprint_of_what_is_stored(tmp_path: Path):
    from tokenzoo.zoo.loading import save

    save(tokenzoo.load("pyramid-128"), tmp_path / "half", dtype=torch.bfloat16)
    loaded = tokenzoo.load(tmp_path / "half").facts.fingerprint
    assert loaded is not None and loaded != tokenzoo.load("pyramid-128").facts.fingerprint
    assert loaded in (tmp_path / "half" / "README.md").read_text()
