"""Roots and affixes before merges, for languages that string suffixes together (Bayram et al. 2025, Turkish).

The paper gives all spellings of an affix one id and lets the decoder choose by vowel harmony, which does not
always choose what was there. Here every spelling is a piece of its own, so that text comes back.
"""

from __future__ import annotations

from array import array

from .segment import Segment, by_merges
from .trie import Trie
from .vocab import TextVocab

# Groups of the vocabulary. A head stands before a root: a space, the mark of a capital, both, an apostrophe.
HEAD, ROOT, AFFIX = "head", "root", "affix"
# Between a name and its affixes.
APOSTROPHES = (b"'", "’".encode())
_FAR = (1 << 31) - 1


def root_affix_segmenter(vocab: TextVocab) -> Segment:
    """The ids of a pretoken: a head if there is one, the longest root after which nothing but affixes is
    left, and the fewest affixes that make the rest, the longest first among equals. After an apostrophe no
    root is needed. A pretoken that is none of this is written by the merges of the vocabulary.

    ValueError when the vocabulary lacks one of the groups, or a byte.
    """
    if missing := [name for name in (HEAD, ROOT, AFFIX) if name not in vocab.groups]:
        raise ValueError(f"the vocabulary has no group {missing[0]!r}: expected one of train_root_affix")
    single = [vocab.index[bytes([byte])] for byte in range(256)] if vocab.covers_bytes else []
    merged = by_merges(vocab) if vocab.merges or not single else lambda data: [single[byte] for byte in data]
    parser = RootAffixParser(
        *({vocab.pieces[each]: each for each in vocab.groups[name]} for name in (HEAD, ROOT, AFFIX))
    )

    def segment(data: bytes) -> list[int]:
        return parser.parse(data) or merged(data)

    return segment


class RootAffixParser:
    """Words that are a root and affixes, by their bytes.

    heads, roots, affixes  bytes -> id
    """

    def __init__(self, heads: dict[bytes, int], roots: dict[bytes, int], affixes: dict[bytes, int]) -> None:
        self._heads, self._roots, self._affixes = Trie(heads), Trie(roots), Trie(affixes)

    def parse(self, data: bytes) -> list[int]:
        """The ids of root and affixes, with a head where there is one; [] where it is something else."""
        start, head = self._heads.longest(data, 0, len(data))
        widths = self._widths(data)
        # A root may hold its space itself: then the space is no head.
        whole = self._way(data, 0, widths)
        if not start:
            return whole
        after = self._way(data, start, widths)
        if not after and data[:start] in APOSTROPHES and widths[start]:
            after = self._chain(data, start, widths)
        ways = [way for way in (whole, [head, *after] if after else []) if way]
        return min(ways, key=len, default=[])

    def _way(self, data: bytes, start: int, widths: array[int]) -> list[int]:
        """The longest root at a place after which affixes lead to the end, and those."""
        for end, root in reversed(self._roots.matches(data, start, len(data))):
            if end == len(data) or widths[end]:
                return [root, *self._chain(data, end, widths)]
        return []

    def _widths(self, data: bytes) -> array[int]:
        """Of each place the bytes of the first affix in the fewest that lead to the end; 0 where none do."""
        size = len(data)
        counts, widths = array("i", [_FAR]) * (size + 1), array("i", [0]) * (size + 1)
        counts[size] = 0
        for start in range(size - 1, -1, -1):
            for end, _ in self._affixes.matches(data, start, size):
                # The longest of equals comes last.
                if counts[end] < _FAR and counts[end] + 1 <= counts[start]:
                    counts[start], widths[start] = counts[end] + 1, end - start
        return widths

    def _chain(self, data: bytes, start: int, widths: array[int]) -> list[int]:
        found: list[int] = []
        while start < len(data):
            end = start + widths[start]
            found.append(self._affixes.longest(data, start, end)[1])
            start = end
        return found
