"""What is true of a tokenizer and of the tokens it made; plain values, no torch."""

from __future__ import annotations

import contextlib
import math
import operator
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Modality = Literal["image", "audio", "text"]
NestedAxis = Literal["tokens", "codebooks"]


@dataclass(frozen=True)
class Facts:
    """One object, carried by a tokenizer and by its tokens.

    name              catalogue name, or the name its folder was saved under
    modality          "image", "audio" or "text"
    revision          sha of the Hub commit the weights came from, or None
    fingerprint       hex digest of configuration and weights; None while training
    licence           licence of the weights
    sample_rate_hz    audio only
    channels          of the signal: 3 for RGB, 1 for mono
    max_tokens        most tokens an item can have; None when it grows with the item
    token_rate_hz     tokens per second of audio; None elsewhere
    codebook_sizes    one per codebook, () when values are floats
    latent_dim        width of one float token, or of one code vector; None where there is no vector
    roles             what each codebook carries, e.g. ("semantic", "acoustic"); () when it is all the same
    nested            the axis whose prefix still decodes: "tokens", "codebooks" or None
    keeps             legal counts along that axis; () means every count from 1. Without a nested axis the
                      counts that `encode(keep=)` makes by other means: by pooling (M3), by a budget (KARL)
    """

    name: str
    modality: Modality
    revision: str | None = None
    fingerprint: str | None = None
    licence: str | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    max_tokens: int | None = None
    token_rate_hz: float | None = None
    codebook_sizes: tuple[int, ...] = ()
    latent_dim: int | None = None
    roles: tuple[str, ...] = ()
    nested: NestedAxis | None = None
    keeps: tuple[int, ...] = ()
    is_adaptive: bool = False
    is_causal: bool = False
    is_lossless: bool = False
    has_decoder: bool = True
    takes_captions: bool = False
    draws_noise: bool = False

    def __post_init__(self) -> None:
        if self.modality not in get_args(Modality):
            raise ValueError(f"modality {self.modality!r}: expected one of {', '.join(get_args(Modality))}")
        if self.nested is not None and self.nested not in get_args(NestedAxis):
            raise ValueError(f"nested {self.nested!r}: expected 'tokens', 'codebooks' or None")
        for text in (self.name, self.revision or "", self.licence or ""):
            if not text.isprintable():
                raise ValueError(
                    f"{reprlib.repr(text)}: expected printable characters; facts reach terminals"
                )
        for name in ("sample_rate_hz", "channels", "max_tokens", "token_rate_hz", "latent_dim"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 2**62:
                raise ValueError(f"{name}={value}: expected more than 0 and finite, or None")
        for size in self.codebook_sizes:
            if not 1 <= size <= 2**62:
                raise ValueError(f"codebook size {size}: expected an integer from 1 to 2**62")
        if self.roles and len(self.roles) != len(self.codebook_sizes):
            raise ValueError(
                f"{len(self.roles)} roles for {len(self.codebook_sizes)} codebooks: give one each or none"
            )
        if any(count < 1 for count in self.keeps) or list(self.keeps) != sorted(set(self.keeps)):
            raise ValueError(f"keeps {self.keeps}: expected rising counts from 1")
        if self.nested == "codebooks" and not self.codebook_sizes:
            raise ValueError("nested='codebooks' without codebook_sizes: expected at least one codebook")

    @property
    def is_discrete(self) -> bool:
        return bool(self.codebook_sizes)

    @property
    def vocab_size(self) -> int:
        """Sum of the codebook sizes: how many ids a joint vocabulary must set aside; 0 when continuous."""
        return sum(self.codebook_sizes)

    @property
    def bits_per_token(self) -> float | None:
        """Sum of log2 of the codebook sizes; None when continuous."""
        return sum(math.log2(size) for size in self.codebook_sizes) if self.is_discrete else None

    def bitrate_bps(self, keep: int | None = None) -> float | None:
        """Bits a second of audio of the first `keep` codebooks ; None without a token rate or ids."""
        if self.token_rate_hz is None or not self.is_discrete:
            return None
        sizes = self.codebook_sizes[: len(self.codebook_sizes) if keep is None else self.check_keep(keep)]
        return self.token_rate_hz * sum(math.log2(size) for size in sizes)

    def keep_for_bitrate(self, limit_bps: float) -> int:
        """The most codebooks whose bit rate is at most `limit_bps`; ValueError names the rates there are."""
        counts = self.keeps or tuple(range(1, len(self.codebook_sizes) + 1))
        if self.nested != "codebooks" or self.bitrate_bps() is None:
            rate = self.bitrate_bps()
            told = "has no bit rate" if rate is None else f"has one bit rate, {rate / 1000:.4g} kbps"
            raise ValueError(f"{self.name} {told}: leave the bit rate out")
        # Rates are stated rounded: 1.1 kbps of Mimi's 8 codebooks is 1.1, and 5.999 of 6 must do.
        fitting = [n for n in counts if float(self.bitrate_bps(n) or 0) <= limit_bps * (1 + 1e-3)]
        if not fitting:
            least, most = (float(self.bitrate_bps(n) or 0) / 1000 for n in (counts[0], counts[-1]))
            raise ValueError(
                f"{limit_bps / 1000:.4g} kbps: {self.name} has {least:.4g} to {most:.4g} kbps, "
                "by whole codebooks"
            )
        return fitting[-1]

    def is_same_tokenizer(self, other: Facts) -> bool:
        """Whether tokens of `other` mean the same here.

        Fingerprints decide where both sides have one; a tokenizer in training has none, and then the name
        and the shape of the code must agree.
        """
        if self.fingerprint is not None and other.fingerprint is not None:
            return self.fingerprint == other.fingerprint
        mine = (self.name, self.modality, self.codebook_sizes, self.latent_dim)
        return mine == (other.name, other.modality, other.codebook_sizes, other.latent_dim)

    @property
    def may_be_short(self) -> bool:
        """Whether an item can have fewer tokens than its extent takes."""
        return self.is_adaptive or self.nested == "tokens" or self.makes_fewer

    @property
    def makes_fewer(self) -> bool:
        """Whether `encode(keep=)` makes fewer tokens that are no prefix of the others."""
        return self.nested is None and bool(self.keeps)

    def check_keep(self, count: int) -> int:
        """`count` if so many can be had, else an error that names the legal counts."""
        if self.nested is None and not self.makes_fewer:
            raise ValueError(
                f"{self.name} has no nested axis, so keep={count} has no meaning; leave keep out, "
                "or choose a nested tokenizer (`tokenzoo list` shows which are)"
            )
        try:
            whole = 0 if isinstance(count, bool) else operator.index(count)
        except TypeError:
            whole = 0
        if whole < 1:
            raise ValueError(f"keep={count!r}: expected an integer of at least 1")
        count = whole
        if self.keeps and count not in self.keeps and count < self.keeps[-1]:
            kind = "makes" if self.makes_fewer else "decodes prefixes of"
            raise ValueError(
                f"keep={count}: {self.name} {kind} {_listed(self.keeps)} {self.nested or 'tokens'}"
            )
        return count

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what stands at its default is left out."""
        defaults = {field.name: field.default for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != defaults[name]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Facts:
        """The inverse of `to_dict`; unknown or ill-typed entries raise ValueError."""
        if not isinstance(values, Mapping):
            raise ValueError(f"facts are a {type(values).__name__}: expected a mapping of names to values")
        known = {field.name: str(field.type) for field in fields(cls)}
        unknown = sorted(map(str, set(values) - set(known)))
        if unknown:
            raise ValueError(f"unknown facts {reprlib.repr(unknown)}; known: {', '.join(known)}")
        missing = [name for name in ("name", "modality") if name not in values]
        if missing:
            raise ValueError(f"facts lack {' and '.join(missing)}")
        return cls(**{name: _typed(name, known[name], value) for name, value in values.items()})


def _typed(name: str, annotation: str, value: Any) -> Any:
    """`value` as the field's annotation asks, or ValueError: facts are read from files of strangers."""
    if value is None and "None" in annotation:
        return None
    if annotation.startswith("tuple"):
        member = int if "int" in annotation else str
        if isinstance(value, list | tuple) and all(type(item) is member for item in value):
            return tuple(value)
    elif annotation.startswith("float") and isinstance(value, int | float) and type(value) is not bool:
        with contextlib.suppress(OverflowError):
            return float(value)
    else:
        kinds = {"int": int, "bool": bool, "str": str, "Modality": str, "NestedAxis": str}
        if type(value) is kinds.get(annotation.partition(" ")[0]):
            return value
    raise ValueError(f"fact {name} is {reprlib.repr(value)}: expected {annotation}")


def _listed(counts: tuple[int, ...]) -> str:
    shown = [str(count) for count in counts]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:5], "...", *shown[-2:]])
