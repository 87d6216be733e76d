"""The head of a GGUF file: its keys and values. Tensors are not looked at."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from .vocab import MAX_PIECES

_STRING, _ARRAY = 8, 9
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_LENGTH = struct.Struct("<Q")
_MAX_KEYS, _MAX_STRING = 1 << 16, 1 << 26


def read_head(path: Path) -> dict[str, Any]:
    """Keys and values, arrays as lists; ValueError naming the file when it is none, damaged or of another
    version than 2 and 3."""
    with path.open("rb") as file:
        if path.stat().st_size < 24:
            raise ValueError(f"{path.name}: {path.stat().st_size} bytes are no GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Head(data).read()
            except (ValueError, struct.error, UnicodeDecodeError) as error:
                raise ValueError(f"{path.name}: no readable GGUF file ({error})") from error


class _Head:
    """Reads from left to right; every length is checked before it is believed."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._place = data, 0

    def read(self) -> dict[str, Any]:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not start with GGUF")
        if (version := self._number("I")) not in (2, 3):
            raise ValueError(f"version {version}: expected 2 or 3")
        self._number("Q")  # how many tensors
        count = self._number("Q")
        if count > _MAX_KEYS:
            raise ValueError(f"{count} keys: expected at most {_MAX_KEYS}")
        found = {}
        for _ in range(count):
            key = self._text()
            found[key] = self._value(self._number("I"))
        return found

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(self._format(kind))
        inner, count = self._number("I"), self._number("Q")
        if count > 2 * MAX_PIECES:
            raise ValueError(f"array of {count}: expected at most {2 * MAX_PIECES}")
        if inner == _STRING:
            return [self._text() for _ in range(count)]
        form = self._format(inner)
        size = count * struct.calcsize(form)
        return list(struct.unpack(f"<{count}{form}", self._bytes(size)))

    def _format(self, kind: int) -> str:
        if kind not in _FORMATS:
            raise ValueError(f"value of unknown kind {kind}")
        return _FORMATS[kind]

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))[0]

    def _text(self) -> str:
        if self._place + 8 > len(self._data):
            raise ValueError("it ends too early")
        (size,) = _LENGTH.unpack_from(self._data, self._place)
        if size > _MAX_STRING:
            raise ValueError(f"string of {size} bytes: expected at most {_MAX_STRING}")
        self._place += 8
        return self._bytes(size).decode()

    def _bytes(self, size: int) -> bytes:
        held = self._data[self._place : self._place + size]
        if len(held) < size:
            raise ValueError("it ends too early")
        self._place += size
        return held
