"""Measured model cards: the table, what the Hub reads of it, the gallery, and the way there."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
from huggingface_hub import ModelCard
from PIL import Image

import tokenzoo
from tokenzoo.audio.judge import MEASURES, SpeechJudge
from tokenzoo.checkpoints.card import pinned_revision
from tokenzoo.checkpoints.card_measures import add_measures, measured_card
from tokenzoo.zoo.cli import main
from tokenzoo.zoo.evaluation import evaluate
from tokenzoo.zoo.gallery import MAX_BYTES, Gallery, draw_gallery
from tokenzoo.zoo.measured import Measured

from .hub_server import HubServer
from .test_measured import measured
from .toys import build_toy

pytestmark = [
    pytest.mark.usefixtures("one_thread", "toy_families"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # the client's own doing
]
SAMPLES = Path(tokenzoo.__file__).parent / "image" / "samples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved codec."""
    build_toy("toy-codec").save_pretrained(tmp_path / "toy")
    return tmp_path / "toy"


def figures_of(folder: Path) -> Measured:
    """Those of `measured`, as if taken of these weights."""
    return replace(measured(), fingerprint=tokenzoo.load(folder).facts.fingerprint)


def test_the_hub_reads_the_figures(folder: Path) -> None:
    add_measures(folder, figures_of(folder))
    card = ModelCard.load(folder / "README.md")
    found = {result.metric_name: result for result in card.data.eval_results or []}
    assert list(found) == ["PSNR, dB", "distance", "PSNR, dB at 8 tokens", "distance at 8 tokens"]
    result = found["PSNR, dB"]
    assert (result.task_type, result.dataset_type, result.dataset_name) == (
        "image-to-image",
        "photos",
        "photos",
    )
    assert (result.metric_type, result.metric_value) == ("psnr", 25.7412)
    assert result.metric_args == {"bits_per_image": 4512.5, "items": 50, "interval": [25.1, 26.3]}
    assert card.data.library_name == "tokenzoo" and "audio-tokenization" in (card.data.tags or [])


def test_the_card_has_a_table_with_its_source(folder: Path) -> None:
    add_measures(folder, figures_of(folder))
    card = (folder / "README.md").read_text()
    assert r"| 376 | 4512 | 25.74 \[25.10, 26.30\] | 0.100 \[0.050, 0.150\] |" in card
    assert "Means over N = 50 (of some measures 49: the others could not be judged) of photos" in card
    assert (
        "Higher is better, but for distance. In eight bits. Measured by tokenzoo 0; data `dddddddddddd`"
        in card
    )
    assert card.index("## Measured") < card.index("## Licence") < card.index("## Provenance")
    assert Measured.load(folder / "measured.json") == figures_of(folder)


def test_new_figures_take_the_place_of_the_old(folder: Path) -> None:
    before = (folder / "README.md").read_text()
    add_measures(folder, figures_of(folder), Gallery({"gallery.png": b"png"}, "![here](gallery.png)"))
    assert "## Gallery\n\n![here](gallery.png)" in (folder / "README.md").read_text()
    assert (folder / "gallery.png").read_bytes() == b"png"
    once = measured_card(before, replace(figures_of(folder), items=60))
    add_measures(folder, replace(figures_of(folder), items=60))
    assert (folder / "README.md").read_text() == once and "Gallery" not in once
    own = once.replace("## Provenance", "My own words.\n\n## Provenance")
    assert "My own words." in measured_card(own, figures_of(folder))


def test_a_hostile_name_breaks_nothing(folder: Path) -> None:
    name = "x|y: [<script>] `# ---"
    add_measures(folder, replace(figures_of(folder), data=name, notes=name, tokenizer=name))
    card = (folder / "README.md").read_text()
    assert "<script>" not in card.split("---\n", 2)[2]
    results = ModelCard.load(folder / "README.md").data.eval_results or []
    assert results[0].dataset_name == name


def test_figures_of_other_weights_stay_off_the_card(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"these figures are of toy .*measure it again"):
        add_measures(folder, measured())
    assert not (folder / "measured.json").exists()


