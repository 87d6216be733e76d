"""`tokenzoo fit` for text: a recipe names a trainer and a corpus; no neural network, no Lightning.

out: runs/text-superbpe
model:
  tokenizer_type: text
  trainer: superbpe            # a name of TRAINERS
  vocab_size: 32768
  identity: {name: text-superbpe, licence: Apache-2.0, provenance: where it comes from}
  options: {transition: 16384} # keywords of the trainer
data:
  train: data/text/train       # a file, a folder, a list of them
  by_domain: true              # every folder and file in that folder is a domain, such as a language
  limit_bytes: 8000000         # so much of each domain
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .corpus import Corpus
from .plain import PlainTokenizer
from .pretokenizers import PreTokenizer
from .segmented import SegmentedTokenizer
from .text_tokenizer import TextTokenizer
from .train_parity import Window
from .vocab import TextVocab

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
    """

    function: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    pretokenizer: str | None = None
    segmenter: str | None = None


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
        recipe = _checked(yaml.safe_load(options.config.read_text(encoding="utf-8")), "the recipe", _RECIPE)
        if missing := sorted(_RECIPE - set(recipe)):
            raise ValueError(f"the recipe lacks {', '.join(missing)}")
        out = Path(options.out or recipe["out"]).expanduser()
        work = out / "training"
        if options.ckpt_path is None:
            for left in (*work.glob("*.npz"), *work.glob("*.log")):
                left.unlink()
        fit(recipe["model"], recipe["data"], work).save_pretrained(out)
    except (ValueError, TypeError, OSError, ImportError, yaml.YAMLError) as error:
        print(f"tokenzoo: {error}", file=sys.stderr)
        return FAILED
    print(out)
    return OK


def fit(model: Mapping[str, Any], data: Mapping[str, Any], folder: Path) -> TextTokenizer:
    """The tokenizer that a recipe asks for; counts and steps go to `folder`. See the head of this file.

    ValueError names an entry that is unknown or missing.
    """
    model = _checked(model, "model", {"tokenizer_type", "trainer", "vocab_size", "identity", "options"})
    identity = _checked(model.get("identity") or {}, "identity", {"name", "licence", "provenance"})
    if type(model.get("vocab_size")) is not int:
        raise ValueError(f"vocab_size is {model.get('vocab_size')!r}: expected how many pieces to make")
    trainer = TRAINERS.get(model.get("trainer", ""))
    if trainer is None:
        raise ValueError(f"unknown trainer {model.get('trainer')!r}; known: {', '.join(TRAINERS)}")
    train = _resolve(trainer.function)
    told = _options(train, trainer, model.get("options") or {})
    cut = _cut(trainer, told)
    if "folder" in inspect.signature(train).parameters:
        told["folder"] = folder
    vocab: TextVocab = train(_corpus(data), model["vocab_size"], **trainer.fixed, **told)
    naming = {"name": identity.get("name") or "text", "licence": identity.get("licence")}
    tokenizer = (
        SegmentedTokenizer(vocab, trainer.segmenter, cut, **naming)
        if trainer.segmenter
        else PlainTokenizer.of(vocab, cut, **naming)
    )
    tokenizer.provenance = identity.get("provenance")
    return tokenizer


def _options(train: Callable[..., Any], trainer: Trainer, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a trainer, with what YAML cannot hold built from what it says."""
    known = set(inspect.signature(train).parameters) - {"corpus", "vocab_size", "folder", *trainer.fixed}
    told = dict(_checked(given, "options", known))
    if "pretokenizer" in told:
        told["pretokenizer"] = PreTokenizer(
            **_checked(told["pretokenizer"], "pretokenizer", _fields(PreTokenizer))
        )
    if told.get("window") is not None:
        told["window"] = Window(**_checked(told["window"], "window", _fields(Window)))
    if "parallel" in told:
        told["parallel"] = Corpus.of_folder(told["parallel"])
    return told


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
    paths = data.get("train")
    if not paths:
        raise ValueError("data lacks train: give a file, a folder or a list of them")
    corpus = Corpus.of_folder(paths) if data.get("by_domain") else Corpus.of_files(paths)
    return corpus.limited(data["limit_bytes"]) if data.get("limit_bytes") else corpus


def _checked(given: Any, where: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}: expected a mapping with {', '.join(sorted(known))}")
    if unknown := sorted(set(given) - known):
        raise ValueError(f"{where} has no {', '.join(map(str, unknown))}; known: {', '.join(sorted(known))}")
    return given


def _fields(kind: Any) -> set[str]:
    return set(inspect.signature(kind).parameters)


def _resolve(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)
