"""Merges by rank: tiktoken's way to write byte-pair encoding, and when it is the same as a list of merges.

A list of merges joins two neighbours when that very pair is listed. Ranks join any two neighbours whose bytes
together are a piece. Both take the lowest rank first, and the leftmost of equals. Now take one piece by
itself and join by ranks: at most one state on the way has two parts. Wherever the piece forms inside a longer
text, nothing was merged across its ends, so what happened inside is what happens by itself, and it forms from
the same two parts. So only one split of each piece can ever occur; when the list has it, in the order of the
ranks, both ways agree on every text, whatever else is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .vocab import TextVocab

# Longer than any real piece (512 spaces); joining costs the square of it.
MAX_PIECE_BYTES = 1024
_NEVER = 1 << 62


def split_of(piece: bytes, ranks: Mapping[bytes, int], *, by_character: bool = False) -> int | None:
    """Where the last two parts of a piece meet on its way from its atoms, joined by ranks; None for an atom,
    and for a piece that never forms.

    by_character  atoms are characters, not bytes
    """
    cuts, never = _starts(piece, by_character), _NEVER
    if len(cuts) < 3:
        return None
    costs = [ranks.get(piece[left:right], never) for left, right in zip(cuts, cuts[2:], strict=False)]
    while len(costs) > 1:
        best = min(costs)
        if best == never:
            return None
        place = costs.index(best)
        del costs[place], cuts[place + 1]
        if place < len(costs):
            costs[place] = ranks.get(piece[cuts[place] : cuts[place + 2]], never)
        if place:
            costs[place - 1] = ranks.get(piece[cuts[place - 1] : cuts[place + 1]], never)
    return cuts[1] if costs[0] != never else None


def merges_of(ranks: Mapping[bytes, int], *, by_character: bool = False) -> list[tuple[bytes, bytes]]:
    """Merges that encode every text as these ranks do, in rank order.

    by_character  text starts as its characters (sentencepiece), not as its bytes

    Pieces that never form have none: only a model that looks whole pretokens up first can use them.
    ValueError for a piece longer than MAX_PIECE_BYTES.
    """
    merges = []
    for piece in sorted(ranks, key=ranks.__getitem__):
        if (place := split_of(piece, ranks, by_character=by_character)) is not None:
            merges.append((piece[:place], piece[place:]))
    return merges


@dataclass(frozen=True)
class Ranks:
    """Pieces of two bytes or more, as tiktoken needs them.

    joined  those that form by joining, in the order in which they are joined
    whole   those that never form, and are found only where they are a whole pretoken
    """

    joined: tuple[bytes, ...]
    whole: tuple[bytes, ...] = ()


def ranks_of(vocab: TextVocab, *, whole_first: bool = False) -> Ranks | None:
    """The ranks that encode every text as the merges of a byte-level vocabulary do; None when there are none,
    or a byte is missing.

    whole_first  the model looks up whole pretokens before it merges (`ignore_merges`); tiktoken always does
    """
    index, pieces = vocab.index, vocab.pieces
    if not vocab.merges or not vocab.covers_bytes:
        return None
    places: dict[bytes, int] = {}
    listed: dict[bytes, dict[int, int]] = {}
    for place, (left, _, product) in enumerate(vocab.merges):
        piece = pieces[product]
        if index.get(piece) != product:
            return None
        places.setdefault(piece, place)
        listed.setdefault(piece, {}).setdefault(len(pieces[left]), place)
    if whole_first:
        others = (piece for piece in index if len(piece) > 1 and piece not in places)
        places |= {piece: len(vocab.merges) + number for number, piece in enumerate(others)}
    joined: list[tuple[int, bytes]] = []
    whole: list[bytes] = []
    for piece in places:
        split = split_of(piece, places)
        if split is None:
            # Without a look at the whole, what never forms is never found; tiktoken must not know it.
            whole += [piece] if whole_first else []
        elif split in listed.get(piece, {}):
            joined.append((listed[piece][split], piece))
        else:
            return None
    in_order = [piece for _, piece in sorted(joined)]
    if in_order != sorted(in_order, key=places.__getitem__):
        return None
    return Ranks(tuple(in_order), tuple(whole))


def _starts(piece: bytes, by_character: bool) -> list[int]:
    """Where its atoms start, and where it ends."""
    if len(piece) > MAX_PIECE_BYTES:
        raise ValueError(f"piece of {len(piece)} bytes: expected at most {MAX_PIECE_BYTES}")
    if not by_character:
        return list(range(len(piece) + 1))
    return [*(place for place, byte in enumerate(piece) if byte & 0xC0 != 0x80), len(piece)]
