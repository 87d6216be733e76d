"""PathPiece's vocabulary (Schmidt et al. 2024): of a large one the pieces go that text can best spare.

Written from the paper's description; text is segmented into the fewest pieces (`segment.fewest`) throughout.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import train_bpe
from .corpus import Corpus
from .merge_run import open_log
from .pretoken_counts import Counts, count_pretokens, digest, pooled
from .pretokenizers import PreTokenizer
from .progress import progress_bar
from .trie import Trie
from .vocab import TextVocab

_BYTES = 256
_FAR = 1 << 30
# So many pieces go in one round at least, so that there is an end.
_LEAST_ROUND = 64


def train(
    corpus: Corpus,
    vocab_size: int,
    *,
    start_size: int | None = None,
    start: TextVocab | None = None,
    share: float = 0.25,
    max_piece_bytes: int = 16,
    pretokenizer: PreTokenizer | None = None,
    min_frequency: int = 2,
    specials: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TextVocab:
    """A vocabulary of `vocab_size` pieces, the 256 bytes and the specials among them, to segment by "fewest".

    Again and again it is found for each piece how many more tokens the corpus would take without it, and the
    pieces go whose loss costs least; of equals the rarest, then the longest. Bytes stay.

    start_size       pieces of the BPE vocabulary to begin with; by default four times `vocab_size`
    start            a vocabulary to begin with instead, such as a unigram model's
    share            of the pieces that are still too many, how much goes in one round: with a smaller share
                     there are more rounds, and what is worth keeping is judged more often
    max_piece_bytes  longest piece
    pretokenizer, min_frequency, specials, folder, progress
                     as of `train_bpe.train`. The folder holds counts, BPE's steps and what went in each round

    ValueError when there are fewer pieces to begin with than asked for, or `share` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: expected more than 0 and at most 1")
    pretokenizer = pretokenizer or PreTokenizer()
    if start is None:
        start = train_bpe.train(
            corpus,
            start_size or 4 * vocab_size,
            pretokenizer=pretokenizer,
            min_frequency=min_frequency,
            max_piece_bytes=max_piece_bytes,
            folder=folder,
            progress=progress,
        )
    pieces = [piece for piece in start.index if 1 < len(piece) <= max_piece_bytes]
    least = _BYTES + len(specials)
    if not least <= vocab_size <= least + len(pieces):
        raise ValueError(
            f"vocab_size={vocab_size}: expected {least} ... {least + len(pieces)}, from the 256 bytes and "
            "the specials to all pieces there are to begin with"
        )
    state = train_bpe.state_in(folder)
    counts = pooled(count_pretokens(corpus, pretokenizer, state=state, progress=progress))
    log = None if folder is None else Path(folder) / "rounds.log"
    kept = _pruned(pieces, counts, vocab_size - least, share, log, progress)
    return vocab_of_pieces(kept, specials)


def _pruned(
    pieces: Sequence[bytes], counts: Counts, size: int, share: float, log: Path | None, progress: bool
) -> list[bytes]:
    """The `size` pieces that are worth most, in their order. What a round does depends on the pieces that are
    left and on nothing else, so that the rounds in a log need not be gone through again."""
    told = hashlib.sha256(digest([counts]).encode())
    for piece in pieces:
        told.update(b"%d " % len(piece) + piece)
    past, file = open_log(log, f"rounds {share} {size} {told.hexdigest()}")
    gone = {number for numbers in past for number in numbers}
    left = [number for number in range(len(pieces)) if number not in gone]
    pruning = _Pruning([pieces[number] for number in left], counts)
    with (
        contextlib.nullcontext() if file is None else file,
        progress_bar(len(pieces) - size, "pruning", "piece", progress, done=len(gone)) as bar,
    ):
        while excess := len(pruning.alive) - size:
            removed = pruning.remove(min(excess, max(_LEAST_ROUND, math.ceil(share * excess))))
            if file is not None:
                file.write(" ".join(str(left[each - _BYTES]) for each in removed) + "\n")
                file.flush()
            bar.update(len(removed))
    return [pieces[left[each - _BYTES]] for each in sorted(pruning.alive)]


