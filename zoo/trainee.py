"""The tokenizer that training starts from: a new one, or one that is there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from . import catalogue
from .loading import load, read_yaml
from .neural import NeuralTokenizer
from .recipe import Identity

if TYPE_CHECKING:
    from .training import TokenizerTraining

_FINETUNED = "-finetuned"
Training = TypeVar("Training", bound="TokenizerTraining")


def tokenizer_to_train(
    tokenizer_type: str | None,
    config: Mapping[str, Any] | str | None,
    pretrained: str | None,
    identity: Identity,
    modality: str,
) -> NeuralTokenizer:
    """The tokenizer to train, float32 on the CPU, without a fingerprint.

    tokenizer_type, config  a new one: a key of `catalogue.FAMILIES` and the fields of its configuration, or
                            a file of configs/, which says the type too
    pretrained              instead of both: the name, Hub id or folder to start from. Unless `identity` has a
                            name, it is called that tokenizer's with "-finetuned"
    """
    if (pretrained is None) == (config is None):
        raise ValueError("give either `config` (with `tokenizer_type`), for a new tokenizer, or `pretrained`")
    if pretrained is not None:
        tokenizer = load(pretrained)
    else:
        if isinstance(config, str):
            tokenizer_type, config = read_yaml(config)
        if tokenizer_type is None:
            raise ValueError(f"tokenizer_type is missing; known: {', '.join(catalogue.FAMILIES)}")
        family: Any = catalogue.family(tokenizer_type)
        tokenizer = family(family.config_type.from_dict(config))
    article = "an" if modality[0] in "aeiou" else "a"
    if not isinstance(tokenizer, NeuralTokenizer) or tokenizer.facts.modality != modality:
        raise TypeError(
            f"{tokenizer.facts.name} is a {type(tokenizer).__name__}: expected {article} {modality} tokenizer"
        )
    tokenizer.identify(
        name=identity.name or (finetuned_name(tokenizer) if pretrained else tokenizer.facts.name),
        revision=None,
        fingerprint=None,
        licence=identity.licence or tokenizer.facts.licence,
    )
    if identity.provenance or pretrained:
        tokenizer.provenance = identity.provenance or f"fine-tuned from {pretrained}"
    return tokenizer.train()


def finetuned_name(tokenizer: NeuralTokenizer) -> str:
    """Other weights need another name: tokens say by it who made them."""
    return f"{tokenizer.facts.name.removesuffix(_FINETUNED)}{_FINETUNED}"


def finetuned(kind: type[Training], tokenizer: NeuralTokenizer, hyperparameters: dict[str, Any]) -> Training:
    """A training module of this kind, started from a float32 copy of the weights of a tokenizer.

    kind             built from the type and configuration of a tokenizer, its identity, and `hyperparameters`
    hyperparameters  by name; where "identity" leaves it out, the licence is the tokenizer's, and name and
                     provenance say that it was fine-tuned
    """
    told, name = dict(hyperparameters), tokenizer.facts.name
    start = Identity(finetuned_name(tokenizer), tokenizer.facts.licence, f"fine-tuned from {name}")
    identity = start.updated(told.pop("identity", {}))
    build: Any = kind
    module = build(
        tokenizer.config_type.tokenizer_type, tokenizer.config.to_dict(), identity=identity, **told
    )
    module.tokenizer.load_state_dict(tokenizer.state_dict())
    module.is_new = False
    return module.to(tokenizer.device)
