"""The pieces of a vocabulary as a tree: which of them start at a place, found in one walk."""

from __future__ import annotations

from collections.abc import Mapping

NO_PIECE = -1


class Trie:
    """Pieces by their bytes. The fields are for inner loops, which cannot afford a call a byte:

        node = 0
        for place in range(start, len(data)):
            node = steps.get(node << 8 | data[place], -1)
            if node < 0:
                break
            if (found := ids[node]) >= 0:
                ...  # data[start : place + 1] is piece `found`

    pieces     bytes -> id
    backwards  from the last byte to the first: which pieces end at a place
    steps      node << 8 | byte -> node; the root is 0
    ids        node -> id of the piece that ends there, or NO_PIECE
    """

    def __init__(self, pieces: Mapping[bytes, int], *, backwards: bool = False) -> None:
        self.steps: dict[int, int] = {}
        self.ids = [NO_PIECE]
        for piece, piece_id in pieces.items():
            node = 0
            for byte in reversed(piece) if backwards else piece:
                key = node << 8 | byte
                node = self.steps.setdefault(key, len(self.ids))
                if node == len(self.ids):
                    self.ids.append(NO_PIECE)
            self.ids[node] = piece_id

    def forget(self, piece: bytes) -> None:
        """From now on this piece is not found."""
        node = 0
        for byte in piece:
            node = self.steps[node << 8 | byte]
        self.ids[node] = NO_PIECE

    def matches(self, data: bytes, start: int, stop: int) -> list[tuple[int, int]]:
        """(end, id) of every piece that starts at `start` and ends by `stop`, the shortest first."""
        steps, ids = self.steps, self.ids
        found: list[tuple[int, int]] = []
        node = 0
        for place in range(start, stop):
            node = steps.get(node << 8 | data[place], -1)
            if node < 0:
                break
            if ids[node] >= 0:
                found.append((place + 1, ids[node]))
        return found

    def longest(self, data: bytes, start: int, stop: int) -> tuple[int, int]:
        """(end, id) of the longest piece that starts at `start` and ends by `stop`; (start, NO_PIECE) when
        there is none."""
        steps, ids = self.steps, self.ids
        end, found, node = start, NO_PIECE, 0
        for place in range(start, stop):
            node = steps.get(node << 8 | data[place], -1)
            if node < 0:
                break
            if ids[node] >= 0:
                end, found = place + 1, ids[node]
        return end, found
