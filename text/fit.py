"""`tokenzoo fit` for text: a recipe names a trainer and a corpus; no neural network, no Lightning.

out: runs/text-superbpe
model:
  tokenizer_type: text
  trainer: superbpe            # a name of TRAINERS
  vocab_size: 32768
  identity: {name: text-superbpe, licence: Apache-2.0, provenance: where it comes from}
  options: {transition: 16384} # keywords of the trainer
  normalizers: [{kind: case}]  # what rewrites text first, if anything; see `normalization`
data:
  train: data/text/train       # a file, a folder, a list of them
  by_domain: true              # every folder and file in that folder is a domain, such as a language
  limit_bytes: 8000000         # so much of each domain
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..zoo.yaml_file import read_yaml
from .corpus import Corpus
from .myte_tokenizer import MyteTokenizer
from .normalization import Normalization, Normalizing
from .plain import PlainTokenizer
from .pretokenizers import PreTokenizer
from .recipe_types import check_options
from .segmented import SegmentedTokenizer
from .text_tokenizer import TextTokenizer
from .train_parity import Window

OK, FAILED = 0, 1
_RECIPE = {"out", "model", "data"}


@dataclass(frozen=True)
class Trainer:
    """Where a trainer lies.

    function      "module:name" in this folder
    fixed         keywords that make this one of several
    pretokenizer  "module:name" of what cuts text for it, where that is not for the recipe to say; a function
                  of the keyword `custom`, or a constant
    segmenter     of the tokenizer it makes, where plain merges or scores will not do
    normalizers   "module:name" of those that it applies itself, and the tokenizer must too
    codes         it makes a map of morphemes, not a vocabulary; `vocab_size` counts those of each language
    """

    function: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    pretokenizer: str | None = None
    segmenter: str | None = None
    normalizers: str | None = None
    codes: bool = False


TRAINERS = {
    "bpe": Trainer("train_bpe:train"),
    "superbpe": Trainer("train_superbpe:train", pretokenizer="train_superbpe:PRETOKENIZER"),
    "scaffold": Trainer("train_scaffold:train", segmenter="scaffold"),
    "parity": Trainer("train_parity:train"),
    "lz": Trainer("train_lz:train"),
    "kl3m-domain": Trainer("train_kl3m:train_domain", pretokenizer="train_kl3m:domain_pretokenizer"),
    "kl3m-characters": Trainer("train_kl3m:train_characters", pretokenizer="train_kl3m:CHARACTERS"),
    "pathpiece": Trainer("train_pathpiece:train", segmenter="fewest"),
    "byte-span": Trainer("train_byte_span:train", segmenter="greedy"),
    "less-is-better": Trainer(
        "train_less_is_better:train",
        pretokenizer="train_less_is_better:PRETOKENIZER",
        segmenter="less-is-better",
    ),
    "multi-word": Trainer(
        "train_multi_word:train", pretokenizer="train_multi_word:PRETOKENIZER", segmenter="multi-word"
    ),
    "task-adaptive": Trainer("task_vocab:train"),
    "compound": Trainer("compounds:train"),
    "root-affix": Trainer(
        "train_root_affix:train",
        pretokenizer="train_root_affix:PRETOKENIZER",
        segmenter="root-affix",
        normalizers="train_root_affix:NORMALIZERS",
    ),
    "myte": Trainer("train_myte:train", codes=True),
    "library-bpe": Trainer("train_library:train", {"model": "bpe"}),
    "library-unigram": Trainer("train_library:train", {"model": "unigram"}),
}


def main(argv: Sequence[str]) -> int:
    """Train as the recipe says and save the tokenizer to `out`; returns the exit code: 0 when it was saved,
    1 when reading or training failed, 2 for a mistake in the command. `--ckpt_path last` goes on where a
    training of the same recipe was stopped; without it training starts anew."""
    parser = argparse.ArgumentParser(prog="tokenzoo fit", description="Train a text tokenizer; see configs/.")
    parser.add_argument("--config", type=Path, required=True, help="the recipe, a YAML file")
    parser.add_argument("--out", type=Path, help="folder for the tokenizer, instead of the recipe's")
    parser.add_argument("--ckpt_path", choices=["last"], help="go on where the last training was stopped")
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED
    try:
        recipe = _checked(read_yaml(options.config), "the recipe", _RECIPE)
        if missing := sorted(_RECIPE - set(recipe)):
            raise ValueError(f"the recipe lacks {', '.join(missing)}")
        out = Path(options.out or _text(recipe["out"], "out")).expanduser()
        work = out / "training"
        if options.ckpt_path is None:
            for left in (*work.rglob("*.npz"), *work.rglob("*.log"), *work.rglob("*.state")):
                left.unlink()
        fit(recipe["model"], recipe["data"], work).save_pretrained(out)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"tokenzoo: {error}", file=sys.stderr)
        return FAILED
    print(out)
    return OK


def fit(model: Mapping[str, Any], data: Mapping[str, Any], folder: Path) -> TextTokenizer:
    """The tokenizer that a recipe asks for; counts and steps go to `folder`. See the head of this file.

    ValueError names an entry that is unknown, missing or of the wrong type.
    """
    known = {"tokenizer_type", "trainer", "vocab_size", "identity", "options", "normalizers"}
    model = _checked(model, "model", known)
    identity = _checked(model.get("identity") or {}, "identity", {"name", "licence", "provenance"})
    for entry, told in identity.items():
        _text(told, f"identity.{entry}")
    if type(model.get("vocab_size")) is not int:
        raise ValueError(
            f"vocab_size is {reprlib.repr(model.get('vocab_size'))}: expected how many pieces to make"
        )
    named = model.get("trainer", "")
    trainer = TRAINERS.get(named) if isinstance(named, str) else None
    if trainer is None:
        raise ValueError(f"unknown trainer {reprlib.repr(named)}; known: {', '.join(TRAINERS)}")
    train = _resolve(trainer.function)
    told = _options(train, trainer, model.get("options") or {})
    cut, normalizers = _cut(trainer, told), _normalizers(trainer, model.get("normalizers") or [])
    if "folder" in inspect.signature(train).parameters:
        told["folder"] = folder
    corpus = _corpus(data)
    if trainer.normalizers is None and normalizers:
        corpus = Normalizing(normalizers).corpus(corpus)
        told |= {name: Normalizing(normalizers).corpus(told[name]) for name in told if name == "parallel"}
    made = train(corpus, model["vocab_size"], **trainer.fixed, **told)
    naming = {"name": identity.get("name") or "text", "licence": identity.get("licence")}
    if trainer.codes:
        tokenizer: TextTokenizer = MyteTokenizer(made, **naming)
    elif trainer.segmenter or normalizers:
        segmenter = trainer.segmenter or ("likeliest" if made.scores else "merges")
        tokenizer = SegmentedTokenizer(made, segmenter, cut, normalizers=normalizers, **naming)
    else:
        tokenizer = PlainTokenizer.of(made, cut, **naming)
    tokenizer.provenance = identity.get("provenance")
    return tokenizer


def _options(train: Callable[..., Any], trainer: Trainer, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a trainer, with what YAML cannot hold built from what it says."""
    known = set(inspect.signature(train).parameters) - {"corpus", "folder", *trainer.fixed}
    known -= {"vocab_size", "per_language"}
    told = dict(_checked(given, "options", known))
    for name, kind in (("pretokenizer", PreTokenizer), ("window", Window)):
        if told.get(name) is not None:
            told[name] = _built(kind, told[name], name)
    if "parallel" in told:
        told["parallel"] = Corpus.of_folder(_text(told["parallel"], "options.parallel"))
    check_options(train, told, "options")
    return told


