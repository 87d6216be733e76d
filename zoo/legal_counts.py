"""How many tokens an item can have, where nothing but its ids tells."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import torch

from .tokenizer import Tokenizer
from .vocabulary import JointMedium

# Sound and text have no longest item; pictures of any size are looked at up to 64 x 64 tokens.
_ENDLESS = 2**40
_MOST_OF_A_PICTURE = 4096
_LOOKED_AT = 256


def legal_counts(tokenizer: Tokenizer, medium: JointMedium) -> Sequence[int]:
    """The counts of tokens that decode, rising: a range where there is no end of them.

    An item has the size of its medium, or the one that `stamp` assumes for so many tokens. Whole items count,
    and the legal starts of nested or adaptive ones. ValueError when there is no such count.
    """
    facts = tokenizer.facts
    if medium.extent is not None:
        return _up_to(tokenizer, [tokenizer.num_tokens(medium.extent)])
    if facts.max_tokens is not None or facts.modality == "image":
        most = facts.max_tokens or _MOST_OF_A_PICTURE
        return _up_to(tokenizer, _whole(tokenizer, most))
    if facts.may_be_short:
        return range(1, _ENDLESS)
    found = _whole(tokenizer, _LOOKED_AT)
    step = found[1] - found[0] if len(found) > 1 else 0
    if not step or found != list(range(found[0], found[-1] + 1, step)):
        raise ValueError(f"{facts.name} has no regular counts of tokens: {found[:8]}")
    return range(found[0], _ENDLESS, step)


def at_most(counts: Sequence[int], count: int) -> int:
    """The largest legal count up to `count`; 0 when there is none."""
    place = bisect_right(counts, count)
    return counts[place - 1] if place else 0


def listed(counts: Sequence[int]) -> str:
    """For messages: 32; 1, 3, 7; 1 ... 256; 2, 4, ... ."""
    if len(counts) == 1:
        return str(counts[0])
    if isinstance(counts, range) and counts.stop >= _ENDLESS:
        return f"{counts[0]}, {counts[1]}, ..." if counts.step > 1 else f"{counts[0]} or more"
    if len(counts) > 6:
        return f"{counts[0]}, {counts[1]}, ... {counts[-1]}"
    return ", ".join(map(str, counts))


def _whole(tokenizer: Tokenizer, most: int) -> list[int]:
    """The counts for which the size that `stamp` assumes takes just as many."""
    counts = torch.arange(1, most + 1)
    return [
        count
        for count, extent in zip(counts.tolist(), tokenizer.default_extents(counts).tolist(), strict=True)
        if tokenizer.num_tokens(extent) == count
    ]


def _up_to(tokenizer: Tokenizer, whole: list[int]) -> Sequence[int]:
    """Whole items, and their starts where those decode."""
    facts = tokenizer.facts
    if not whole:
        raise ValueError(f"no number of tokens makes a whole item of {facts.name}: name the extent")
    if not facts.may_be_short:
        return tuple(whole)
    if facts.keeps:
        return tuple(sorted({*whole, *(keep for keep in facts.keeps if keep <= whole[-1])}))
    return range(1, whole[-1] + 1)
