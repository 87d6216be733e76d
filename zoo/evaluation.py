"""How well a tokenizer reconstructs a data set, at each length: `evaluate` for images and speech."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .gallery import kept
from .judge import judge
from .measured import Measured
from .survey import Survey
from .tokenizer import NoDecoder

if TYPE_CHECKING:
    from .facts import Facts
    from .tokenizer import Tokenizer
    from .tokens import Tokens

# Lengths that are measured unless others are asked for, as far as they are legal.
TOKEN_KEEPS = (8, 32, 128)
CODEBOOK_KEEPS = (1, 2, 4, 8, 16)
BATCH_SIZE = 8


def evaluate(
    tokenizer: Tokenizer,
    data: str | os.PathLike[str],
    *,
    keeps: Sequence[int] | None = None,
    name: str | None = None,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Measured:
    """Reconstruct every item at every length; the mean of each measure with its confidence interval.

    data        a folder, searched through, or a `.npy` file: uint8 (N, H, W, 3) of pictures, or int16 (S,) of
                sound with its `.json`, as `photo_pool` and `speech_pool` write them
    keeps       counts along the nested axis besides all; default 8, 32, 128 tokens or 1, 2, 4, 8, 16
                codebooks, as far as they are legal. () for none
    name        of the data set, for the card; default that of the folder or file
    limit       only so many items, evenly spread over the data set
    batch_size  items at once

    Images: PSNR and SSIM. Speech: PESQ, STOI, SI-SDR, mel distance and DNSMOS at 16 kHz. Raises ValueError
    for text, for data without items and for an item that cannot be read; NoDecoder for what only encodes.
    """
    facts = tokenizer.facts
    if not facts.has_decoder:
        raise NoDecoder(f"{facts.name} only encodes: there is no reconstruction to measure")
    by = judge(facts)
    legal = default_keeps(facts) if keeps is None else sorted({facts.check_keep(count) for count in keeps})
    lengths = [*legal, None]
    survey = Survey(by, data, lengths, limit)
    for batch in survey.batches(tokenizer.preprocess, batch_size):
        tokens = tokenizer.encode(batch.signals)
        for keep in lengths:
            some = kept(tokenizer, tokens, batch.signals, keep)
            decoded = some.crop(tokenizer.decode(some))
            survey.add(keep, batch, decoded, some.lengths.tolist(), _bits(some))
    return survey.measured(facts, name)


def default_keeps(facts: Facts) -> tuple[int, ...]:
    """Counts worth measuring besides all of them; () for a tokenizer of one length."""
    if facts.nested is None and not facts.makes_fewer:
        return ()
    by_codebooks = facts.nested == "codebooks"
    most = len(facts.codebook_sizes) if by_codebooks else facts.max_tokens or 2 * TOKEN_KEEPS[-1]
    usual = CODEBOOK_KEEPS if by_codebooks else TOKEN_KEEPS
    return tuple(count for count in facts.keeps or usual if count < most)


def _bits(tokens: Tokens) -> float:
    """Of the ids; floats count 32 bits each."""
    if tokens.is_discrete:
        return float(tokens.bits.sum())
    return 32.0 * int(tokens.lengths.sum()) * tokens.values.shape[-1]
