"""Tokens that a language model hardly saw in training, and misbehaves on (Land & Bartolo, EMNLP 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .vocab import TextVocab


@dataclass(frozen=True)
class Candidates:
    """Ids by what speaks against them, sorted; one id may stand in several.

    partial      bytes that are no whole characters: the model never meets them in valid text of their own
    unreachable  their own bytes do not encode to them, so that hardly any text does. Partial ones are left
                 out, as their bytes are no text.
    unseen       in no text that was counted
    """

    partial: tuple[int, ...]
    unreachable: tuple[int, ...]
    unseen: tuple[int, ...]


def undertrained_candidates(
    vocab: TextVocab, encode: Callable[[str], Sequence[int]], ids: Iterable[Sequence[int]]
) -> Candidates:
    """What the vocabulary alone says, without a model. Specials, holes and what is `unused` are left out.

    encode  `tokenizer.encode_ids`
    ids     of a sample of the text that the model was trained on, or nearly

    Of WordPiece `unreachable` says nothing: which id a piece has depends on what stands before it.
    """
    seen = {each for sequence in ids for each in sequence}
    hidden = {*vocab.specials.values(), *vocab.unused}
    partial, unreachable, unseen = [], [], []
    for piece_id, piece in enumerate(vocab.pieces):
        if not piece or piece_id in hidden:
            continue
        if piece_id not in seen:
            unseen.append(piece_id)
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            partial.append(piece_id)
            continue
        # Some tokenizers put a space before a text: then a newline keeps it away from the piece.
        if piece_id not in encode(text) and piece_id not in encode(f"\n{text}"):
            unreachable.append(piece_id)
    return Candidates(tuple(partial), tuple(unreachable), tuple(unseen))


def distances_to_unused(embeddings: np.ndarray, unused: Sequence[int]) -> np.ndarray:
    """Cosine distance of every embedding to the mean of those known to be unused: the small ones are suspect.

    embeddings  (V, D) of a model's output layer, or of its input where the two are tied
    unused      ids that no text yields: specials in reserve, bytes that UTF-8 has not (0xF5 ... 0xFF)
    returns     (V,) float64 in [0, 2]; 1 for a row of zeros

    ValueError for another shape, or without unused ids.
    """
    table = np.asarray(embeddings, np.float64)
    if table.ndim != 2 or not len(unused) or not 0 <= min(unused) <= max(unused) < len(table):
        raise ValueError(
            f"embeddings {table.shape}, unused ids {list(unused)[:8]}: expected (V, D), ids below V"
        )
    centre = table[list(unused)].mean(0)
    lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(centre)
    return 1 - np.divide(table @ centre, lengths, out=np.zeros(len(table)), where=lengths > 0)
