"""Keeps the spans of media legal while a model of transformers generates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .optional import require
from .span_grammar import Allowed, SpanGrammar

if TYPE_CHECKING:
    from transformers import LogitsProcessor

    from .interleave import JointTokenizer
else:
    LogitsProcessor = require("transformers", "transformers").LogitsProcessor


class SpanProcessor(LogitsProcessor):
    """Lets `generate(logits_processor=[...])` make only sequences that the joint tokenizer decodes.

    In text, text and begin markers may come. After a begin marker only the codebook whose turn it is, until
    the item has a legal number of tokens; then the end marker, and where more tokens are legal the model
    chooses. Each row is read anew at each step, from its ids alone: rows of a batch stand where they like,
    prompts may end inside a span, and beams that swap their histories stay right.

    joint       the joint tokenizer
    counts      fewer counts of tokens than are legal, by medium: {"image": (32,), "speech": range(25, 251)}
    media       names of those that may begin; default: all
    max_length  ids of prompt and continuation together, where `generate` stops: no span is begun that cannot
                end before, and an open one is ended in time. Without it the last span may be cut

    Processors that come before and forbid ids (bad words, repetition) can leave none; put what samples after.
    ValueError for counts that do not decode.
    """

    # State is read off the ids of a rectangle of rows; continuous batching hands over rows of one token.
    supports_continuous_batching = False

    def __init__(
        self,
        joint: JointTokenizer,
        *,
        counts: Mapping[str, Sequence[int]] | None = None,
        media: Collection[str] | None = None,
        max_length: int | None = None,
    ) -> None:
        legal = dict(joint.counts)
        for name, chosen in (counts or {}).items():
            legal[name] = _chosen(name, chosen, joint)
        self.grammar = SpanGrammar(joint.vocabulary, legal, media=media, max_length=max_length)
        self._masks: dict[tuple[Allowed, int, torch.device], Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores (B, V), with -inf for every id that may not follow its row of input_ids (B, L)."""
        if scores.shape[1] < self.grammar.vocabulary.size:
            raise ValueError(
                f"the model knows {scores.shape[1]} ids, the joint vocabulary has "
                f"{self.grammar.vocabulary.size}: model.resize_token_embeddings(joint.vocabulary.size)"
            )
        allowed = [self.grammar.allowed(state) for state in self.grammar.states(input_ids)]
        distinct = {each: number for number, each in enumerate(dict.fromkeys(allowed))}
        masks = torch.stack([self._mask(each, scores) for each in distinct])
        rows = torch.tensor([distinct[each] for each in allowed], device=scores.device)
        return scores.masked_fill(~masks[rows], -torch.inf)

    def _mask(self, allowed: Allowed, scores: Tensor) -> Tensor:
        key = (allowed, scores.shape[1], scores.device)
        if key not in self._masks:
            self._masks[key] = allowed.mask(scores.shape[1], scores.device)
        return self._masks[key]


def _chosen(name: str, chosen: Sequence[int], joint: JointTokenizer) -> Sequence[int]:
    if name not in joint.counts:
        raise ValueError(f"counts of {name!r}: the joint tokenizer has {', '.join(joint.counts)}")
    if not isinstance(chosen, Iterable):
        raise ValueError(f"counts of {name} {chosen!r}: expected a list of counts, e.g. [{chosen!r}]")
    legal = joint.counts[name]
    if isinstance(chosen, range):
        counts = chosen if chosen.step > 0 else chosen[::-1]
        is_legal, shown = _are_legal(counts, legal), str(chosen)
    else:
        counts = tuple(sorted(set(chosen)))
        is_legal, shown = all(count in legal for count in counts), str(list(counts[:8]))
    if not counts or not is_legal:
        from .legal_counts import listed

        raise ValueError(f"counts of {name} {shown}: it decodes {listed(legal)} tokens")
    return counts


def _are_legal(counts: range, legal: Sequence[int]) -> bool:
    """Whether all of a rising range are legal, by its ends: ranges without end cannot be walked through."""
    if not counts or not isinstance(legal, range):
        return all(count in legal for count in counts[: len(legal) + 1])  # one more than can be legal
    is_single = counts[0] == counts[-1]
    return counts[0] in legal and counts[-1] in legal and (is_single or counts.step % legal.step == 0)
