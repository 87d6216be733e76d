"""The null tokenizer: every byte is a token. Lossless, nothing to load, and the floor of every comparison."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..zoo.config import Config
from ..zoo.facts import Facts
from ..zoo.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from ..zoo.tokenizer import Chance
    from ..zoo.tokens import Tokens


@dataclass(frozen=True)
class ByteConfig(Config):
    """Nothing to choose."""

    tokenizer_type: ClassVar[str] = "bytes"

    def facts(self) -> Facts:
        return Facts(
            name="bytes",
            modality="text",
            licence="Apache-2.0",
            codebook_sizes=(256,),
            is_causal=True,
            is_lossless=True,
        )


@dataclass(frozen=True)
class AsText:
    """Preprocessing of text: str and bytes pass, anything else is an error."""

    def __call__(self, item: str | bytes) -> str | bytes:
        if not isinstance(item, str | bytes):
            raise TypeError(f"text item is a {type(item).__name__}: expected str or bytes")
        return item


class ByteTokenizer(Tokenizer):
    """Bytes as ids 0 ... 255. Strings are UTF-8; `decode` returns bytes, which need not be any.

    Not nested, though every prefix decodes: it would be a shorter text, not a coarser one.
    """

    config_type = ByteConfig
    config: ByteConfig

    def __init__(self, config: ByteConfig | None = None) -> None:
        self.config = config or ByteConfig()

    @property
    def facts(self) -> Facts:
        return self.config.facts()

    @property
    def preprocess(self) -> AsText:
        return AsText()

    def num_tokens(self, extent: Sequence[int]) -> int:
        return int(extent[0])

    def encode_ids(self, text: str | bytes) -> list[int]:
        """The bytes of one text; ValueError for a str with lone surrogates, which UTF-8 cannot hold."""
        return list(as_bytes(text))

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The inverse; a homomorphism: decode_bytes(a + b) = decode_bytes(a) + decode_bytes(b)."""
        return bytes(ids)

    def offsets(self, text: str | bytes) -> list[tuple[int, int]]:
        """Start and end byte of every token."""
        return [(start, start + 1) for start in range(len(as_bytes(text)))]

    @property
    def specials(self) -> dict[str, int]:
        """Special tokens: none."""
        return {}

    def encode(
        self,
        signal: Sequence[str | bytes],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
    ) -> Tokens:
        """See `Tokenizer.encode`; `extents` (B, 1) counts the bytes of each item that are read."""
        import torch

        if isinstance(signal, str | bytes):
            raise TypeError("text is a single string: expected a list of them")
        if keep is not None:
            self.facts.check_keep(keep)
        items = [as_bytes(self.preprocess(item)) for item in signal]
        if extents is not None:
            items = [item[:size] for item, size in zip(items, sizes_of(extents, items), strict=True)]
        sizes = torch.tensor([[len(item)] for item in items], dtype=torch.int64).reshape(len(items), 1)
        tokens = self.stamp([list(item) for item in items], extents=sizes) if items else _empty(self)
        return tokens if keep is None else tokens.keep(keep)

    def decode(self, tokens: Tokens, *, generator: Chance = None) -> list[bytes]:
        """See `Tokenizer.decode`."""
        from ..zoo.stamping import check_lengths, check_values

        self.check_tokens(tokens)
        check_values(tokens)
        check_lengths(self, tokens)
        return [
            bytes(row[:length])
            for row, length in zip(tokens.ids.tolist(), tokens.lengths.tolist(), strict=True)
        ]

    def default_extents(self, lengths: Tensor) -> Tensor:
        return lengths[:, None]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        from ..zoo.loading import save

        save(self, folder)


def as_bytes(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text has a lone surrogate at character {error.start}, which UTF-8 cannot hold; pass bytes"
        ) from error


def sizes_of(extents: Tensor, items: Sequence[bytes]) -> list[int]:
    """Bytes to read of each item: extents (B, 1)."""
    if tuple(extents.shape) != (len(items), 1) or extents.is_floating_point():
        raise ValueError(f"extents have shape {tuple(extents.shape)}: expected integers ({len(items)}, 1)")
    sizes = extents[:, 0].tolist()
    for item, size in zip(items, sizes, strict=True):
        if not 0 <= size <= len(item):
            raise ValueError(f"extent {size} of a text of {len(item)} bytes: expected it to lie inside")
    return sizes


def _empty(tokenizer: ByteTokenizer) -> Tokens:
    """No texts."""
    import torch

    return tokenizer.stamp(torch.zeros(0, 0, dtype=torch.int64), extents=torch.zeros(0, 1, dtype=torch.int64))
