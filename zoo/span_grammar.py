"""What may come next in a sequence of text and media, read off the ids so far."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .flat_order import ids_before_step, tail
from .vocabulary import Block, JointVocabulary


@dataclass(frozen=True)
class State:
    """Where a sequence stands.

    length  ids so far
    block   of the medium whose span is open; None in text
    begin   place of its begin marker
    begun   how many ids of codebook 0 stand in it
    """

    length: int
    block: Block | None = None
    begin: int = 0
    begun: int = 0

    @property
    def inner(self) -> int:
        """Ids since the begin marker."""
        return self.length - self.begin - 1


@dataclass(frozen=True)
class Allowed:
    """What may come next: ranges of ids, and single markers."""

    ranges: tuple[range, ...] = ()
    markers: tuple[int, ...] = ()

    def mask(self, width: int, device: torch.device) -> Tensor:
        """(width,) bool, True for ids that may come."""
        mask = torch.zeros(width, dtype=torch.bool, device=device)
        for ids in self.ranges:
            mask[ids.start : ids.stop] = True
        mask[list(self.markers)] = True
        return mask


class SpanGrammar:
    """The rules of a joint vocabulary.

    vocabulary  the table
    counts      legal counts of tokens of each medium, rising
    media       those that may begin; default: all
    max_length  ids that a sequence can hold; None: no end
    """

    def __init__(
        self,
        vocabulary: JointVocabulary,
        counts: Mapping[str, Sequence[int]],
        *,
        media: Collection[str] | None = None,
        max_length: int | None = None,
    ) -> None:
        self.vocabulary, self.counts, self.max_length = vocabulary, counts, max_length
        wanted = [block.medium.name for block in vocabulary.blocks] if media is None else media
        self._openable = tuple(vocabulary.block(name) for name in wanted)
        # By id: the number of the block, from 1, that a begin marker opens, negative that an end marker
        # closes; and whether it is of a first codebook.
        self._marker = torch.zeros(vocabulary.size + 1, dtype=torch.int64)
        self._first = torch.zeros(vocabulary.size + 1, dtype=torch.bool)
        for number, block in enumerate(vocabulary.blocks, start=1):
            self._marker[block.begin], self._marker[block.end] = number, -number
            self._first[block.ranges[0].start : block.ranges[0].stop] = True

    def states(self, ids: Tensor) -> list[State]:
        """Where each row of ids (B, L) stands; whatever is no id of the table counts as text."""
        batch, length = ids.shape
        if not length:
            return [State(0)] * batch
        self._marker, self._first = self._marker.to(ids.device), self._first.to(ids.device)
        known = ids.masked_fill((ids < 0) | (ids >= self.vocabulary.size), self.vocabulary.size)
        marker, places = self._marker[known], torch.arange(length, device=ids.device)
        begin = torch.where(marker > 0, places, -1).amax(1)
        is_open = begin > torch.where(marker < 0, places, -1).amax(1)
        begun = (self._first[known] & (places > begin[:, None])).sum(1)
        number = marker.gather(1, begin.clamp(min=0)[:, None])[:, 0] * is_open
        rows = torch.stack([number, begin, begun], dim=1).tolist()  # the one wait for the device
        return [
            State(length, self.vocabulary.blocks[number - 1], begin, begun) if number else State(length)
            for number, begin, begun in rows
        ]

    def allowed(self, state: State) -> Allowed:
        """What may come next. A span with more ids than an item takes can only end: it is of a prompt that
        `decode` refuses, or of a beam of probability 0, which must not stop the others."""
        block = state.block
        if block is None:
            text = range(self.vocabulary.text_size)
            return Allowed((text,), tuple(each.begin for each in self._openable if self._fits(each, state)))
        depth, inner = len(block.ranges), state.inner
        if block.medium.order == "token" or depth == 1:
            count, turn = divmod(inner, depth)
            return Allowed((block.ranges[turn],)) if turn else self._between(block, count, state)
        late = inner - ids_before_step(state.begun, depth)
        if late == 0:
            return self._between(block, state.begun, state)
        if late < 0:  # within the step that the last token began
            return Allowed((block.ranges[inner - ids_before_step(state.begun - 1, depth)],))
        rest = tail(state.begun, depth)
        return Allowed((block.ranges[rest[late]],)) if late < len(rest) else Allowed((), (block.end,))

    def _between(self, block: Block, count: int, state: State) -> Allowed:
        """After `count` tokens have begun another may begin, or the span comes to its end: by the end marker,
        or in a delayed stream by the codebooks that come late."""
        counts, depth = self.counts[block.medium.name], len(block.ranges)
        place = bisect_right(counts, count)
        may_end = bool(place) and counts[place - 1] == count
        may_go_on = place < len(counts) and (
            self.max_length is None or state.begin + 2 + counts[place] * depth <= self.max_length
        )
        if not may_end and not may_go_on:
            if place == len(counts):
                return Allowed((), (block.end,))
            may_go_on = True  # no room to end well: what was begun will be cut
        ranges = [block.ranges[0]] * may_go_on
        if may_end and block.medium.order == "delay" and depth > 1:
            return Allowed((*ranges, block.ranges[1]))
        return Allowed(tuple(ranges), (block.end,) * may_end)

    def _fits(self, block: Block, state: State) -> bool:
        """Whether the shortest span of a medium still ends in time."""
        least = self.counts[block.medium.name][0] * len(block.ranges)
        return self.max_length is None or state.length + 2 + least <= self.max_length
