"""Tensor names in another layout, as a table that reads in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

Renames = tuple[tuple[str, str], ...]


def rename(name: str, table: Renames) -> str:
    """The name on the right of the first row whose left side matches; a name without a row stays as it is.

    In a row "*" stands for one part between dots, "**" for one or more; the stars of both sides correspond.

        rename("encoder.ln_pre.weight", (("*.ln_pre.*", "*.transformer.norm.*"),))
    """
    for source, target in table:
        match = _pattern(source).fullmatch(name)
        if match:
            found = iter(match.groups())
            return re.sub(r"\*{1,2}", lambda _, found=found: next(found), target)
    return name


def reversed_renames(table: Iterable[tuple[str, str]]) -> Renames:
    """The table from right to left."""
    return tuple((target, source) for source, target in table)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\*{1,2})", template)
    stars = {"*": r"([^.]+)", "**": r"(.+)"}
    return re.compile("".join(stars.get(part, re.escape(part)) for part in parts))