def vocab_of_pieces(pieces: Iterable[bytes], specials: Sequence[str] = ()) -> TextVocab:
    """The 256 bytes, these pieces and the specials, in this order; without merges and scores."""
    told = (*(bytes([byte]) for byte in range(_BYTES)), *pieces)
    return TextVocab(
        pieces=(*told, *(name.encode() for name in specials)),
        specials={name: len(told) + number for number, name in enumerate(specials)},
    )


class _Pruning:
    """Words, the pieces that are left, and what each piece is worth.

    pieces  all of two bytes or more; their ids follow those of the bytes
    """

    def __init__(self, pieces: Sequence[bytes], counts: Counts) -> None:
        self._pieces = [*(bytes([byte]) for byte in range(_BYTES)), *pieces]
        self.alive = set(range(_BYTES, len(self._pieces)))
        self._trie = Trie({piece: number for number, piece in enumerate(self._pieces)})
        self._words, self._counts = list(counts), list(counts.values())
        # Of each piece: tokens that the corpus would take more without it, how often it is used, and the
        # words that it occurs in, used or not.
        self._losses = [0] * len(self._pieces)
        self._uses = [0] * len(self._pieces)
        self._words_with: list[array[int]] = [array("i") for _ in self._pieces]
        self._found: list[list[tuple[int, int]]] = []
        for number, word in enumerate(self._words):
            lattice = self._lattice(word)
            for piece in {piece for steps in lattice for _, piece in steps if piece >= _BYTES}:
                self._words_with[piece].append(number)
            self._found.append(_losses(word, lattice))
            self._note(number, 1)

    def remove(self, count: int) -> list[int]:
        """Let go of so many pieces, the least worthy first; returns them."""
        pieces = self._pieces
        ranked = sorted(
            self.alive,
            key=lambda each: (self._losses[each], self._uses[each], -len(pieces[each]), pieces[each]),
        )
        touched: set[int] = set()
        for piece in ranked[:count]:
            self.alive.remove(piece)
            self._trie.forget(pieces[piece])
            touched.update(self._words_with[piece])
        for number in touched:
            self._note(number, -1)
            word = self._words[number]
            self._found[number] = _losses(word, self._lattice(word))
            self._note(number, 1)
        return ranked[:count]

    def _lattice(self, word: bytes) -> list[list[tuple[int, int]]]:
        size = len(word)
        return [self._trie.matches(word, start, size) for start in range(size)]

    def _note(self, number: int, sign: int) -> None:
        count = sign * self._counts[number]
        for piece, loss in self._found[number]:
            self._uses[piece] += count
            self._losses[piece] += count * loss


def _losses(word: bytes, lattice: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[int, int]]:
    """The pieces of two bytes or more in the shortest way through a word, and how much longer the word gets
    without each.

    A way that does without a piece has a cut inside it, or a longer piece around it; a way that uses the same
    piece at another place counts as one without.
    """
    size = len(word)
    before, after = [0] + [_FAR] * size, [_FAR] * size + [0]
    widths = [0] * (size + 1)
    for start, steps in enumerate(lattice):
        for end, _ in steps:
            if before[start] + 1 < before[end]:
                before[end], widths[end] = before[start] + 1, end - start
    for start in range(size - 1, -1, -1):
        after[start] = 1 + min(after[end] for end, _ in lattice[start])
    found: list[tuple[int, int]] = []
    end = size
    while end:
        start = end - widths[end]
        if end - start > 1:
            piece = next(piece for stop, piece in lattice[start] if stop == end)
            cut = min(before[place] + after[place] for place in range(start + 1, end))
            around = min(
                (
                    before[first] + 1 + after[last]
                    for first in range(start + 1)
                    for last, _ in lattice[first]
                    if last >= end and (first, last) != (start, end)
                ),
                default=_FAR,
            )
            found.append((piece, min(cut, around) - before[size]))
        end = start
    return found
