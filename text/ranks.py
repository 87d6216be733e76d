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
from itertools import pairwise

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


def ranks_of(vocab: TextVocab, *, whole_first: bool = False) -> dict[bytes, int] | None:
    """Piece -> place in the order of joining, for the merges of a byte-level vocabulary; None when ranks
    cannot say the same, or a byte is missing.

    whole_first  the model looks up whole pretokens before it merges (`ignore_merges`); tiktoken always does
    """
    index = vocab.index
    if not vocab.merges or not vocab.covers_bytes:
        return None
    places: dict[bytes, int] = {}
    listed: dict[bytes, dict[tuple[bytes, bytes], int]] = {}
    pieces = vocab.pieces
    for place, (left, right, product) in enumerate(vocab.merges):
        places.setdefault(pieces[product], place)
        listed.setdefault(pieces[product], {}).setdefault((pieces[left], pieces[right]), place)
        if index.get(pieces[product]) != product:
            return None
    never = {piece: len(vocab.merges) + number for number, piece in enumerate(index) if piece not in places}
    if whole_first:
        places |= {piece: place for piece, place in never.items() if len(piece) > 1}
    ranks, order = {}, []
    for piece, place in places.items():
        split = split_of(piece, places)
        if split is None:
            if whole_first:  # found whole, and never formed
                ranks[piece] = place
            continue
        pair = (piece[:split], piece[split:])
        if pair not in listed.get(piece, {}):
            return None
        order.append((place, listed[piece][pair]))
        ranks[piece] = place
    order.sort()
    if any(earlier[1] > later[1] for earlier, later in pairwise(order)):
        return None
    return ranks


def _starts(piece: bytes, by_character: bool) -> list[int]:
    """Where its atoms start, and where it ends."""
    if len(piece) > MAX_PIECE_BYTES:
        raise ValueError(f"piece of {len(piece)} bytes: expected at most {MAX_PIECE_BYTES}")
    if not by_character:
        return list(range(len(piece) + 1))
    return [*(place for place, byte in enumerate(piece) if byte & 0xC0 != 0x80), len(piece)]
