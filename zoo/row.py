"""One tokenizer of the catalogue, as data."""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Facts


@dataclass(frozen=True)
class Row:
    """One tokenizer of the catalogue.

    facts      all but identity; tests/test_catalogue.py compares them with the model's own
    family     key of FAMILIES
    config     file in configs/ that holds the model's configuration, or None when it needs none
    repo       Hub id of the official weights
    download   where they are published, when not on the Hub; `tokenzoo convert FILE --like NAME` reads them
    file       weights file there; a pickle is read once with weights_only and cached as safetensors; so is
               an `.onnx`, without the onnx package
    part       dotted keys that lead to the weights in a pickle that holds more; "" if it holds nothing else
    allowed    names of the classes that a pickle holds beside the weights; none is imported
    converter  key of CONVERTERS when the layout is not ours
    bundled    folder in checkpoints/bundled/ when the weights ship with the package
    notice     what a user must know of the licence, shown on load
    paper      arXiv number
    """

    facts: Facts
    family: str
    config: str | None = None
    repo: str | None = None
    download: str | None = None
    file: str = "model.safetensors"
    part: str | None = None
    allowed: tuple[str, ...] = ()
    converter: str | None = None
    bundled: str | None = None
    notice: str | None = None
    paper: str | None = None

    @property
    def name(self) -> str:
        return self.facts.name
