"""Tokens that are looked for in the text itself, before any model: the added tokens of a tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any


class AddedTokens:
    """Finds names in text: at each place the longest one, from the left, as `tokenizers` does.

    ids  name -> id
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = dict(ids)
        # Hundreds of names share a few beginnings, and most text has none of them.
        self._beginnings = {name[:3] for name in ids}

    def __bool__(self) -> bool:
        return bool(self._ids)

    def parts(self, text: str) -> list[str | int]:
        """Text between names, and the ids of names, in order; no empty text."""
        if not any(beginning in text for beginning in self._beginnings):
            return [text] if text else []
        found: list[str | int] = []
        end = 0
        for match in self._pattern.finditer(text):
            if match.start() > end:
                found.append(text[end : match.start()])
            found.append(self._ids[match[0]])
            end = match.end()
        if end < len(text):
            found.append(text[end:])
        return found

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._ids, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))


def plain_tokens(definition: Mapping[str, Any], wanted: Collection[str]) -> dict[str, int] | None:
    """Name -> id of the added tokens that text may yield: those that are not special, and those wanted.

    None when one of them swallows spaces, asks for whole words, or is looked for in normalized text only:
    then `tokenizers` has to find them.
    """
    found = {}
    normalizes = bool(definition.get("normalizer"))
    for entry in definition.get("added_tokens") or []:
        if entry.get("special") and entry["content"] not in wanted:
            continue
        if any(entry.get(flag) for flag in ("single_word", "lstrip", "rstrip")):
            return None
        if normalizes and entry.get("normalized", not entry.get("special")):
            return None
        found[entry["content"]] = entry["id"]
    return found
