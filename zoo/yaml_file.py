"""YAML that a user gives: plain values, of bounded size and depth, without aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

# The longest recipe here has 3 kB.
MAX_BYTES = 1 << 20
_MAX_DEPTH = 32


def read_yaml(path: Path) -> Any:
    """What a file holds. ValueError naming it when it is no YAML, no UTF-8, larger than a megabyte, nested
    deeper than 32, or has aliases; OSError when it cannot be read."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{path}: more than {MAX_BYTES} bytes, which no recipe needs")
    try:
        return parse_yaml(raw.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 (byte {error.start}): save it as UTF-8") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is no YAML that is read here: {error}") from error


def parse_yaml(text: str) -> Any:
    """The plain values of one document; yaml.YAMLError when it is none, or has what is refused."""
    # The scanner of PyYAML written in C knows no bounds to hook into.
    return yaml.load(text, Loader=_BoundedLoader)


class _BoundedLoader(yaml.SafeLoader):
    """A few lines of aliases can stand for terabytes; a long run of brackets overflows the stack."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(None, None, "aliases are not read: write the value out", event.start_mark)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ComposerError(None, None, f"nested deeper than {_MAX_DEPTH}", event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1
