"""Keywords that a family adds to a verb, read from its signature, so that the command line has them too."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from .tokenizer import Tokenizer

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def family_keywords(tokenizer: Tokenizer, verb: str) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters that this tokenizer's `encode` or `decode` has beyond the interface's."""
    common = inspect.signature(getattr(Tokenizer, verb)).parameters
    own = inspect.signature(getattr(tokenizer, verb)).parameters
    return {
        name: parameter
        for name, parameter in own.items()
        if name not in common and parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def parse_keywords(tokenizer: Tokenizer, verb: str, pairs: Sequence[str]) -> dict[str, Any]:
    """`["steps=20"]` as typed keywords; ValueError names what this tokenizer takes."""
    known = family_keywords(tokenizer, verb)
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or name not in known:
            offered = f"knows {', '.join(known)}" if known else "has no keywords"
            raise ValueError(
                f"--set {pair}: expected NAME=VALUE; {tokenizer.facts.name} {offered} for {verb}"
            )
        values[name] = _value(text, _kind(known[name]), pair)
    return values


def _kind(parameter: inspect.Parameter) -> Callable[[str], Any]:
    """bool, int, float or str: what the annotation names first, or the type of the default."""
    annotation = str(parameter.annotation)
    for kind in (bool, int, float, str):
        if annotation.startswith(kind.__name__) or annotation == f"<class '{kind.__name__}'>":
            return kind
    default = parameter.default
    return type(default) if isinstance(default, bool | int | float | str) else str


def _value(text: str, kind: Callable[[str], Any], pair: str) -> Any:
    try:
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise ValueError(f"--set {pair}: expected {getattr(kind, '__name__', kind)}") from error
