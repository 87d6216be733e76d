"""Recipes of `tokenzoo fit`: of what modality one is, and which ones ship with the package. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import yaml

from . import catalogue
from .yaml_file import read_yaml

_CONFIGS = package_files(__name__.partition(".")[0]) / "configs"
_MODEL_OPTIONS = ("tokenizer_type", "config", "pretrained")


@dataclass(frozen=True)
class Recipe:
    """A recipe of configs/.

    file      its name there
    modality  of the tokenizer it trains
    about     its first line
    """

    file: str
    modality: str
    about: str


def shipped() -> list[Recipe]:
    """The recipes of configs/, by name; the other files there are configurations of official models."""
    found = []
    for entry in sorted(_CONFIGS.iterdir(), key=lambda each: each.name):
        if not entry.name.endswith(".yaml"):
            continue
        text = entry.read_text(encoding="utf-8")
        fields = yaml.safe_load(text)
        if isinstance(fields, dict) and "model" in fields:
            about = text.partition("\n")[0].lstrip("# ")
            found.append(Recipe(entry.name, modality_of_model(fields["model"]) or "", about))
    return found


def modality_of(argv: Sequence[str]) -> str | None:
    """The modality that the arguments of `tokenzoo fit` train; None when they do not say it.

    Options count more than the file of `--config`, as they do when they are parsed.
    """
    told: dict[str, Any] = {}
    for name, value in _options(argv):
        if name == "--config":
            told |= _model_of(Path(value))
    for name, value in _options(argv):
        if name.startswith("--model."):
            told |= {name.removeprefix("--model."): value}
    return modality_of_model(told)


def modality_of_model(model: Any) -> str | None:
    """The modality of what a recipe says under `model`; None when it does not say it.

    A folder or a Hub id in `pretrained` is asked for its config.json. CheckpointError when it has none.
    """
    told = {name: model.get(name) for name in _MODEL_OPTIONS} if isinstance(model, dict) else {}
    tokenizer_type, config, pretrained = (told.get(name) for name in _MODEL_OPTIONS)
    if isinstance(config, str) and (_CONFIGS / config).is_file():
        tokenizer_type = yaml.safe_load((_CONFIGS / config).read_text(encoding="utf-8")).get("tokenizer_type")
    if tokenizer_type is None and isinstance(pretrained, str):
        if (row := catalogue.find(pretrained.partition("@")[0])) is not None:
            return row.facts.modality
        tokenizer_type = stored_config(pretrained).get("tokenizer_type")
    home = catalogue.FAMILIES.get(str(tokenizer_type), "")
    return home.partition(".")[0] or None


def stored_config(source: str) -> dict[str, Any]:
    """The config.json of a folder or of a repository on the Hub; {} for a name, or a folder without one."""
    from ..checkpoints.files import CONFIG_FILE, find_folder, read_config

    folder = find_folder(source)
    if folder is not None:
        return read_config(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    if "/" not in source:
        return {}
    from ..checkpoints.hub import fetch, parse_id, resolve

    hub_id = parse_id(source)
    sha = resolve(hub_id.repo, hub_id.revision)
    return read_config(fetch(hub_id.repo, sha, [CONFIG_FILE])[0], source=hub_id.repo, revision=sha)


def _model_of(path: Path) -> dict[str, Any]:
    """ValueError for YAML that is not read here, before any other reader sees it."""
    try:
        recipe = read_yaml(path.expanduser())
    except OSError:
        return {}  # whoever reads it next says what is wrong
    model = recipe.get("model") if isinstance(recipe, dict) else None
    return model if isinstance(model, dict) else {}


def _options(argv: Sequence[str]) -> list[tuple[str, str]]:
    """(name, value) of options, written "--name value" or "--name=value"."""
    found = []
    for option, following in zip(argv, [*argv[1:], ""], strict=True):
        name, joined, value = option.partition("=")
        if name.startswith("--"):
            found.append((name, value if joined else following))
    return found
