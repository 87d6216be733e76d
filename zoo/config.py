"""Configurations: frozen dataclasses that go to plain values and come back checked."""

from __future__ import annotations

import contextlib
import dataclasses
import reprlib
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, get_args, get_origin

from .facts import Facts


class Config(ABC):
    """Base of every family's configuration dataclass; subclasses are frozen dataclasses of plain values.

    tokenizer_type  the catalogue key of the family, written to config.json
    Ranges are checked in `__post_init__`, so that a hostile config.json cannot ask for a terabyte.
    """

    tokenizer_type: ClassVar[str]

    @abstractmethod
    def facts(self) -> Facts:
        """All but identity: what a tokenizer of this configuration is."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values: nested dataclasses become dicts, tuples lists."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError names an unknown, missing or ill-typed entry."""
        return _build(cls, values, cls.__name__)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """ValueError unless low <= value <= high; NaN lies outside."""
    if not low <= value <= high:
        raise ValueError(f"{name}={reprlib.repr(value)}: expected {low} ... {high}")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {reprlib.repr(values)}: expected a mapping of fields")
    hints = typing.get_type_hints(cls)
    names = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(map(str, set(values) - set(names))):
        raise ValueError(f"{where} has no field {', '.join(unknown[:8])}; known: {', '.join(names)}")
    required = {n for n, f in names.items() if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(required - set(values)):
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return cls(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotation asks; JSON knows no tuples and no difference of 1 and 1.0."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ValueError(
            f"{where} is {reprlib.repr(value)}: expected one of {', '.join(map(repr, arguments))}"
        )
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} is {reprlib.repr(value)}: expected a list")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], item, where) for item in value)
        if len(value) != len(arguments):
            raise ValueError(f"{where} has {len(value)} entries: expected {len(arguments)}")
        return tuple(_convert(a, item, where) for a, item in zip(arguments, value, strict=True))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _build(hint, value, where)
    if hint is float and type(value) in (int, float):
        with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
            return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"{where} is {reprlib.repr(value)}: expected {getattr(hint, '__name__', hint)}")
