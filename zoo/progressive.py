"""The same item from ever longer prefixes of its tokens, decoded together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .facts import Facts
from .tokenizer import Tokenizer
from .tokens import Tokens


def decode_progressive(
    tokenizer: Tokenizer,
    tokens: Tokens,
    counts: Sequence[int] | None = None,
    *,
    generators: Sequence[Any] | None = None,
) -> list[Any]:
    """What each prefix decodes to, a list of signals, one for each count; nested tokens in one mixed batch.

    tokens      of a nested tokenizer
    counts      how many tokens (or codebooks) to keep, default 1, 2, 4, ... and all, where they are legal
    generators  torch generators, one per item, for tokenizers that draw noise. Each prefix of an item starts
                from the same state, so what comes out differs by its tokens alone; the generators themselves
                are not moved. Without them all start from the noise of seed 0

    Raises ValueError when the tokenizer is not nested or a count is not legal.
    """
    facts = tokenizer.facts
    if facts.nested is None:
        raise ValueError(f"{facts.name} is not nested: it decodes all of its tokens, or none")
    if generators is not None and len(generators) != len(tokens):
        raise ValueError(f"{len(generators)} generators for {len(tokens)} items: give one per item")
    counts = _powers(tokens, facts) if counts is None else counts
    prefixes = [tokens.keep(count) for count in counts]
    if facts.nested == "codebooks" or not prefixes:  # of different widths: they do not lie in one batch
        return [tokenizer.decode(prefix, generator=_copies(generators)) for prefix in prefixes]
    together = None if generators is None else [each for _ in prefixes for each in _copies(generators)]
    signal = tokenizer.decode(Tokens.cat(prefixes), generator=together)
    return [signal[start : start + len(tokens)] for start in range(0, len(signal), len(tokens))]


def _copies(generators: Sequence[Any] | None) -> Any:
    """Generators of the same states."""
    return None if generators is None else [each.clone_state() for each in generators]


def _powers(tokens: Tokens, facts: Facts) -> list[int]:
    """1, 2, 4, ... and the full count; of these the legal ones."""
    full = tokens.values.shape[1] if facts.nested == "tokens" else len(tokens.codebook_sizes)
    powers = [1 << power for power in range((full - 1).bit_length())] + [full]
    return [count for count in powers if not facts.keeps or count in facts.keeps]
