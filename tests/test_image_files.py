"""Pictures on the command line: the page of `tokenzoo reconstruct` and the table that goes with it."""

import json
from pathlib import Path

import pytest
from PIL import Image

import tokenzoo
from tokenzoo.image import image_files
from tokenzoo.zoo import page
from tokenzoo.zoo.cli import main

CAT = Path(tokenzoo.__file__).parent / "image" / "samples" / "cat.jpg"


def copies(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        (folder / f"{index}.jpg").write_bytes(CAT.read_bytes())
    return folder


def test_many_pictures_go_in_batches_and_the_page_stays_small(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_files, "ITEMS_AT_ONCE", 2)
    monkeypatch.setattr(image_files, "PAGE_ROWS", 3)
    photographs, out = copies(tmp_path / "in", 5), tmp_path / "out"
    assert main(["reconstruct", str(photographs), "--out", str(out), "--keep", "8", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["item"], row["tokens"]) for row in rows] == [(str(i), n) for i in range(5) for n in (8, 376)]
    assert sorted(path.name for path in out.glob("*.tok")) == [f"{i}.tok" for i in range(5)]
    with Image.open(out / "side_by_side.png") as sheet:
        assert sheet.width == 8 + 3 * (256 + 8)
        assert sheet.height == 34 + 3 * (256 + 20) + 20


def test_the_page_shows_every_pixel_as_a_square(tmp_path, capsys):
    assert main(["reconstruct", str(CAT), "--out", str(tmp_path), "--keep", "8"]) == 0
    original = tokenzoo.load("pyramid-128").preprocess(CAT)
    with Image.open(tmp_path / "side_by_side.png") as sheet:
        shown = sheet.crop((8, 34, 8 + 256, 34 + 256)).resize((128, 128), Image.Resampling.NEAREST)
    assert shown.tobytes() == image_files.to_image(original).tobytes()


def test_a_long_caption_is_cut_to_the_width_of_its_picture():
    font = page.ImageFont.load_default(size=13)
    assert page._fitting("cat", font, 256) == "cat"
    cut = page._fitting("n" * 300, font, 256)
    assert cut.endswith("...") and 200 < font.getlength(cut) <= 256


def test_the_table_has_hundredths_of_a_decibel(tmp_path, capsys):
    assert main(["reconstruct", str(CAT), "--out", str(tmp_path), "--keep", "8"]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[:4] == ["cat", "8", "16", "0.008"]
    assert [len(cell.partition(".")[2]) for cell in line[4:]] == [2, 3]


def test_a_tok_file_tells_what_its_tokens_and_the_whole_take(tmp_path, capsys):
    assert main(["encode", str(CAT), "--out", str(tmp_path), "--keep", "64"]) == 0
    assert capsys.readouterr().out == "encoded 1 of 1 files, 64 to 64 tokens each\n"
    assert main(["info", str(tmp_path / "cat.tok"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["token_bytes"] == 128
    assert told["file_bytes"] == (tmp_path / "cat.tok").stat().st_size


@pytest.mark.parametrize("option", [["--batch-size", "2"], ["--set", "a=1"]])
def test_options_that_would_do_nothing_are_refused(option, capsys):
    assert main(["reconstruct", str(CAT), *option]) == 2
    assert option[0] in capsys.readouterr().err