def _normalizers(trainer: Trainer, given: Any) -> tuple[Normalization, ...]:
    """What the finished tokenizer rewrites text with."""
    if not isinstance(given, list):
        raise ValueError(f"normalizers is {reprlib.repr(given)}: expected a list, such as [{{kind: case}}]")
    if trainer.normalizers is not None:
        if given:
            raise ValueError("this trainer has normalizers of its own: leave normalizers out")
        return _resolve(trainer.normalizers)
    if given and trainer.codes:
        raise ValueError("a map of morphemes takes no normalizers: leave them out")
    return tuple(_built(Normalization, each, "normalizers") for each in given)


def _built(kind: Any, given: Any, where: str) -> Any:
    """A dataclass out of its fields."""
    fields = _checked(given, where, _fields(kind))
    check_options(kind.__init__, fields, where)
    if missing := sorted(
        name
        for name, field in inspect.signature(kind).parameters.items()
        if field.default is field.empty and name not in fields
    ):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return kind(**fields)


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{where} is {reprlib.repr(given)}: expected text")
    return given


def _cut(trainer: Trainer, told: Mapping[str, Any]) -> PreTokenizer:
    """What the finished tokenizer cuts text with."""
    if trainer.pretokenizer is None:
        return told.get("pretokenizer") or PreTokenizer()
    found = _resolve(trainer.pretokenizer)
    if isinstance(found, PreTokenizer):
        return found
    return found(told["custom"]) if "custom" in told else found()


def _corpus(data: Mapping[str, Any]) -> Corpus:
    data = _checked(data, "data", {"train", "by_domain", "limit_bytes"})
    paths, by_domain, limit = data.get("train"), data.get("by_domain") or False, data.get("limit_bytes")
    if not paths:
        raise ValueError("data lacks train: give a file, a folder or a list of them")
    if type(by_domain) is not bool:
        raise ValueError(f"data.by_domain is {reprlib.repr(by_domain)}: expected true or false")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"data.limit_bytes is {reprlib.repr(limit)}: expected a whole number of 1 or more")
    listed: list[Any] = paths if isinstance(paths, list) and not by_domain else [paths]
    for path in listed:
        if not isinstance(path, Path):
            _text(path, "data.train")
    corpus = Corpus.of_folder(listed[0]) if by_domain else Corpus.of_files(listed)
    return corpus if limit is None else corpus.limited(limit)


def _checked(given: Any, where: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{where} is {reprlib.repr(given)}: expected a mapping with {', '.join(sorted(known))}"
        )
    if unknown := sorted(set(given) - known):
        raise ValueError(f"{where} has no {', '.join(map(str, unknown))}; known: {', '.join(sorted(known))}")
    return given


def _fields(kind: Any) -> set[str]:
    return set(inspect.signature(kind).parameters)


def _resolve(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)
