"""Whether what YAML said fits the annotation of a keyword, so that a mistake is told by its name."""

from __future__ import annotations

import os
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What may be left to the function: things that no YAML can say are built from it before.
_BUILT = (os.PathLike,)


def check_options(function: Callable[..., Any], told: Mapping[str, Any], where: str) -> None:
    """ValueError for the first keyword whose value does not fit the annotation of `function`."""
    hints = typing.get_type_hints(function)
    for name, value in told.items():
        hint = hints.get(name, Any)
        if not fits(value, hint):
            raise ValueError(f"{where}.{name} is {reprlib.repr(value)}: expected {expected(hint)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is what an annotation asks for. Integers are floats too, True is no integer;
    annotations of things that are no plain values fit everything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is typing.Literal:
        return any(value is each or (type(value) is type(each) and value == each) for each in arguments)
    if hint in (None, type(None)):
        return value is None
    if hint in (bool, int, str):
        return type(value) is hint
    if hint is float:
        return type(value) in (int, float)
    if origin in (Sequence, list, tuple):
        return isinstance(value, list) and all(fits(each, arguments[0]) for each in value)
    if origin is Callable or origin in _BUILT:
        return callable(value) or isinstance(value, os.PathLike)
    return not isinstance(hint, type) or isinstance(value, hint)


def expected(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(filter(None, map(expected, arguments))))
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Sequence, list, tuple):
        return f"a list, each {expected(arguments[0])}"
    if hint in (None, type(None)):
        return "nothing"
    if origin is Callable or origin in _BUILT:
        return ""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
