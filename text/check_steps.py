"""What a tokenizer.json asks of the library `tokenizers`, looked at before the library is: where memory runs
out there, it takes Python with it, and no error can be caught."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

from .load_json import steps

_MOST_STEPS, _DEEPEST = 64, 16
# Bytes that may become of one: ALBERT's steps, which do more than most, come to some thousands at worst.
_MOST_GROWTH = 1 << 16
# Unicode's own forms make at most 33 bytes of 3; İ has one more in small letters.
_GROWTH = {
    "BertNormalizer": 8, "ByteLevel": 2, "Lowercase": 2, "NFC": 3, "NFD": 4, "NFKC": 11, "NFKD": 11, "Nmt": 2,
    "Strip": 1, "StripAccents": 1,
}  # fmt: skip
_KNOWN = (*_GROWTH, "Precompiled", "Prepend", "Replace", "Sequence")
_LONGEST_PREFIX = 256


def growth_of(definition: Mapping[str, Any]) -> int:
    """How many bytes the normalizer of a tokenizer.json may make of one at most.

    ValueError when that is more than 65536, for a step that no version of the library has, for steps without
    end, and for a table of characters that is cut off.
    """
    normalizer = definition.get("normalizer")
    if normalizer is None:
        return 1
    if not isinstance(normalizer, dict):
        raise ValueError(f"the normalizer is a {type(normalizer).__name__}: expected an object")
    if _depth(normalizer) > _DEEPEST:
        raise ValueError(f"the normalizer is nested deeper than {_DEEPEST}")
    listed = steps(normalizer, "normalizers")
    if len(listed) > _MOST_STEPS:
        raise ValueError(f"the normalizer has {len(listed)} steps: expected at most {_MOST_STEPS}")
    growth = 1
    for step in listed:
        growth *= _growth(step)
        if growth > _MOST_GROWTH:
            raise ValueError(
                f"the normalizer may make more than {_MOST_GROWTH} bytes of one: this fills any memory"
            )
    return growth


def _depth(part: Any) -> int:
    deepest, level = 0, [part]
    while level and deepest <= _DEEPEST:
        held = [each.get("normalizers") for each in level if isinstance(each, dict)]
        level = [each for inner in held if isinstance(inner, list) for each in inner]
        deepest += 1
    return deepest


def _growth(step: Any) -> int:
    kind = step.get("type") if isinstance(step, dict) else step
    if kind not in _KNOWN or kind == "Sequence":
        raise ValueError(f"unknown normalizer {str(kind)[:80]!r}; known: {', '.join(_KNOWN)}")
    if kind == "Replace":
        return _of_replace(step)
    if kind == "Prepend":
        prefix = step.get("prepend")
        if not isinstance(prefix, str) or len(prefix.encode(errors="replace")) > _LONGEST_PREFIX:
            raise ValueError(f"a normalizer prepends something else than {_LONGEST_PREFIX} bytes of text")
        # Once a text, which may have one byte.
        return 1 + len(prefix.encode(errors="replace"))
    return _of_table(step) if kind == "Precompiled" else _GROWTH[kind]


def _of_replace(step: Mapping[str, Any]) -> int:
    content, pattern = step.get("content"), step.get("pattern")
    if not isinstance(content, str) or not isinstance(pattern, dict):
        raise ValueError("a normalizer replaces something else than a pattern by a text")
    size, plain = len(content.encode(errors="replace")), pattern.get("String")
    if isinstance(plain, str) and plain:
        return max(1, math.ceil(size / len(plain.encode(errors="replace"))))
    # An expression may match nothing, before every byte.
    return 1 + size


def _of_table(step: Mapping[str, Any]) -> int:
    """sentencepiece's table: the bytes of a tree, how many, then what its leaves point to, NUL between."""
    told = step.get("precompiled_charsmap")
    try:
        data = base64.b64decode(told or "", validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(f"the table of a Precompiled normalizer is no base64 ({error})") from error
    size = int.from_bytes(data[:4], "little")
    if len(data) < 8 or size % 4 or not 4 <= size <= len(data) - 4:
        raise ValueError(
            f"the table of a Precompiled normalizer is cut off: {len(data)} bytes, {size} of them its tree"
        )
    return max(1, *map(len, data[4 + size :].split(b"\0")))
