"""Length by quality: as few tokens as a score allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .tokens import Tokens

if TYPE_CHECKING:
    from .facts import Facts
    from .tokenizer import Tokenizer


def shorten(tokenizer: Tokenizer, signal: Any, score: Callable[[Any, Any], Any], at_least: float) -> Tokens:
    """Every item kept to the fewest legal tokens whose reconstruction scores `at_least`.

    signal    what `tokenizer.encode` takes: a stacked batch, or a list of preprocessed items
    score     score(decoded, original) of a batch of one, as a number or a tensor of one; higher is better
    at_least  the score to reach; an item that never does keeps all it has

    Bisects the legal counts, item by item, on the assumption that more tokens never score worse. Where they
    sometimes do, the result may be longer than the shortest that passes, and an item may keep everything
    although a prefix would have passed.

    Along codebooks a batch has one depth, the deepest that any of its items needs; shorten items one at a
    time for a depth each. Raises ValueError when the tokenizer is not nested.
    """
    facts = tokenizer.facts
    facts.check_keep(1 if not facts.keeps else facts.keeps[0])
    items = tokenizer.encode(signal).unbind()
    ladders = [_legal_counts(facts, item) for item in items]
    low, high = [0] * len(items), [len(ladder) - 1 for ladder in ladders]
    while open_items := [index for index in range(len(items)) if low[index] < high[index]]:
        middle = {index: (low[index] + high[index]) // 2 for index in open_items}
        trials = {index: _kept(items[index], ladders[index][middle[index]]) for index in open_items}
        for index, decoded in _decoded(tokenizer, trials).items():
            if _passes(score, decoded, signal[index], at_least):
                high[index] = middle[index]
            else:
                low[index] = middle[index] + 1
    counts = [ladder[place] for ladder, place in zip(ladders, high, strict=True)]
    if facts.nested == "codebooks":
        counts = [max(counts)] * len(counts)
    return Tokens.cat([_kept(item, count) for item, count in zip(items, counts, strict=True)])


def _legal_counts(facts: Facts, item: Tokens) -> list[int]:
    """Counts that decode, rising; the last is all the item has."""
    whole = len(item.codebook_sizes) if facts.nested == "codebooks" else int(item.lengths[0])
    return [*(count for count in facts.keeps or range(1, whole) if count < whole), whole]


def _kept(item: Tokens, count: int) -> Tokens:
    return item.keep(count) if count else item


def _decoded(tokenizer: Tokenizer, trials: dict[int, Tokens]) -> dict[int, Any]:
    """Each trial decoded, without padding; those of one depth in one batch."""
    decoded: dict[int, Any] = {}
    for depth in {trial.values.shape[2:] for trial in trials.values()}:
        members = {index: trial for index, trial in trials.items() if trial.values.shape[2:] == depth}
        batch = Tokens.cat(list(members.values()))
        decoded |= zip(members, batch.crop(tokenizer.decode(batch)), strict=True)
    return decoded


def _passes(score: Callable[[Any, Any], Any], decoded: Any, original: Any, at_least: float) -> bool:
    """Whether one item scores enough; NaN does not."""
    if isinstance(decoded, str | bytes):
        return float(score([decoded], [original])) >= at_least
    return float(score(decoded[None], original[None].to(decoded))) >= at_least
