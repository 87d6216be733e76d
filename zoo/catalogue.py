"""The catalogue: every tokenizer that loads by name, as data. Importing it imports no torch.

To add one: its file, its class in FAMILIES and a row here, one yaml in configs/. CONTRIBUTING.md has the
steps, and tests/test_catalogue.py finds it by itself.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .facts import Facts

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

# tokenizer_type of a config.json -> where its class lives. A class path in a config is never followed.
FAMILIES = {
    "bytes": "text.bytes:ByteTokenizer",
    "pyramid": "image.pyramid:PyramidTokenizer",
    "titok": "image.titok:TiTok",
}

# Converters of official layouts: modules of `checkpoints` with recognise() and convert().
CONVERTERS = {"titok": "convert_titok"}

DEFAULT = {"image": "pyramid-128"}


@dataclass(frozen=True)
class Row:
    """One tokenizer of the catalogue.

    facts      all but identity; tests/test_catalogue.py compares them with the model's own
    family     key of FAMILIES
    config     file in configs/ that holds the model's configuration, or None when it needs none
    repo       Hub id of the official weights
    file       weights file there; a `.bin` is a pickle, read once with weights_only and cached as safetensors
    converter  key of CONVERTERS when the layout is not ours
    bundled    folder in checkpoints/bundled/ when the weights ship with the package
    notice     what a user must know of the licence, shown on load
    paper      arXiv number
    """

    facts: Facts
    family: str
    config: str | None = None
    repo: str | None = None
    file: str = "model.safetensors"
    converter: str | None = None
    bundled: str | None = None
    notice: str | None = None
    paper: str | None = None

    @property
    def name(self) -> str:
        return self.facts.name


def _titok(name: str, tokens: int, codebook: int | None, dim: int, repo: str) -> Row:
    return Row(
        facts=Facts(
            name=name,
            modality="image",
            licence="Apache-2.0",
            channels=3,
            max_tokens=tokens,
            codebook_sizes=() if codebook is None else (codebook,),
            latent_dim=dim,
            draws_noise=codebook is None,
        ),
        family="titok",
        config=f"{name.replace('-', '_')}.yaml",
        repo=f"yucornetto/tokenizer_titok_{repo}_imagenet",
        converter="titok",
        notice="the authors ask for research use only: bytedance/1d-tokenizer",
        paper="2406.07550",
    )


def _one_d_piece(size: str) -> Row:
    name = f"one-d-piece-{size}-256"
    return Row(
        facts=Facts(
            name=name,
            modality="image",
            licence="Apache-2.0",
            channels=3,
            max_tokens=256,
            codebook_sizes=(4096,),
            latent_dim=12,
            nested="tokens",
        ),
        family="titok",
        config=f"{name.replace('-', '_')}.yaml",
        repo=f"turing-motors/One-D-Piece-{size.upper()}-256",
        file="pytorch_model.bin",
        converter="titok",
        paper="2501.10064",
    )


_ROWS = (
    Row(
        facts=Facts(
            name="pyramid-128",
            modality="image",
            licence="Apache-2.0",
            channels=3,
            max_tokens=376,
            codebook_sizes=(65536,),
            nested="tokens",
        ),
        family="pyramid",
        bundled="pyramid-128",
    ),
    Row(
        facts=Facts(
            name="bytes",
            modality="text",
            licence="Apache-2.0",
            codebook_sizes=(256,),
            is_causal=True,
            is_lossless=True,
        ),
        family="bytes",
    ),
    _titok("titok-l32", 32, 4096, 12, "l32"),
    _titok("titok-b64", 64, 4096, 12, "b64"),
    _titok("titok-s128", 128, 4096, 12, "s128"),
    _titok("titok-bl64-vq8k", 64, 8192, 64, "bl64_vq8k"),
    _titok("titok-bl128-vq8k", 128, 8192, 64, "bl128_vq8k"),
    _titok("titok-sl256-vq8k", 256, 8192, 64, "sl256_vq8k"),
    _titok("titok-ll32-vae", 32, None, 16, "ll32_vae_c16"),
    _titok("titok-bl64-vae", 64, None, 16, "bl64_vae_c16"),
    _titok("titok-bl128-vae", 128, None, 16, "bl128_vae_c16"),
    *(_one_d_piece(size) for size in ("s", "b", "l")),
)
_BY_NAME = {row.name: row for row in _ROWS}
_BY_REPO = {row.repo.lower(): row for row in _ROWS if row.repo}


def names(modality: str | None = None) -> list[str]:
    """Names that `tokenzoo.load` takes, in the order of the catalogue."""
    return [row.name for row in _ROWS if modality in (None, row.facts.modality)]


def rows() -> tuple[Row, ...]:
    """The catalogue."""
    return _ROWS


def find(name: str) -> Row | None:
    """The row of a short name or of an official Hub id; None when there is none."""
    return _BY_NAME.get(name) or _BY_REPO.get(name.lower())


def family(tokenizer_type: str) -> type[Tokenizer]:
    """The class of a family; imports its module. ValueError for an unknown type."""
    if tokenizer_type not in FAMILIES:
        raise ValueError(f"unknown tokenizer_type {tokenizer_type!r}; known: {', '.join(FAMILIES)}")
    module, name = FAMILIES[tokenizer_type].split(":")
    return getattr(importlib.import_module(f"..{module}", __package__), name)


def converter(key: str):
    """The converter module of an official layout."""
    return importlib.import_module(f"..checkpoints.{CONVERTERS[key]}", __package__)
