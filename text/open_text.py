"""A text tokenizer out of whatever file or folder holds one. Reads no weights and imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..checkpoints.error import CheckpointError
from ..zoo.loading import ENVELOPE, FORMAT_VERSION
from .load_gguf import read_gguf
from .load_json import read_definition
from .load_sentencepiece import looks_like_sentencepiece, read_sentencepiece
from .load_tiktoken import load_tiktoken, looks_like_tiktoken
from .load_wordpiece import read_wordpiece
from .myte_tokenizer import CODES_FILE, MyteTokenizer
from .plain import DEFINITION_FILE, PlainTokenizer
from .segmented import VOCAB_FILE, SegmentedTokenizer
from .text_tokenizer import TextTokenizer

CONFIG_FILE = "config.json"
_MAX_CONFIG_BYTES = 16 * 2**20
# The families that are files and nothing else, and what each of them lies in.
_FAMILIES: dict[str, tuple[Any, str]] = {
    "text": (PlainTokenizer, DEFINITION_FILE),
    "segmented": (SegmentedTokenizer, VOCAB_FILE),
    "myte": (MyteTokenizer, CODES_FILE),
}
# What else makes a folder a text tokenizer, the first that is there.
_FOREIGN = (DEFINITION_FILE, "tokenizer.model", "vocab.txt")
_SUFFIXES = (".json", ".tiktoken", ".model", ".gguf", ".txt")
_KINDS = "a tokenizer.json, ranks of tiktoken, a sentencepiece model, a GGUF file or a vocab.txt of BERT"


def file_of(tokenizer_type: object) -> str | None:
    """The file that holds a tokenizer of this type, tokenizer.json where none is said; None for others."""
    if tokenizer_type is None:
        return DEFINITION_FILE
    return next((file for kind, (_, file) in _FAMILIES.items() if kind == tokenizer_type), None)


def open_file(path: Path) -> TextTokenizer | None:
    """The tokenizer in a file: tokenizer.json, tiktoken's ranks, a sentencepiece model, GGUF, vocab.txt; None
    when neither content nor name look like one.

    CheckpointError naming the file when it should hold one and does not.
    """
    try:
        return _open_file(path)
    except (ValueError, OSError) as error:
        raise _told(error, path, f"give {_KINDS}") from error


def open_folder(folder: Path, source: str | None = None) -> TextTokenizer | None:
    """The text tokenizer in a folder of ours, or in one of others with a tokenizer.json, tokenizer.model or
    vocab.txt; None when the folder holds something else.

    source  what errors call it

    CheckpointError naming the file that is missing, damaged or of a later version.
    """
    config = _read_config(folder / CONFIG_FILE)
    if "tokenizer_type" in config:
        kind = config["tokenizer_type"]
        is_ours = isinstance(kind, str) and kind in _FAMILIES
        return _open_ours(folder, config, source or str(folder)) if is_ours else None
    found = next((folder / name for name in _FOREIGN if (folder / name).is_file()), None)
    return None if found is None else open_file(found)


def _open_ours(folder: Path, config: dict[str, Any], source: str) -> TextTokenizer:
    family, file = _FAMILIES[config["tokenizer_type"]]
    version = config.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"format_version {version!r}, this tokenzoo reads 1 ... {FORMAT_VERSION}",
            source=source,
            file=CONFIG_FILE,
            remedy="upgrade tokenzoo",
        )
    fields = {key: value for key, value in config.items() if key not in ENVELOPE}
    name, licence = (
        config.get(key) if isinstance(config.get(key), str) else None for key in ("name", "licence")
    )
    try:
        checked = family.config_type.from_dict(fields)
        files = {file: read_definition(folder / file)}
        found = family.from_files(checked, files, name=name or config["tokenizer_type"], licence=licence)
    except (ValueError, OSError) as error:
        raise CheckpointError(str(error), source=source, remedy="save or download it again") from error
    if isinstance(config.get("provenance"), str):
        found.provenance = config["provenance"]
    return found


def _open_file(path: Path) -> TextTokenizer | None:
    with path.open("rb") as file:
        head = file.read(256)
    if head[:4] == b"GGUF":
        definition, name, licence = read_gguf(path)
        return PlainTokenizer(definition, name=name or "text", licence=licence)
    if head.lstrip()[:1] == b"{":
        return PlainTokenizer.from_json(read_definition(path))
    if looks_like_tiktoken(head):
        return load_tiktoken(path)
    if looks_like_sentencepiece(head):
        return PlainTokenizer(read_sentencepiece(path))
    if path.suffix == ".txt":
        return PlainTokenizer(read_wordpiece(path))
    if path.suffix.lower() in _SUFFIXES:
        raise ValueError("holds no vocabulary of a known kind")
    return None


def _read_config(path: Path) -> dict[str, Any]:
    """config.json as an object, {} where there is none."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, expected at most {_MAX_CONFIG_BYTES}")
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"holds a {type(config).__name__}, expected an object")
    except (ValueError, RecursionError, OSError) as error:
        raise _told(error, path, "save or download it again") from error
    return config


def _told(error: BaseException, path: Path, remedy: str) -> CheckpointError:
    reason = str(error).removeprefix(f"{path.name}: ")
    return CheckpointError(reason, source=path.parent, file=path.name, remedy=remedy)
