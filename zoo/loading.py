"""`tokenzoo.load` and its inverse: a name, a Hub id or a folder becomes a tokenizer, placed and named."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ..checkpoints.error import CheckpointError
from . import catalogue
from .facts import Facts
from .text_sources import open_text
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from ..checkpoints.files import Checkpoint
    from ..checkpoints.onnx import Onnx
    from ..checkpoints.pickles import Pickle
    from .neural import NeuralTokenizer

FORMAT_VERSION = 1
# What config.json says beside the fields of the configuration dataclass.
ENVELOPE = ("tokenizer_type", "format_version", "name", "licence", "provenance")

_PACKAGE = package_files(__name__.partition(".")[0])
_log = logging.getLogger("tokenzoo")


@dataclass(frozen=True, eq=False)
class _Found:
    """A checkpoint whose family, configuration and identity are known."""

    tokenizer_type: str
    config: dict[str, Any]
    tensors: dict[str, Any]
    name: str
    licence: str | None
    source: str
    revision: str | None
    file: str
    provenance: str | None
    stored_name: Callable[[str], str] | None = None


def load(
    name: str | os.PathLike[str], *, revision: str | None = None, device: str = "cpu", dtype: Any = None
) -> Tokenizer:
    """The tokenizer of a catalogue name, a Hub id "owner/repo" or "owner/repo@revision", a folder, or a file
    that holds a vocabulary of text (tokenizer.json, tiktoken ranks, a sentencepiece model, GGUF).

    revision  branch, tag or sha on the Hub
    device    any torch device; text tokenizers without weights ignore it
    dtype     floating dtype of the weights, default float32 however they were stored

    Official repositories load under their own ids. Every tensor must be there and none left over. Raises
    CheckpointError naming repository, revision and file, and ValueError for an unknown name.
    """
    row = catalogue.find(name) if isinstance(name, str) else None
    if row is None and isinstance(name, str) and "@" in name:
        repo, _, pinned = name.partition("@")
        row = catalogue.find(repo)
        if row is not None:
            if revision not in (None, pinned):
                raise ValueError(
                    f"{repo}: two revisions, {pinned!r} and {revision!r}; "
                    "give it once, after @ or as revision="
                )
            revision = pinned
    if row is not None and row.config is None and row.repo is None and row.bundled is None:
        if revision is not None:
            raise ValueError(f"{row.name} is built in and has no revision; leave revision out")
        return catalogue.family(row.family)()
    if (text := open_text(name, revision, row)) is not None:
        _tell_licence(text.stated, row)
        return text
    found = _from_row(row, revision) if row is not None else _from_source(name, revision)
    tokenizer = build(found.tokenizer_type, found.config)
    if _is_neural(tokenizer):
        _fill(tokenizer, found, device, dtype)
    _tell_licence(tokenizer.facts, row)
    return tokenizer


def _tell_licence(facts: Facts, row: catalogue.Row | None) -> None:
    """Weights of others are under their terms, which are shown. Warnings reach stderr without a set-up."""
    is_ours = facts.revision is None and (row is None or row.download is None)
    level = logging.INFO if is_ours else logging.WARNING
    notice = f" ({row.notice})" if row is not None and row.notice else ""
    _log.log(level, "%s: licence of the weights: %s%s", facts.name, facts.licence or "not stated", notice)


def load_file(path: str | os.PathLike[str], like: str) -> Tokenizer:
    """The tokenizer in one weights file of an official layout, a `.safetensors`, a pickle or an `.onnx`.

    like  catalogue name that says which model it is, since a bare file does not

    Naming the file vouches for it; a pickle is still read with weights_only, and cached as safetensors. For
    units the file holds the centres, and the encoder is fetched.
    """
    from ..checkpoints.files import Checkpoint, read_folder

    row, path = catalogue.find(like), Path(path)
    if row is None or row.config is None:
        raise ValueError(f"{like!r} is no official model; known: {', '.join(_official_names())}")
    tokenizer: Any = build(*read_yaml(row.config))
    if hasattr(tokenizer, "assemble"):  # the file is one of several parts (units)
        checkpoint = Checkpoint({}, tokenizer.assemble(path), str(path.parent), None, path.parent, path.name)
    else:
        checkpoint = read_folder(path.parent, config_file=None, weights=_weights_of(row, path.name))
    if _is_neural(tokenizer):
        _fill(tokenizer, _official(row, checkpoint), "cpu", None)
    _tell_licence(tokenizer.facts, row)
    return tokenizer


def build(tokenizer_type: str, config: dict[str, Any]) -> Tokenizer:
    """A tokenizer of this configuration without weights: neural ones lie on the meta device."""
    family: Any = catalogue.family(tokenizer_type)
    checked = family.config_type.from_dict(config)
    if not hasattr(family, "encode_latents"):
        return family(checked)
    import torch

    with torch.device("meta"):
        return family(checked).eval()


def read_yaml(name: str) -> tuple[str, dict[str, Any]]:
    """The tokenizer_type and the configuration fields of configs/`name`, a file of this package."""
    import yaml

    text = (_PACKAGE / "configs" / name).read_text(encoding="utf-8")
    fields = yaml.safe_load(text)
    tokenizer_type = fields.pop("tokenizer_type")
    return tokenizer_type, {key: value for key, value in fields.items() if key not in ENVELOPE}


def save(
    tokenizer: Tokenizer, folder: str | os.PathLike[str], *, dtype: Any = None, provenance: str = ""
) -> None:
    """Write a checkpoint folder of any tokenizer with a `config` and a `state_dict`; see `Tokenizer`.

    dtype       storage dtype of the floats, default as they are in memory
    provenance  where the weights come from; by default what they were loaded from
    """
    from ..checkpoints.card import model_card
    from ..checkpoints.files import write_folder

    facts = tokenizer.facts
    envelope = {
        "tokenizer_type": tokenizer.config_type.tokenizer_type,
        "format_version": FORMAT_VERSION,
        "name": facts.name,
        "licence": facts.licence,
        "provenance": provenance or tokenizer.provenance,
    }
    tensors = tokenizer.state_dict() if _is_neural(tokenizer) else {}
    # The card tells what a reader will load: the fingerprint of the weights as they are stored.
    stored = {n: t.to(dtype) if dtype and t.is_floating_point() else t for n, t in tensors.items()}
    fingerprint = _fingerprint(tokenizer, stored) if _is_neural(tokenizer) else facts.fingerprint
    told = facts.to_dict() | {"fingerprint": fingerprint}
    card = model_card(told, provenance=envelope["provenance"])
    config = envelope | tokenizer.config.to_dict()
    write_folder(folder, config, tensors, card, dtype=dtype, extra_files=tokenizer.files())


def _from_row(row: catalogue.Row, revision: str | None) -> _Found:
    from ..checkpoints.files import read_folder

    if row.bundled is not None:
        if revision is not None:
            raise ValueError(f"{row.name} ships with the package and has no revision; leave revision out")
        folder = Path(str(_PACKAGE / "checkpoints" / "bundled" / row.bundled))
        return _understand(read_folder(folder, source=row.name))
    from ..checkpoints.hub import read_repo

    if row.download is not None:
        raise ValueError(
            f"the weights of {row.name} are not on the Hub: download them from {row.download}, then "
            f"`tokenzoo convert FILE --like {row.name} --out FOLDER`, and load the folder"
        )
    if row.repo is None or row.config is None:
        raise ValueError(f"the catalogue row of {row.name} lacks a repository or a configuration")
    weights = _weights_of(row, row.file)
    # The configuration is ours, tested against the official manifest; not every repository has a config.json.
    return _official(row, read_repo(row.repo, revision, config_file=None, weights=weights))


def _weights_of(row: catalogue.Row, file: str) -> str | Pickle | Onnx:
    """How this file of a row is read: by its suffix."""
    from ..checkpoints.onnx import ONNX_SUFFIX, Onnx
    from ..checkpoints.pickles import PICKLE_SUFFIXES, Pickle

    if file.endswith(PICKLE_SUFFIXES):
        return Pickle(file, row.part, row.allowed)
    if file.endswith(ONNX_SUFFIX):
        tensors_of = getattr(catalogue.converter(row.converter) if row.converter else None, "from_onnx", None)
        if tensors_of is None:
            raise ValueError(f"{row.name} is not published as ONNX: give a safetensors file or a pickle")
        return Onnx(file, tensors_of)
    return file


def _official(row: catalogue.Row, checkpoint: Checkpoint) -> _Found:
    """Weights of a catalogue row, under our names, with the configuration of its yaml."""
    tokenizer_type, config = read_yaml(str(row.config))
    converter = catalogue.converter(row.converter) if row.converter else None
    return _Found(
        tokenizer_type,
        config,
        _renamed(converter, checkpoint.tensors) if converter else checkpoint.tensors,
        name=row.name,
        licence=row.facts.licence,
        source=checkpoint.source,
        revision=checkpoint.revision,
        file=checkpoint.file,
        provenance=f"{row.repo}@{checkpoint.revision}" if checkpoint.revision else row.repo or row.download,
        stored_name=converter.official_name if converter else None,
    )


def _from_source(name: str | os.PathLike[str], revision: str | None) -> _Found:
    from ..checkpoints.files import find_folder, read_folder

    folder = find_folder(name)
    if folder is not None:
        if revision is not None:
            raise ValueError(f"{name} is a folder and has no revision; leave revision out")
        return _understand(read_folder(folder))
    if "/" not in str(name):
        near = get_close_matches(str(name).lower(), catalogue.names(), n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"unknown tokenizer {str(name)!r}; {hint}`tokenzoo list` prints all names; or give a Hub id "
            "owner/repo, or the path of a folder"
        )
    from ..checkpoints.hub import parse_id, read_repo

    hub_id = parse_id(str(name), revision)
    return _understand(read_repo(hub_id.repo, hub_id.revision))


def _understand(checkpoint: Checkpoint) -> _Found:
    """A folder in our own layout says what it is; any other must be recognised by exactly one converter."""
    config = dict(checkpoint.config)
    place = {"source": checkpoint.source, "revision": checkpoint.revision, "file": "config.json"}
    stored_name = None
    if "tokenizer_type" in config:
        envelope = {key: config.pop(key, None) for key in ENVELOPE}
        version = envelope["format_version"]
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise CheckpointError(
                f"format_version {version!r}, this tokenzoo reads 1 ... {FORMAT_VERSION}",
                **place,
                remedy="upgrade tokenzoo",
            )
        tokenizer_type, tensors = envelope["tokenizer_type"], checkpoint.tensors
        if not isinstance(tokenizer_type, str) or tokenizer_type not in catalogue.FAMILIES:
            known = ", ".join(catalogue.FAMILIES)
            raise CheckpointError(f"unknown tokenizer_type {tokenizer_type!r}; known: {known}", **place)
    else:
        envelope = {}
        converter = _converter_of(checkpoint, place)
        tokenizer_type, config = converter.TOKENIZER_TYPE, _converted_config(converter, checkpoint, place)
        tensors, stored_name = _renamed(converter, checkpoint.tensors), converter.official_name
    name = _text(envelope.get("name")) or tokenizer_type
    try:
        checked = catalogue.family(tokenizer_type).config_type.from_dict(config)
        replace(checked.facts(), name=name, licence=checkpoint.licence)
    except (ValueError, TypeError) as error:
        raise CheckpointError(str(error), **place, remedy="save the checkpoint again") from error
    return _Found(
        tokenizer_type,
        config,
        tensors,
        name=name,
        licence=checkpoint.licence,
        source=checkpoint.source,
        revision=checkpoint.revision,
        file=checkpoint.file,
        # A folder's path is nobody else's business: what it says of itself goes on, and nothing else.
        provenance=f"{checkpoint.source}@{checkpoint.revision}"
        if checkpoint.revision
        else checkpoint.provenance,
        stored_name=stored_name,
    )


def _converter_of(checkpoint: Checkpoint, place: dict[str, Any]) -> Any:
    """The one converter that knows this layout; CheckpointError when there is none, or more than one."""
    matches = [
        module
        for key in catalogue.CONVERTERS
        if (module := catalogue.converter(key)).recognise(checkpoint.config, checkpoint.tensors)
    ]
    if len(matches) != 1:
        reason = "no known layout" if not matches else f"{len(matches)} layouts match"
        raise CheckpointError(
            f"{reason}: config.json has no tokenizer_type",
            **place,
            remedy="load an official id that `tokenzoo list` shows, or convert the checkpoint first",
        )
    return matches[0]


def _converted_config(converter: Any, checkpoint: Checkpoint, place: dict[str, Any]) -> dict[str, Any]:
    try:
        return converter.convert_config(checkpoint.config)
    except ValueError as error:
        raise CheckpointError(str(error), **place, remedy="is this the official config.json?") from error


def _renamed(converter: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Under our names; a converter that has `fold` first joins official tensors that are one of ours."""
    from ..checkpoints.weight_norm import is_part

    tensors = converter.fold(tensors) if hasattr(converter, "fold") else tensors
    names = converter.convert_names(tensors)
    return {
        name if is_part(name) else names[name]: tensor for name, tensor in tensors.items() if name in names
    }


