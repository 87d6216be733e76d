"""A checkpoint as a folder on disk: config.json, model.safetensors, README.md."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from .error import CheckpointError, listed
from .onnx import Onnx, read_onnx
from .pickles import PICKLE_SUFFIXES, Pickle, read_pickle
from .weights import WEIGHTS_FILE, read_metadata, read_weights, write_weights

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
MAX_CONFIG_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a folder or repository holds, as plain values: no class has been chosen yet.

    config    the JSON object of config.json, {} where the layout has none
    tensors   by name, on the CPU, as stored
    source    the repository or folder, as errors should name it
    revision  sha of the commit, None for a folder
    folder    where the files lie
    file      the file the tensors came from
    metadata  free text in the header of the safetensors file (some authors keep the config there)
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    source: str
    revision: str | None
    folder: Path
    file: str
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def licence(self) -> str | None:
        """Licence of the weights, where the config states it."""
        return _text_or_none(self.config.get("licence"))

    @property
    def provenance(self) -> str | None:
        """Where the weights come from, where the config states it."""
        return _text_or_none(self.config.get("provenance"))


def find_folder(source: str | os.PathLike[str]) -> Path | None:
    """The folder that `source` names, or None if it must be the name of something else.

    Something that reads like a path ("./x", "/x", "~/x", "..", a backslash, more than one slash) and does not
    exist raises CheckpointError, so that a typing error is not looked up on the Hub.
    """
    text = os.fspath(source)
    try:
        path = Path(text).expanduser()
        if text and path.is_dir():
            return path
    except (OSError, RuntimeError) as error:  # a name too long, a "~user" that is nobody
        raise CheckpointError(str(error), source=text[:100], remedy="check the path") from error
    is_path = (
        not isinstance(source, str)
        or not text
        or text.startswith((".", "/", "~"))
        or "\\" in text
        or text.partition("@")[0].count("/") > 1
        or path.is_file()
    )
    if not is_path:
        return None
    reason = "that is a file" if path.is_file() else "no such folder"
    remedy = "give a folder with config.json in it, a name that `tokenzoo list` shows, or a Hub id owner/name"
    raise CheckpointError(reason, source=text, remedy=remedy)


def read_folder(
    folder: str | os.PathLike[str],
    *,
    source: str | None = None,
    revision: str | None = None,
    config_file: str | None = CONFIG_FILE,
    weights: str | Pickle | Onnx = WEIGHTS_FILE,
) -> Checkpoint:
    """Everything in a checkpoint folder; CheckpointError names the file that is missing, corrupt or refused.

    source, revision  what errors call it (a repository and its sha); by default the folder
    config_file       None for layouts that have none
    weights           the safetensors file, or the `Pickle` or `Onnx` that a catalogue row vouches for
    """
    path = Path(folder).expanduser()
    name = str(folder) if source is None else source
    if not path.is_dir():
        raise CheckpointError("no such folder", source=name, revision=revision, remedy="check the path")
    place = {"source": name, "revision": revision}
    config = {} if config_file is None else read_config(path / config_file, **place)
    metadata: dict[str, str] = {}
    if isinstance(weights, Pickle):
        file, tensors = weights.file, read_pickle(path / weights.file, weights, **place)
    elif isinstance(weights, Onnx):
        file, tensors = weights.file, read_onnx(path / weights.file, weights, **place)
    else:
        file = weights
        if not (path / file).is_file():
            raise missing_weights(file, [entry.name for entry in path.iterdir()], **place)
        tensors = read_weights(path / file, **place)
        metadata = read_metadata(path / file, **place)
    return Checkpoint(config, tensors, name, revision, path, file, metadata)


def read_config(path: Path, *, source: object = None, revision: str | None = None) -> dict[str, Any]:
    """The JSON object in a config file; CheckpointError if it is missing, too large, or no JSON object."""
    place = {"source": path.parent if source is None else source, "revision": revision, "file": path.name}
    if not path.is_file():
        raise CheckpointError(
            "no such file", **place, remedy="a checkpoint needs it: save or download it again"
        )
    size = path.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise CheckpointError(
            f"{size} bytes, expected at most {MAX_CONFIG_BYTES}", **place, remedy="this is no config"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(
            f"not valid JSON ({error})", **place, remedy="save or download it again"
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"holds a {type(config).__name__}, expected an object", **place, remedy="save it again"
        )
    return config


def missing_weights(
    file: str, present: Iterable[str], *, source: object = None, revision: str | None = None
) -> CheckpointError:
    """The error for a checkpoint without `file`, which says why it is refused if it holds pickles instead."""
    pickles = sorted(name for name in present if name.endswith(PICKLE_SUFFIXES))
    if not pickles:
        reason, remedy = "no such file", "a checkpoint needs it: save or download it again"
    else:
        reason = f"no such file, only pickled weights ({listed(pickles)}), which are not read unasked"
        remedy = "ask for safetensors; or, if you trust their author, convert them with pickles.read_pickle"
    return CheckpointError(reason, source=source, revision=revision, file=file, remedy=remedy)


def write_folder(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    readme: str,
    *,
    dtype: torch.dtype | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Save a checkpoint; whatever fails, the folder is left as it was. Returns the folder.

    dtype        what floats are stored as; None keeps theirs
    extra_files  more files by plain name, e.g. tokenizer.json

    Everything is written beside its destination first and then renamed. Files of these names are replaced,
    the README too; others in the folder are left alone.
    """
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise CheckpointError("that is a file", source=folder, remedy="give a folder")
    contents = {CONFIG_FILE: _json_bytes(config, folder), CARD_FILE: readme.encode(), **(extra_files or {})}
    odd = [name for name in contents if Path(name).name != name or name == WEIGHTS_FILE]
    if odd:
        raise CheckpointError(
            f"cannot write {listed(odd)}", source=folder, remedy="extra files need a plain name"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Inside the folder if there is one, since its parent may be another disk, or not ours to write.
        beside = path if path.is_dir() else path.parent
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".saving", dir=beside) as staging:
            staged = Path(staging) / "new"
            staged.mkdir()
            write_weights(staged / WEIGHTS_FILE, tensors, dtype=dtype)
            for name, content in contents.items():
                (staged / name).write_bytes(content)
            if path.is_dir():
                _replace_files(staged, path, Path(staging))
            else:
                staged.rename(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"could not be written ({error})",
            source=folder,
            remedy="free some space or choose a folder you may write",
        ) from error
    return path


def _replace_files(staged: Path, folder: Path, spare: Path) -> None:
    """Move every staged file into `folder`; if one cannot be moved, put the old ones back."""
    touched: list[str] = []
    try:
        for new in sorted(staged.iterdir()):
            touched.append(new.name)
            if (folder / new.name).exists():
                os.replace(folder / new.name, spare / new.name)
            os.replace(new, folder / new.name)
    except BaseException:
        for name in touched:
            if (spare / name).exists():
                os.replace(spare / name, folder / name)
            elif not (staged / name).exists():
                (folder / name).unlink(missing_ok=True)
        raise


def _json_bytes(config: Mapping[str, Any], folder: object) -> bytes:
    try:
        text = json.dumps(dict(config), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"the config is not plain JSON ({error})",
            source=folder,
            file=CONFIG_FILE,
            remedy="keep to finite numbers, strings, booleans, lists and dicts",
        ) from error
    return f"{text}\n".encode()


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
