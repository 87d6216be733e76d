"""Text behind the interface of all tokenizers, whatever turns it into ids. Nothing here needs torch until
Tokens are asked for."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from ..zoo.facts import Facts
from ..zoo.tokenizer import Tokenizer
from .bytes import AsText, as_bytes, sizes_of
from .counting import WINDOW, TokenCounter, last_cut
from .spans import Span, runs, spans_of, to_bytes, to_characters
from .vocab import TextVocab

if TYPE_CHECKING:
    from torch import Tensor

    from ..zoo.tokenizer import Chance
    from ..zoo.tokens import Tokens

# Normalizers make at most 33 bytes of 3 (U+FDFA under NFKC), and models put a space before the text.
_MOST_TOKENS_PER_BYTE = 12
_NONE: frozenset[str] = frozenset()


class TextTokenizer(Tokenizer):
    """A vocabulary and a way to use it.

    Text is str or bytes; bytes need not be UTF-8: what is none is a pretoken of its own. Special tokens never
    come out of text, however it is spelled, unless `allow` names them. Of a tokenizer whose facts say
    `is_lossless`, `restore`, `decode` and `decode_text` give every byte back. So does `decode_bytes`, unless
    text is rewritten before it is cut (`SegmentedTokenizer` with normalizers, `MyteTokenizer`): that gives
    what the ids themselves stand for, marks and codes included, and is a homomorphism in every tokenizer.

    vocab   pieces, merges or scores, and specials
    stated  the facts that need no look at the whole vocabulary: all but the fingerprint
    """

    vocab: TextVocab
    stated: Facts

    @abstractmethod
    def _encode(self, text: str, allowed: frozenset[str]) -> list[int]:
        """Ids of a text without lone surrogates, in which these specials are looked for."""

    @abstractmethod
    def _encode_bytes(self, data: bytes) -> list[int]:
        """Ids of bytes that are no UTF-8."""

    @abstractmethod
    def _spans(self, text: str, allowed: frozenset[str]) -> list[Span]:
        """Start and end character of every id of a text that does not come back as it was."""

    @property
    def cuts_safely(self) -> bool:
        """Whether text can be encoded in parts, cut at `last_cut`."""
        return False

    @property
    def drops_first_space(self) -> bool:
        """Whether the model puts a space before the text, which `decode` takes off again."""
        return False

    @property
    def preprocess(self) -> AsText:
        return AsText()

    @property
    def details(self) -> dict[str, Any]:
        """What `tokenzoo info` tells besides the facts; plain values."""
        return {
            "specials": len(self.vocab.specials),
            "merges": len(self.vocab.merges),
            "longest_piece": self.vocab.longest,
        }

    @property
    def specials(self) -> dict[str, int]:
        """Name -> id of the special tokens."""
        return dict(self.vocab.specials)

    def encode_ids(self, text: str | bytes, *, allow: str | Collection[str] = ()) -> list[int]:
        """The ids of one text.

        allow  specials that are looked for in the text: names, or "all"

        ValueError for a str with lone surrogates, which UTF-8 cannot hold, and for an unknown special.
        """
        allowed = self._allowed(allow) if allow else _NONE
        if not isinstance(text, str):
            return [
                each
                for run in runs(as_bytes(self.preprocess(text)))
                for each in self._encode_run(run, allowed)
            ]
        try:
            return self._encode(text, allowed)
        except (ValueError, TypeError):
            as_bytes(text)  # knows where a lone surrogate is
            raise

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes that the ids stand for; a homomorphism: decode_bytes(a + b) = decode_bytes(a) +
        decode_bytes(b). Specials decode to their names. ValueError for an id out of range."""
        return self.vocab.decode(ids)

    def restore(self, ids: Sequence[int]) -> bytes:
        """The text that was encoded: `decode_bytes` without what the tokenizer itself put in, a space before
        the text or a normal form. No homomorphism."""
        told = self.decode_bytes(ids)
        return told.removeprefix(b" ") if self.drops_first_space else told

    def decode_text(self, ids: Sequence[int], *, errors: str = "replace") -> str:
        """`restore` as text. `errors` as of `bytes.decode`: ids may end inside a character."""
        return self.restore(ids).decode(errors=errors)

    def offsets(self, text: str | bytes, *, allow: str | Collection[str] = ()) -> list[Span]:
        """Start and end byte of what every id stands for. Of a lossless tokenizer the spans partition the
        text; of others they are what `tokenizers` says, and may leave out what no id tells."""
        data = as_bytes(self.preprocess(text))
        ids = self.encode_ids(text, allow=allow)
        pieces = [self.vocab.pieces[each] for each in ids]
        told = b"".join(pieces)
        if told == data:
            return spans_of(pieces)
        if self.drops_first_space and told == b" " + data:
            return [(max(left - 1, 0), right - 1) for left, right in spans_of(pieces)]
        found: list[Span] = []
        start = 0
        for run in runs(data):
            found += self._run_offsets(run, self._allowed(allow), start)
            start += len(as_bytes(run))
        return found

    def char_offsets(self, text: str, *, allow: str | Collection[str] = ()) -> list[Span]:
        """Start and end character of what every id stands for. Ids that share a character each hold the whole
        of it, so that text[start:end] is never empty where an id stands for something."""
        return to_characters(text, self.offsets(text, allow=allow))

    def count(self, text: str | bytes) -> int:
        """How many tokens a text has."""
        return len(self.encode_ids(text))

    def counter(self) -> TokenCounter:
        """Counts the tokens of a text that grows."""
        return TokenCounter(self)

    @overload
    def truncate(self, text: str, count: int) -> str: ...
    @overload
    def truncate(self, text: bytes, count: int) -> bytes: ...
    def truncate(self, text: str | bytes, count: int) -> str | bytes:
        """The start of a text that its first `count` tokens stand for; of a str only whole characters. A
        character that is written with marks or codes counts as told by the last of them.

        Only as much is encoded as is needed, where the tokenizer `cuts_safely`.
        """
        if count < 0:
            raise ValueError(f"count={count}: expected 0 or more")
        start, spans = 0, list[Span]()
        for window in self._windows(text):
            spans += [(start + left, start + right) for left, right in self.offsets(window)]
            start += len(as_bytes(window))
            if len(spans) >= count:
                break
        end = max((right for _, right in spans[:count]), default=0)
        if isinstance(text, bytes):
            return text[:end]
        return as_bytes(text[: end + 1])[:end].decode(errors="ignore")

    def last_cut(self, text: str) -> int:
        """The last place known to cut the text so that the ids of both sides are the ids of the whole,
        whatever comes after it; 0 when there is none."""
        return last_cut(text) if self.cuts_safely else 0

    def num_tokens(self, extent: Sequence[int]) -> int:
        """At most so many tokens for a text of `extent` bytes."""
        size = int(extent[0])
        return size if self.facts.is_lossless else _MOST_TOKENS_PER_BYTE * (size + 1)

    def encode(
        self,
        signal: Sequence[str | bytes],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
        allow: str | Collection[str] = (),
    ) -> Tokens:
        """See `Tokenizer.encode` and `encode_ids`; `extents` (B, 1) counts the bytes of each item that are
        read."""
        import torch

        if isinstance(signal, str | bytes):
            raise TypeError("text is a single string: expected a list of them")
        if keep is not None:
            self.facts.check_keep(keep)
        items = [self.preprocess(item) for item in signal]
        if extents is not None:
            whole = [as_bytes(item) for item in items]
            items = [item[:size] for item, size in zip(whole, sizes_of(extents, whole), strict=True)]
        sizes = torch.tensor([[len(as_bytes(item))] for item in items], dtype=torch.int64).reshape(-1, 1)
        rows = [self.encode_ids(item, allow=allow) for item in items]
        return self.stamp(rows or torch.zeros(0, 0, dtype=torch.int64), extents=sizes)

    def decode(self, tokens: Tokens, *, generator: Chance = None) -> list[bytes]:
        """See `Tokenizer.decode` and `restore`."""
        from ..zoo.stamping import check_lengths, check_values

        self.check_tokens(tokens)
        check_values(tokens)
        check_lengths(self, tokens)
        rows = zip(tokens.ids.tolist(), tokens.lengths.tolist(), strict=True)
        return [self.restore(row[:length]) for row, length in rows]

    def stamp(
        self,
        values: Any,
        *,
        lengths: Any = None,
        extents: Any = None,
        positions: Any = None,
        scales: Any = None,
        durations: Any = None,
        captions: Sequence[str] | None = None,
    ) -> Tokens:
        """See `Tokenizer.stamp`; extents default to the bytes that the ids decode to."""
        tokens = super().stamp(
            values,
            lengths=lengths,
            extents=extents,
            positions=positions,
            scales=scales,
            durations=durations,
            captions=captions,
        )
        if extents is not None:
            return tokens
        sizes = [len(text) for text in self.decode(tokens)]
        return replace(tokens, extents=tokens.extents.new_tensor(sizes).reshape(-1, 1))

    def default_extents(self, lengths: Tensor) -> Tensor:
        return lengths[:, None]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        from ..zoo.loading import save

        save(self, folder)

    def _allowed(self, allow: str | Collection[str]) -> frozenset[str]:
        names = self.vocab.specials
        wanted = frozenset(names if allow == "all" else (allow,) if isinstance(allow, str) else allow)
        if unknown := sorted(wanted - set(names)):
            raise ValueError(f"no special token {unknown[0]!r}; known: {', '.join(names) or 'none'}")
        return wanted

    def _encode_run(self, run: str | bytes, allowed: frozenset[str]) -> list[int]:
        return self._encode(run, allowed) if isinstance(run, str) else self._encode_bytes(run)

    def _run_offsets(self, run: str | bytes, allowed: frozenset[str], start: int) -> list[Span]:
        if isinstance(run, str):
            return to_bytes(run, self._spans(run, allowed), start)
        ids = self._encode_bytes(run)
        each = len(ids) == len(run)
        return [
            (start + place, start + place + 1) if each else (start, start + len(run))
            for place in range(len(ids))
        ]

    def _windows(self, text: str | bytes) -> Iterator[str | bytes]:
        """The text in parts that can be encoded one by one."""
        if isinstance(text, bytes) or not self.cuts_safely:
            yield text
            return
        start, size = 0, WINDOW
        while start < len(text):
            part = text[start : start + size]
            cut = len(part) if start + size >= len(text) else self.last_cut(part)
            if cut:
                yield part[:cut]
                start, size = start + cut, WINDOW
            else:
                size *= 2
