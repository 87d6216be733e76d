"""How long token sequences are: bytes per token and fertility."""

from __future__ import annotations

from collections.abc import Sequence

from .bytes import as_bytes


def bytes_per_token(texts: Sequence[str | bytes], ids: Sequence[Sequence[int]]) -> float:
    """Bytes of all texts over the tokens of all texts: how much text a token holds, long texts counting more.

    texts, ids  one sequence of ids for each text

    ValueError when their numbers differ, or when there is no token.
    """
    return sum(len(as_bytes(text)) for text in texts) / _tokens(texts, ids)


def fertility(texts: Sequence[str], ids: Sequence[Sequence[int]]) -> float:
    """Tokens of all texts over their words, which are what white space parts; from 1 up for tokenizers that
    keep words apart. It says nothing of Chinese, Japanese, Thai or Khmer, which write no spaces.

    ValueError as of `bytes_per_token`, and when there is no word.
    """
    tokens = _tokens(texts, ids)
    words = sum(len(text.split()) for text in texts)
    if not words:
        raise ValueError("the texts hold no words: fertility is tokens per word")
    return tokens / words


def _tokens(texts: Sequence[str | bytes], ids: Sequence[Sequence[int]]) -> int:
    if len(texts) != len(ids):
        raise ValueError(f"{len(ids)} sequences of ids for {len(texts)} texts: give one for each")
    tokens = sum(map(len, ids))
    if not tokens:
        raise ValueError("the texts have no tokens: nothing to measure")
    return tokens
