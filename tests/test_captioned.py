"""Pictures with texts: where the texts are read, how they travel, and that training resumes with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from tokenzoo.image.captioned import CaptionedImages, read_captions
from tokenzoo.image.data import ImageFolderData
from tokenzoo.image.pictures import open_pictures, source_labels
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.training import ImageTraining
from tokenzoo.zoo.batches import Batches

from .test_training import assert_same, new_trainer, weights_of
from .toys import build_toy

# Lightning 2.6 asks torch's trees in a way that torch 2.14 calls old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.usefixtures("one_thread", "toy_families"),
]
COLOURS = {
    "a/red.png": (200, 0, 0),
    "b/green.png": (0, 200, 0),
    "blue.png": (0, 0, 200),
    "grey.png": (9, 9, 9),
}
SIXTEEN = ImagePreprocess(size=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of one colour, each with the name of its file as its text, beside it or in the list."""
    root = tmp_path / "pictures"
    for name, colour in COLOURS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), colour).save(path)
        if name.startswith(("a", "b/")):
            path.with_suffix(".txt").write_text(f"{path.stem}\n", encoding="utf-8")
    (root / "captions.json").write_text(json.dumps({"blue.png": "blue", "grey.png": ""}))
    return root


def test_texts_lie_beside_the_pictures_or_in_a_list(folder: Path) -> None:
    labels = source_labels(folder)
    assert dict(zip(labels, read_captions(folder, labels), strict=True)) == {
        "a/red.png": "red",
        "b/green.png": "green",
        "blue.png": "blue",
        "grey.png": "",
    }
    (folder / "a" / "red.txt").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 4 pictures have no caption, a/red\.png first: write .*red\.txt"
    ):
        read_captions(folder, labels)
    (folder / "captions.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"captions\.json holds a list: expected a dict of texts"):
        read_captions(folder, labels)


def test_rows_of_an_array_have_a_list(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((3, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"x\.captions\.json is no readable file of captions"):
        read_captions(path, [""] * 3)
    (tmp_path / "x.captions.json").write_text(json.dumps(["a", "b", "c"]))
    pictures = open_pictures(path, np.array([2, 0]), SIXTEEN, captions=True)
    assert pictures.read([0, 1], None).captions == ("c", "a")
    (tmp_path / "x.captions.json").write_text(json.dumps(["a", 1, "c"]))
    with pytest.raises(ValueError, match=r"holds 3 entries: expected 3 texts, one a row of x\.npy"):
        read_captions(path, [""] * 3)


def right(batch: CaptionedImages) -> list[bool]:
    """Whether each picture has its own text."""
    named = {Path(name).stem: colour for name, colour in COLOURS.items()} | {"": COLOURS["grey.png"]}
    return [
        tuple(image[:, 0, 0].tolist()) == named[caption]
        for image, caption in zip(batch.images, batch.captions, strict=True)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_text_stays_with_its_picture(folder: Path, workers: int) -> None:
    pictures = open_pictures(folder, None, SIXTEEN, crop=0.5, flip=True, captions=True)
    for batch in Batches(pictures, 2, seed=0, num_workers=workers):
        assert isinstance(batch, CaptionedImages) and len(batch) == 2 and right(batch) == [True, True]
        moved = batch.to(torch.device("cpu"))
        assert torch.equal(moved.images, batch.images) and moved.captions == batch.captions
    with pytest.raises(ValueError, match="1 captions for 2 images: give one each"):
        CaptionedImages(torch.zeros(2, 3, 4, 4), ("a",))


def test_what_takes_the_place_of_a_broken_file_brings_its_own_text(folder: Path) -> None:
    (folder / "a" / "red.png").write_bytes(b"no picture")
    pictures = open_pictures(folder, None, SIXTEEN, captions=True)
    for seed in range(5):
        batch = pictures.read([0, 1], Generator().manual_seed(seed))
        assert right(batch) == [True, True] and "red" not in batch.captions


def train(steps: int, folder: Path, module: ImageTraining, **settings: Any) -> Any:
    data = ImageFolderData(str(folder), validation=str(folder), batch_size=2, captions=True)
    trainer = new_trainer(steps, **settings)
    trainer.fit(module, datamodule=data, ckpt_path=None)
    return trainer


@pytest.mark.parametrize("name", ["ta-titok", "textok"])
def test_captions_reach_the_tokenizer_in_training_and_validation(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build_toy(name).finetune(optimizer={"decay_steps": 9})
    told: list[tuple[str, ...]] = []
    caption_encoder = type(module.tokenizer.caption_encoder)
    forward = caption_encoder.forward

    def spy(self: Any, captions: Any, **place: Any) -> Any:
        told.append(tuple(captions))
        return forward(self, captions, **place)

    monkeypatch.setattr(caption_encoder, "forward", spy)
    settings = {"val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    trainer = train(2, folder, module, **settings)
    assert {len(captions) for captions in told} == {2}
    assert {caption for captions in told[:2] for caption in captions} == {"red", "green", "blue", ""}
    assert len(told) > 2 and "val/psnr" in trainer.callback_metrics


def test_training_with_captions_resumes_exactly(folder: Path, tmp_path: Path) -> None:
    def fresh() -> ImageTraining:
        return build_toy("textok").finetune(optimizer={"learning_rate": 1e-2, "decay_steps": 9})

    def data() -> ImageFolderData:
        return ImageFolderData(str(folder), validation_share=0.0, batch_size=1, captions=True)

    whole, resumed, file = fresh(), fresh(), tmp_path / "part.ckpt"
    new_trainer(5).fit(whole, datamodule=data())
    first = new_trainer(3)
    first.fit(fresh(), datamodule=data())
    first.save_checkpoint(file, weights_only=False)
    new_trainer(5).fit(resumed, datamodule=data(), ckpt_path=file, weights_only=True)
    assert_same(weights_of(whole), weights_of(resumed))


def test_a_tokenizer_without_captions_leaves_them_out(folder: Path) -> None:
    module = build_toy("llamagen").finetune()
    batch = CaptionedImages(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), ("a",))
    assert module.captions_of(batch) is None and module.signal_of(batch).dtype == torch.float32
    captioned = build_toy("textok").finetune()
    assert captioned.captions_of(batch) == ("a",) and captioned.captions_of(batch.images) is None
