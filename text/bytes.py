"""The null tokenizer: every byte is a token. Lossless, nothing to load, and the floor of every comparison."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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
            nested="tokens",
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
    """Bytes as ids 0 ... 255. Strings are UTF-8; `decode` returns bytes, since a prefix may split a character."""

    config_type = ByteConfig

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
        return list(_as_bytes(text))

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The inverse; a homomorphism: decode_bytes(a + b) = decode_bytes(a) + decode_bytes(b)."""
        return bytes(ids)

    def offsets(self, text: str | bytes) -> list[tuple[int, int]]:
        """Start and end byte of every token."""
        return [(start, start + 1) for start in range(len(_as_bytes(text)))]

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
        items = [_as_bytes(self.preprocess(item)) for item in signal]
        if extents is not None:
            if len(extents) != len(items):
                raise ValueError(f"{len(extents)} extents for {len(items)} texts")
            items = [item[: int(size)] for item, size in zip(items, extents, strict=True)]
        sizes = torch.tensor([[len(item)] for item in items], dtype=torch.int64).reshape(len(items), 1)
        tokens = self.stamp([list(item) for item in items], extents=sizes) if items else _empty(self)
        return tokens if keep is None else tokens.keep(keep)

    def decode(self, tokens: Tokens, *, generator: Chance = None) -> list[bytes]:
        """See `Tokenizer.decode`."""
        from ..zoo.stamping import check_values

        self.check_tokens(tokens)
        check_values(tokens)
        return [
            bytes(row[:length])
            for row, length in zip(tokens.ids.tolist(), tokens.lengths.tolist(), strict=True)
        ]

    def default_extents(self, lengths: Tensor) -> Tensor:
        return lengths[:, None]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        from ..zoo.loading import save

        save(self, folder)

    def state_dict(self) -> dict[str, Any]:
        """No weights."""
        return {}


def _as_bytes(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text has a lone surrogate at character {error.start}, which UTF-8 cannot hold; pass bytes instead"
        ) from error


def _empty(tokenizer: ByteTokenizer) -> Tokens:
    import torch

    return tokenizer.stamp(torch.zeros(0, 0, dtype=torch.int64), extents=torch.zeros(0, 1, dtype=torch.int64))
