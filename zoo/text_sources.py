"""Where text tokenizers lie: in plain files, without weights, so that they open without torch."""

from __future__ import annotations

import importlib
import os
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from .catalogue import Row

_BUNDLED = Path(str(package_files(__name__.partition(".")[0]))) / "checkpoints" / "bundled"


def open_text(name: str | os.PathLike[str], revision: str | None, row: Row | None) -> Any:
    """The text tokenizer of a catalogue row, a file, a folder or a Hub id; None when `name` is another thing.

    row  the catalogue's, when `name` is a name of it
    """
    if row is not None:
        if row.bundled is None or row.facts.modality != "text":
            return None
        if revision is not None:
            raise ValueError(f"{row.name} ships with the package and has no revision; leave revision out")
        return _opener().open_folder(_BUNDLED / row.bundled, source=row.name)
    try:
        path = Path(name).expanduser()
        is_file, is_here = path.is_file(), path.exists()
    except (OSError, RuntimeError):  # no path at all: whoever looks next will say so
        return None
    if is_here and revision is None:
        return _opener().open_file(path) if is_file else _opener().open_folder(path)
    if is_here:
        return None
    if not isinstance(name, str) or name.startswith((".", "/", "~")) or "\\" in name or "/" not in name:
        return None
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Any:
    """Of a repository of ours, or of others with a tokenizer.json; weights stay where they are."""
    from ..checkpoints.files import read_config
    from ..checkpoints.hub import FileNotInRepo, fetch, parse_id, resolve

    hub_id = parse_id(name, revision)
    sha = resolve(hub_id.repo, hub_id.revision)
    try:
        config = read_config(fetch(hub_id.repo, sha, ["config.json"])[0], source=hub_id.repo, revision=sha)
    except FileNotInRepo:
        config = {}
    file = _opener().file_of(config.get("tokenizer_type"))
    if file is None:
        return None
    try:
        (path,) = fetch(hub_id.repo, sha, [file])
    except FileNotInRepo:
        return None
    tokenizer = _opener().open_folder(path.parent, source=f"{hub_id.repo}@{sha}")
    if tokenizer is not None:
        tokenizer.provenance = f"{hub_id.repo}@{sha}"
    return tokenizer


def _opener() -> Any:
    return importlib.import_module("..text.open_text", __package__)
