"""A vocabulary of byte strings: what trainers make, segmenters use and every loader of a file returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

# The largest vocabulary known holds about 1,000,000 pieces; a hostile file cannot ask for more than this.
MAX_PIECES = 1 << 22


@dataclass(frozen=True)
class TextVocab:
    """Pieces, and what the model knows about them. Immutable; everything is bytes.

    pieces    id -> the bytes it decodes to. b"" for an id that nobody uses (a hole). Conventions of others
              are gone: no 'Ġ', no '▁', no '##'; a word start that means a space holds that space.
    merges    (left, right, product) ids in rank order, pieces[product] == pieces[left] + pieces[right];
              () when this is no merge model
    scores    natural log probability of every id, of a unigram model; () elsewhere
    specials  name -> id; text never yields one. Their pieces are their names in UTF-8, so that decoding
              shows them; `index` leaves them out, so that no segmenter can find them.
    unused    ids that text never yields, though they have bytes: inner nodes of Scaffold-BPE, the control
              characters of a foreign file. `index` leaves them out.
    fallback  256 ids, of the bytes 0 ... 255, for what no piece covers; () when the pieces cover every byte.
              `index` leaves them out where another piece has the same byte.
    unknown   id for text that nothing covers; None when everything is covered. Its piece is what it
              decodes to.
    groups    name -> ids that a segmenter tells from the others, such as "root" and "affix"

    Raises ValueError when ids, lengths or bytes disagree, naming the first that does.
    """

    pieces: tuple[bytes, ...]
    merges: tuple[tuple[int, int, int], ...] = ()
    scores: tuple[float, ...] = ()
    specials: Mapping[str, int] = field(default_factory=dict)
    unused: frozenset[int] = frozenset()
    fallback: tuple[int, ...] = ()
    unknown: int | None = None
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.pieces)
        if not 1 <= count <= MAX_PIECES:
            raise ValueError(f"{count} pieces: expected 1 ... {MAX_PIECES}")
        if self.scores and len(self.scores) != count:
            raise ValueError(f"{len(self.scores)} scores for {count} pieces: give one each, or none")
        for score in self.scores:
            if not math.isfinite(score):
                raise ValueError(f"score {score}: expected a finite log probability")
        if self.fallback and len(self.fallback) != 256:
            raise ValueError(f"{len(self.fallback)} fallback ids: expected one for each of the 256 bytes")
        unknown = () if self.unknown is None else (self.unknown,)
        for kind, ids in (
            ("special", self.specials.values()),
            ("unused", self.unused),
            ("fallback", self.fallback),
            ("unknown", unknown),
            *((f"group {name!r}:", ids) for name, ids in self.groups.items()),
        ):
            _check_ids(kind, ids, count)
        for byte, piece in enumerate(self.fallback):
            if self.pieces[piece] != bytes([byte]):
                raise ValueError(
                    f"fallback id {piece} decodes to {self.pieces[piece]!r}: expected byte {byte}"
                )
        _check_merges(self.pieces, self.merges)

    def __len__(self) -> int:
        """One more than the largest id: rows of an embedding. Holes count."""
        return len(self.pieces)

    @cached_property
    def index(self) -> dict[bytes, int]:
        """Bytes -> id, of the pieces that text may yield; the lowest id where several have the same bytes."""
        hidden = {*self.specials.values(), *self.unused, *self.fallback}
        if self.unknown is not None:
            hidden.add(self.unknown)
        found: dict[bytes, int] = {}
        for piece_id, piece in enumerate(self.pieces):
            if piece and piece_id not in hidden:
                found.setdefault(piece, piece_id)
        for piece_id in self.fallback:
            found.setdefault(self.pieces[piece_id], piece_id)
        return found

    @cached_property
    def ranks(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(left, right) -> (rank, product); the first rank where a pair is listed twice."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, (left, right, product) in enumerate(self.merges):
            found.setdefault((left, right), (rank, product))
        return found

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest piece that text may yield: how far a segmenter has to look."""
        return max(map(len, self.index), default=0)

    @property
    def covers_bytes(self) -> bool:
        """Whether every byte string can be written: each of the 256 bytes is a piece."""
        return all(bytes([byte]) in self.index for byte in range(256))

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes of these ids, joined: a homomorphism. ValueError for an id out of range, or of a hole."""
        try:
            parts = list(map(self.pieces.__getitem__, ids))
        except IndexError:
            parts = []
        if len(parts) != len(ids) or (ids and min(ids) < 0) or not all(parts):
            count = len(self.pieces)
            bad = next(each for each in ids if not (0 <= each < count and self.pieces[each]))
            held = "no piece has this id" if 0 <= bad < count else f"expected 0 ... {count - 1}"
            raise ValueError(f"id {bad} is out of range: {held}")
        return b"".join(parts)

    @classmethod
    def of_bytes(cls, specials: Sequence[str] = ()) -> TextVocab:
        """The 256 bytes under their own values, then the specials: where every byte-level trainer starts."""
        for name in specials:
            if not isinstance(name, str) or not name:
                raise ValueError(f"special {name!r}: expected a string that is not empty")
        names = tuple(name.encode() for name in specials)
        return cls(
            pieces=(*(bytes([byte]) for byte in range(256)), *names),
            specials={name: 256 + position for position, name in enumerate(specials)},
        )


def _check_ids(kind: str, ids: Iterable[int], count: int) -> None:
    for piece_id in ids:
        if not 0 <= piece_id < count:
            raise ValueError(f"{kind} id {piece_id}: expected 0 ... {count - 1}")


def _check_merges(pieces: Sequence[bytes], merges: Iterable[tuple[int, int, int]]) -> None:
    count = len(pieces)
    for rank, (left, right, product) in enumerate(merges):
        if not (0 <= left < count and 0 <= right < count and 0 <= product < count):
            raise ValueError(f"merge {rank} is ({left}, {right}, {product}): expected ids 0 ... {count - 1}")
        if pieces[product] != pieces[left] + pieces[right]:
            raise ValueError(
                f"merge {rank} makes {pieces[product]!r} of {pieces[left]!r} and {pieces[right]!r}: "
                "expected the two joined"
            )
