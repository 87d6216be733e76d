"""Pictures to train on: arrays, folders, what is held out, and what cannot be read."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from tokenzoo.image.pictures import (
    ArrayPictures,
    find_pictures,
    open_array,
    open_pictures,
    source_labels,
)
from tokenzoo.image.preprocess import ImagePreprocess, ImageReadError
from tokenzoo.zoo.held_out import held_out

EIGHT = ImagePreprocess(size=8)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def gradient(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: every pixel says where it is."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, one in a subfolder, a text file, and one that is no picture at all."""
    root = tmp_path / "photographs"
    (root / "deeper").mkdir(parents=True)
    for name, size in (("a.png", (8, 8)), ("b.png", (20, 10)), ("c.jpg", (9, 30)), ("deeper/d.png", (8, 8))):
        Image.fromarray(gradient(size[1], size[0])).save(root / name)
    (root / "notes.txt").write_text("no picture")
    (root / "broken.png").write_bytes(b"not a png")
    return root


def save_array(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_array_rows_are_the_bytes_of_the_file(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    pictures = open_pictures(save_array(tmp_path / "x.npy", array), np.array([4, 1]), EIGHT)
    read = pictures.read([1, 0], None)
    assert len(pictures) == 2 and read.dtype == torch.uint8 and read.is_contiguous()
    assert np.array_equal(read.permute(0, 2, 3, 1).numpy(), array[[1, 4]])


def test_larger_rows_are_cut_anywhere_and_in_the_centre(tmp_path: Path) -> None:
    path = save_array(tmp_path / "x.npy", gradient(12, 10)[None])
    pictures = ArrayPictures(path, np.arange(1), 8, flip=False)
    centre = pictures.read([0], None)[0]
    assert (int(centre[0, 0, 0]), int(centre[1, 0, 0])) == (2, 1)
    corners = {tuple(pictures.read([0], generator(seed))[0, :2, 0, 0].tolist()) for seed in range(40)}
    assert {top for top, _ in corners} == set(range(5)) and {left for _, left in corners} == set(range(3))
    with pytest.raises(ValueError, match="holds images of 12 x 10: expected at least 16 x 16"):
        ArrayPictures(path, np.arange(1), 16, flip=False)


def test_half_are_mirrored(tmp_path: Path) -> None:
    path = save_array(tmp_path / "x.npy", np.repeat(gradient(8, 8)[None], 64, axis=0))
    original = torch.from_numpy(gradient(8, 8)).permute(2, 0, 1)
    read = ArrayPictures(path, np.arange(64), 8, flip=True).read(range(64), generator())
    mirrored = [torch.equal(image, original.flip(-1)) for image in read]
    assert 20 < sum(mirrored) < 44
    assert all(flipped or torch.equal(image, original) for image, flipped in zip(read, mirrored, strict=True))


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds float64 \(2, 8, 8, 3\): expected uint8 \(N, H, W, 3\)"):
        open_array(save_array(tmp_path / "x.npy", np.zeros((2, 8, 8, 3))))
    (tmp_path / "y.npy").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"is not a readable \.npy file"):
        open_array(tmp_path / "y.npy")
    path = save_array(tmp_path / "z.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="takes pictures of any size; train it on a folder"):
        open_pictures(path, None, ImagePreprocess(size=None))


def test_files_are_found_and_sized_as_the_tokenizer_sizes_them(folder: Path) -> None:
    names = [path.name for path in find_pictures(folder)]
    assert names == ["a.png", "b.png", "broken.png", "c.jpg", "d.png"]
    pictures = open_pictures(folder, np.array([1]), EIGHT)
    expected = EIGHT(folder / "b.png").mul(255).round().to(torch.uint8)
    assert torch.equal(pictures.read([0], None)[0], expected)
    with pytest.raises(ValueError, match=r"no such folder; expected a folder of pictures or a \.npy file"):
        find_pictures(folder / "elsewhere")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        find_pictures(folder / "empty")


def test_random_cuts_stay_inside_and_repeat_with_the_seed(folder: Path) -> None:
    pictures = open_pictures(folder, np.array([1]), EIGHT, crop=0.5)

    def cut(seed: int) -> Tensor:
        return pictures.read([0], generator(seed))[0]

    assert torch.equal(cut(0), cut(0)) and not torch.equal(cut(0), cut(1))
    spans = {int(cut(seed)[1].max()) - int(cut(seed)[1].min()) for seed in range(30)}
    assert 3 <= min(spans) <= 5 and 8 <= max(spans) <= 9, "a square spans half to all of ten pixels"


def test_a_broken_file_is_reported_once_and_replaced(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = open_pictures(folder, None, EIGHT)
    with caplog.at_level(logging.WARNING, "tokenzoo"):
        read = pictures.read([2, 2, 0], generator())
        again = pictures.read([2, 2, 0], generator())
        assert pictures.read([2], None).shape == (1, 3, 8, 8)
    assert read.shape == (3, 3, 8, 8) and torch.equal(read, again)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"skipped: {folder / 'broken.png'}: not a picture of a known format"
    )


def test_nothing_but_broken_files_is_an_error(folder: Path) -> None:
    with pytest.raises(ImageReadError, match="none of 1 pictures can be read"):
        open_pictures(folder, np.array([2]), EIGHT).read([0], generator())


def test_cuts_of_one_photograph_stay_on_one_side(tmp_path: Path) -> None:
    path = save_array(tmp_path / "x.npy", np.zeros((40, 8, 8, 3), np.uint8))
    assert held_out(source_labels(path), 0.1).nonzero()[0].tolist() == [36, 37, 38, 39]
    np.save(tmp_path / "x.sources.npy", np.arange(40) // 5)
    held = held_out(source_labels(path), 0.2)
    assert held.sum() == 10 and set(held.reshape(8, 5).sum(1)) == {0, 5}
    np.save(tmp_path / "x.sources.npy", np.arange(39))
    with pytest.raises(ValueError, match=r"names 39 sources: .* has 40 rows"):
        source_labels(path)


def test_what_is_held_out_does_not_depend_on_the_order(folder: Path) -> None:
    labels = source_labels(folder)
    assert "deeper/d.png" in labels
    held = {label for label, is_held in zip(labels, held_out(labels, 0.4), strict=True) if is_held}
    backwards = labels[::-1]
    again = {label for label, is_held in zip(backwards, held_out(backwards, 0.4), strict=True) if is_held}
    assert held == again and len(held) == 2
    assert not held_out(labels, 0.0).any()


def test_the_data_module_sizes_for_the_module_that_is_trained(folder: Path) -> None:
    from tokenzoo.image.data import ImageFolderData

    data = ImageFolderData(str(folder), validation_share=0.2, batch_size=2)
    with pytest.raises(RuntimeError, match=r"pass the data to Trainer\.fit"):
        data.setup("fit")
    data.trainer = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        lightning_module=SimpleNamespace(preprocess=EIGHT), global_rank=0, world_size=1, limit_val_batches=1.0
    )
    data.setup("fit")
    assert next(iter(data.train_dataloader())).shape == (2, 3, 8, 8)
    assert next(iter(data.val_dataloader())).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"validation_share=1\.0"):
        ImageFolderData(str(folder), validation_share=1.0)
    with pytest.raises(ValueError, match=r"crop=0\.0"):
        ImageFolderData(str(folder), crop=0.0)
    with pytest.raises(ValueError, match="batch_size=0"):
        ImageFolderData(str(folder), batch_size=0)
