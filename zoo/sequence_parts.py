"""What goes into a sequence of text and media, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .tokens import Tokens


@dataclass(frozen=True)
class MediaItem:
    """One picture or sound to be encoded.

    medium  its name in the joint tokenizer
    item    a path, a picture, an array, (waveform, rate_hz): what `preprocess` of its tokenizer takes; a
            tensor counts as preprocessed
    keep    at most so many tokens, of a tokenizer that is nested along them
    """

    medium: str
    item: Any
    keep: int | None = None


@dataclass(frozen=True)
class Span:
    """Ids start ... stop - 1 of a sequence, markers among them; `medium` is "text" for text."""

    medium: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Interleaved:
    """A sequence for a language model.

    ids    (L,) int64
    spans  one for each part that went in, in order; together they cover the ids
    """

    ids: Tensor
    spans: tuple[Span, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of a sequence, decoded.

    span         where it stands
    text         what it says, where it is text; bytes, since ids may end inside a character
    tokens       its one item, where it is of a medium; None when nothing is left that decodes
    signal       what the tokens decode to, unbatched: (C, H, W) or (C, S); None without tokens or a decoder,
                 and where no signals were asked for
    is_complete  False for a span without its end marker, or with fewer ids than an item takes. `tokens` are
                 then its longest start that decodes: whole tokens of sound, a legal count of nested ones
    """

    span: Span
    text: bytes | None = None
    tokens: Tokens | None = None
    signal: Any = None
    is_complete: bool = True

    @property
    def medium(self) -> str:
        return self.span.medium
