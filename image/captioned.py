"""Pictures that come with texts: a batch of both, and the files the texts are read from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CAPTION_FILE = "captions.json"


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """A batch for tokenizers that take captions.

    images    (B, 3, H, W), uint8 or float in [0, 1]
    captions  one text an image
    """

    images: Tensor
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise ValueError(f"{len(self.captions)} captions for {len(self.images)} images: give one each")

    def __len__(self) -> int:
        return len(self.captions)

    def to(self, device: torch.device, non_blocking: bool = False) -> CaptionedImages:
        """Lightning moves by this what is no tensor."""
        return CaptionedImages(self.images.to(device, non_blocking=non_blocking), self.captions)


def read_captions(path: Path, labels: Sequence[str]) -> list[str]:
    """The texts of the pictures of a folder or a `.npy` file, in the order of `labels`.

    labels  paths of the pictures in the folder, as `source_labels` gives them

    A folder has `captions.json`, an object of texts by path, or beside every `x.png` a file `x.txt` in UTF-8;
    `x.npy` has `x.captions.json`, a list. ValueError names what has no text.
    """
    if path.suffix == ".npy":
        found = _json(path.with_suffix(".captions.json"), list)
        if len(found) != len(labels) or not all(isinstance(text, str) for text in found):
            raise ValueError(
                f"{path.with_suffix('.captions.json')} holds {len(found)} entries: expected {len(labels)} "
                f"texts, one a row of {path.name}"
            )
        return found
    listed = path / CAPTION_FILE
    texts: dict[str, str] = _json(listed, dict) if listed.is_file() else {}
    missing = [name for name in labels if name not in texts and not _beside(path / name).is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(labels)} pictures have no caption, {missing[0]} first: write "
            f"{_beside(path / missing[0])}, or an entry in {listed}; an empty text is one"
        )
    return [
        texts[name] if name in texts else _beside(path / name).read_text(encoding="utf-8").strip()
        for name in labels
    ]


def _beside(picture: Path) -> Path:
    return picture.with_suffix(".txt")


def _json(path: Path, kind: type) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no readable file of captions ({error})") from error
    if not isinstance(found, kind):
        raise ValueError(f"{path} holds a {type(found).__name__}: expected a {kind.__name__} of texts")
    return found
