"""A few originals and reconstructions for a model card, of samples that ship with the package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .facts import Facts
    from .tokenizer import Tokenizer
    from .tokens import Tokens

# Everything together: a card is read over a telephone, too.
MAX_BYTES = 2 * 2**20
# Lengths shown besides all.
MAX_KEEPS = 3
_GALLERIES = {"image": "image.gallery", "audio": "audio.gallery"}


@dataclass(frozen=True, eq=False)
class Gallery:
    """Files by name, at most MAX_BYTES together, and the Markdown that shows them."""

    files: Mapping[str, bytes]
    text: str


def draw_gallery(tokenizer: Tokenizer, keeps: Sequence[int] = ()) -> Gallery | None:
    """Samples of the package, there and back at these lengths and in full; None for text.

    Never of the user's data: what is pushed is public.
    """
    home = _GALLERIES.get(tokenizer.facts.modality)
    if home is None or not tokenizer.facts.has_decoder:
        return None
    module = importlib.import_module(f"..{home}", __package__)
    return module.draw_gallery(tokenizer, [*_evenly(keeps, MAX_KEEPS), None])


def kept(tokenizer: Tokenizer, tokens: Tokens, signals: list, keep: int | None) -> Tokens:
    """These tokens at a length: a prefix, or made anew where the tokenizer has no prefixes."""
    if keep is None:
        return tokens
    return tokenizer.encode(signals, keep=keep) if tokenizer.facts.makes_fewer else tokens.keep(keep)


def told_length(facts: Facts, keep: int | None) -> str:
    """As a heading: "8 tokens", "1 codebook", "all"."""
    counted = facts.nested or "tokens"
    if keep is None:
        return "all" if facts.nested or facts.makes_fewer else "decoded"
    return f"{keep} {counted[:-1] if keep == 1 else counted}"


def _evenly(keeps: Sequence[int], most: int) -> list[int]:
    """The ends and what lies evenly between."""
    if len(keeps) <= most:
        return list(keeps)
    return [keeps[index * (len(keeps) - 1) // (most - 1)] for index in range(most)]
