"""MYTE's bytes (Limisiewicz et al. 2024): UTF-8 in which frequent morphemes of every script have short codes.

Capital letters are written as a mark and the small letter, which frees the bytes 0x42 ... 0x5A: codes begin
with 0x42 ... 0x59 and go on with bytes of 0x80 ... 0xBE. Both steps can be undone. The official maps have no
use for 0x5A; here it comes before each byte that is no UTF-8, so that every byte string can be written.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import product

from .spans import runs
from .trie import NO_PIECE, Trie

CAPITAL, RAW = 0x41, 0x5A
# By bytes of a code: what its first byte is, after which the cluster is counted.
_LEADS = {2: 0x42, 3: 0x4A, 4: 0x52}
CLUSTERS = 8
# 0xBF is left out, as the official maps leave it out.
_FOLLOWING = range(0x80, 0xBF)
_CLUSTER_OF = {
    "LATIN": 0, "GREEK": 1, "CYRILLIC": 2, "HEBREW": 3, "ARABIC": 3, "CJK": 4, "HIRAGANA": 5, "KATAKANA": 5,
    "HANGUL": 6,
}  # fmt: skip
_OTHER = 7


class MorphemeBytes:
    """A way to write bytes: capitals apart, morphemes as codes.

    codes  morpheme, in small letters -> its code, shorter than the morpheme; all codes differ

    Every text and every byte string comes back. ValueError for a code that is no code, or no shorter than
    what it stands for.
    """

    def __init__(self, codes: Mapping[bytes, bytes]) -> None:
        for morpheme, code in codes.items():
            if not is_code(code) or len(code) >= len(morpheme):
                raise ValueError(
                    f"code {code.hex()} for {morpheme!r}: expected a shorter code, see myte.codes"
                )
        if len(set(codes.values())) != len(codes):
            raise ValueError("two morphemes have the same code: expected one each")
        self.codes = dict(codes)
        self._morphemes = list(codes)
        self._written = list(codes.values())
        self._trie = Trie({morpheme: number for number, morpheme in enumerate(self._morphemes)})

    def encode(self, text: str | bytes) -> bytes:
        """The longest morpheme at every place becomes its code, from left to right."""
        found = bytearray()
        for run in [text] if isinstance(text, str) else runs(text):
            if isinstance(run, str):
                for code, _ in self.parts(lowered(run)):
                    found += code
            else:
                found += b"".join(bytes((RAW, byte)) for byte in run)
        return bytes(found)

    def parts(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """What `lowered` wrote, as codes and single bytes, each with the place after what it stands for."""
        start, size = 0, len(data)
        while start < size:
            end, number = self._trie.longest(data, start, size)
            if number == NO_PIECE:
                end = start + 1
                yield data[start:end], end
            else:
                yield self._written[number], end
            start = end

    def decode(self, data: bytes, *, errors: str = "replace") -> str:
        """The text again. Codes that stand for nothing, which only a model writes, are left out; `errors`
        as of `bytes.decode`."""
        return self.restore(data).decode(errors=errors)

    def restore(self, data: bytes) -> bytes:
        """The inverse of `encode`, of every byte string."""
        found, run = bytearray(), bytearray()
        start = 0
        while start < len(data):
            size = code_size(data[start])
            code = data[start : start + size]
            start += size
            if code[0] == RAW:
                # A capital is never made of what is no text.
                found += raised(bytes(run)) + data[start : start + 1]
                run.clear()
                start += 1
            elif size == 1:
                run += code
            else:
                run += self._back.get(code, b"")
        return bytes(found + raised(bytes(run)))

    @cached_property
    def _back(self) -> dict[bytes, bytes]:
        return {code: morpheme for morpheme, code in self.codes.items()}


def codes(ranked: Iterable[bytes]) -> dict[bytes, bytes]:
    """Codes for morphemes, given the most useful first: the shortest that is free in the cluster of their
    script and shorter than the morpheme; those for which there is none are left out."""
    free: dict[tuple[int, int], Iterator[bytes]] = {}
    found: dict[bytes, bytes] = {}
    for morpheme in ranked:
        cluster = cluster_of(morpheme)
        for size in range(2, min(len(morpheme), 5)):
            code = next(free.setdefault((size, cluster), _codes_of(size, cluster)), None)
            if code is not None:
                found[morpheme] = code
                break
    return found


def code_size(first: int) -> int:
    """Bytes of the code that begins with this byte; 1 for a byte that begins none."""
    for size, lead in _LEADS.items():
        if lead <= first < lead + CLUSTERS:
            return size
    return 1


def is_code(code: bytes) -> bool:
    """Whether these bytes can be a code."""
    return len(code) > 1 and code_size(code[0]) == len(code) and all(byte in _FOLLOWING for byte in code[1:])


def cluster_of(morpheme: bytes) -> int:
    """The cluster, by the script of the first letter."""
    for letter in morpheme.decode(errors="ignore"):
        if letter.isalpha():
            return _CLUSTER_OF.get(unicodedata.name(letter, "").partition(" ")[0], _OTHER)
    return _OTHER


def lowered(text: str) -> bytes:
    """UTF-8 with the mark before the small letter for every capital that its small letter leads back to. Of
    those that it does not, none are ASCII."""
    return "".join(map(_lowered, text)).encode()


def raised(data: bytes) -> bytes:
    """The inverse of `lowered`; of any bytes, such as a model writes."""
    parts = data.decode(errors="surrogateescape").split(chr(CAPITAL))
    text = parts[0] + "".join(part[:1].upper() + part[1:] for part in parts[1:])
    return text.encode(errors="surrogateescape")


@lru_cache(maxsize=1 << 14)
def _lowered(letter: str) -> str:
    small = letter.lower()
    return (
        chr(CAPITAL) + small if letter.isupper() and len(small) == 1 and small.upper() == letter else letter
    )


def _codes_of(size: int, cluster: int) -> Iterator[bytes]:
    rest: Sequence[range] = [_FOLLOWING] * (size - 1)
    for following in product(*rest):
        yield bytes([_LEADS[size] + cluster, *following])