def test_a_folder_without_a_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(tokenzoo.CheckpointError, match="no model card"):
        add_measures(tmp_path, measured())


def test_photographs_there_and_back() -> None:
    gallery = draw_gallery(tokenzoo.load("pyramid-128"), (1, 4, 16, 64, 128))
    assert gallery is not None and list(gallery.files) == ["gallery.png"]
    with Image.open(io.BytesIO(gallery.files["gallery.png"])) as page:
        assert page.width == 8 + 5 * (256 + 8)  # the original, three lengths, all
    assert len(gallery.files["gallery.png"]) <= MAX_BYTES
    assert "(gallery.png)" in gallery.text and "public domain" in gallery.text


def test_a_large_sheet_gets_smaller(monkeypatch) -> None:
    import tokenzoo.image.gallery as module

    monkeypatch.setattr(module, "MAX_BYTES", 30_000)
    gallery = draw_gallery(tokenzoo.load("pyramid-128"), ())
    assert gallery is not None and 1000 < len(gallery.files["gallery.png"]) <= 30_000


def test_utterances_to_listen_to() -> None:
    gallery = draw_gallery(build_toy("toy-codec"), (1, 2))
    assert gallery is not None
    names = [
        f"gallery-{n}-{what}.flac"
        for n in (1, 2)
        for what in ("original", "1-codebook", "2-codebooks", "all")
    ]
    assert sorted(gallery.files) == sorted([*names, "gallery.png"])
    sound, rate_hz = soundfile.read(io.BytesIO(gallery.files["gallery-2-original.flac"]))
    assert (len(sound), rate_hz) == (47_840, 16_000)
    assert sum(map(len, gallery.files.values())) <= MAX_BYTES
    assert all(f"({name})" in gallery.text for name in gallery.files)
    assert draw_gallery(tokenzoo.load("bytes"), ()) is None


def test_pushed_with_figures(hub: HubServer, monkeypatch) -> None:
    monkeypatch.setattr(SpeechJudge, "_available", lambda self: MEASURES[1:3])
    tokenizer = build_toy("toy-codec")
    found = evaluate(tokenizer, Path(tokenzoo.__file__).parent / "audio" / "samples", keeps=[1], limit=1)
    sha = tokenizer.push_to_hub("me/toy", measured=found)
    files = hub.files("me/toy", sha)
    assert Measured.from_dict(json.loads(files["measured.json"])) == found
    assert {"gallery.png", "gallery-1-original.flac", "gallery-1-all.flac"} < set(files)
    card = files["README.md"].decode()
    assert (
        f"me/toy@{pinned_revision(card, 'me/toy')}" in card and "## Measured" in card and "## Gallery" in card
    )
    other = replace(found, fingerprint="0" * 64)
    loaded = tokenzoo.load("me/toy")
    with pytest.raises(ValueError, match="measure it again"):
        loaded.push_to_hub("me/toy", measured=other)
    assert tokenizer.push_to_hub("me/toy", measured=found) == sha


def test_the_command_measures_first(hub: HubServer, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "pyramid"
    tokenzoo.load("pyramid-128").save_pretrained(folder)
    assert main(["push", str(folder), "me/pyramid", "--measure", str(SAMPLES), "--limit", "2"]) == 0
    sha = capsys.readouterr().out.strip().removeprefix("me/pyramid@")
    found = Measured.from_dict(json.loads(hub.files("me/pyramid", sha)["measured.json"]))
    assert (found.items, found.keeps) == (2, (8, 32, 128))
    found.save(folder / "measured.json")  # what lies in the folder goes along
    assert main(["push", str(folder), "me/pyramid"]) == 0
    assert capsys.readouterr().out.strip() == f"me/pyramid@{sha}"


def test_the_page_of_the_docs_runs(hub: HubServer, checkout: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SAMPLES, "photographs")
    blocks = re.findall(r"```python\n(.*?)```", (checkout / "docs" / "model_cards.md").read_text(), re.S)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, "model_cards.md", "exec"), names)  # our own file, not a stranger's
    assert "## Gallery" in hub.files("me/my-tokenizer")["README.md"].decode()