def _fill(tokenizer: NeuralTokenizer, found: _Found, device: str, dtype: Any) -> None:
    """Weights in, fingerprint taken before any cast, then placed."""
    import torch

    from ..checkpoints.weights import load_strict

    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype={dtype!r}: expected a floating torch dtype, e.g. torch.float16, or None")
    load_strict(
        tokenizer,
        found.tensors,
        source=found.source,
        revision=found.revision,
        file=found.file,
        dtype=dtype or torch.float32,
        stored_name=found.stored_name,
    )
    tokenizer.identify(
        name=found.name,
        revision=found.revision,
        fingerprint=_fingerprint(tokenizer, found.tensors),
        licence=found.licence,
    )
    tokenizer.provenance = found.provenance
    tokenizer.eval().to(device)


def _fingerprint(tokenizer: Tokenizer, tensors: dict[str, Any]) -> str | None:
    """Of the configuration and these tensors under our names; None for a tokenizer without weights."""
    from ..checkpoints.weights import fingerprint

    kind = {"tokenizer_type": tokenizer.config_type.tokenizer_type} | tokenizer.config.to_dict()
    return fingerprint(kind, tensors) if tensors else None


def _official_names() -> list[str]:
    return [row.name for row in catalogue.rows() if row.config is not None]


def _is_neural(tokenizer: Tokenizer) -> TypeGuard[NeuralTokenizer]:
    """Without importing torch to find out."""
    return hasattr(tokenizer, "encode_latents")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def without_identity(facts: Facts) -> Facts:
    """The facts that a configuration decides: what a catalogue row states."""
    return replace(facts, name="", revision=None, fingerprint=None, licence=None)
