"""Embeddings for the ids of media, out of the codebooks of their tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from .neural import NeuralTokenizer

if TYPE_CHECKING:
    from .interleave import JointTokenizer
    from .tokenizer import Tokenizer
    from .vocabulary import Block


def media_rows(joint: JointTokenizer, text_rows: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Rows to start the ids after text with, so that codes that decode alike are embedded alike.

    text_rows  (text_size, D) float, the embeddings of text, trained
    generator  on the CPU; default: seed 0
    returns    (size - text_size, D), of the dtype and device of `text_rows`

    Each codebook is centred, turned into D dimensions by a random matrix with orthonormal rows or columns
    (its own, so that the codebooks of one tokenizer lie apart), and scaled to the standard deviation of the
    text rows around their mean. The mean is added: logits of new ids then start near the average of the old
    (Hewitt 2021, "Initializing new word embeddings for pretrained language models"). Markers, and codebooks
    without embeddings, get normal rows of the same mean and deviation.
    """
    if text_rows.ndim != 2 or len(text_rows) != joint.vocabulary.text_size:
        raise ValueError(
            f"text_rows have shape {tuple(text_rows.shape)}: expected ({joint.vocabulary.text_size}, D), "
            "the rows of text alone"
        )
    generator = Generator().manual_seed(0) if generator is None else generator
    text = text_rows.detach().to("cpu", torch.float32)
    dim, mean = text.shape[1], text.mean(0)
    deviation = (text - mean).square().mean().sqrt()
    rows = [torch.empty(0, dim)]
    for block in joint.vocabulary.blocks:
        rows.append(torch.randn(2, dim, generator=generator))
        for codebook in _codebooks(joint.media[block.medium.name], block):
            rows.append(_projected(codebook, dim, generator))
    return (mean + deviation * torch.cat(rows)).to(text_rows)


def _codebooks(tokenizer: Tokenizer, block: Block) -> list[Tensor | int]:
    """The embeddings (K, D') of each codebook that is written; K alone where it has none."""
    try:
        found = tokenizer.codebook_embeddings() if isinstance(tokenizer, NeuralTokenizer) else ()
    except NotImplementedError:  # an id means something else at each place
        found = ()
    sizes = block.medium.codebook_sizes
    return list(found[: len(sizes)]) or list(sizes)


def _projected(codebook: Tensor | int, dim: int, generator: Generator) -> Tensor:
    """(K, dim), of mean 0 and mean square 1."""
    if isinstance(codebook, int):
        return torch.randn(codebook, dim, generator=generator)
    codes = codebook.detach().to("cpu", torch.float32)
    codes = codes - codes.mean(0)
    wide, narrow = max(codes.shape[1], dim), min(codes.shape[1], dim)
    orthonormal = torch.linalg.qr(torch.randn(wide, narrow, generator=generator)).Q
    rows = codes @ (orthonormal if codes.shape[1] == wide else orthonormal.T)
    # A codebook of a single code has no spread.
    return rows / rows.square().mean().sqrt().clamp(min=torch.finfo(rows.dtype).tiny)
