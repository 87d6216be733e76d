"""The rows of the catalogue that are text tokenizers."""

from __future__ import annotations

from .facts import Facts
from .row import Row


def _bundled_text(name: str, paper: str) -> Row:
    return Row(
        facts=Facts(
            name=name,
            modality="text",
            licence="Apache-2.0",
            codebook_sizes=(40960,),
            is_adaptive=True,
            is_lossless=True,
        ),
        family="text",
        bundled=name,
        paper=paper,
    )


ROWS = (
    Row(
        facts=Facts(
            name="bytes",
            modality="text",
            licence="Apache-2.0",
            codebook_sizes=(256,),
            is_causal=True,
            is_lossless=True,
        ),
        family="bytes",
    ),
    _bundled_text("bpe-40k", "1508.07909"),
    _bundled_text("superbpe-40k", "2503.13423"),
)
