"""What generators over tokens share: the row they write, the tokenizer as a component, the result."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from .facts import Facts
from .loading import load
from .optional import require
from .tokenizer import NoDecoder, Tokenizer
from .tokens import Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

# diffusers looks for the name ModelMixin in the module that defines a component, or will not load it.
_diffusers = require("diffusers", "diffusers")
ModelMixin, ConfigMixin = _diffusers.ModelMixin, _diffusers.ConfigMixin
DiffusionPipeline = _diffusers.DiffusionPipeline

OUTPUT_TYPES = ("pil", "pt", "tokens")


@dataclass(frozen=True)
class TokenRow:
    """How the tokens of an item lie in a generator's row: token after token, the Q ids of each in order.

    sizes   the codebooks that the row holds, the first Q of the tokenizer's
    tokens  most tokens of an item
    """

    sizes: tuple[int, ...]
    tokens: int

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"codebook sizes {self.sizes}: expected at least one, each 1 or more")
        if self.tokens < 1:
            raise ValueError(f"num_tokens={self.tokens}: expected at least 1")

    @classmethod
    def of(cls, facts: Facts, num_tokens: int | None = None, depth: int | None = None) -> Self:
        """The row of a tokenizer: by default all codebooks and `max_tokens`.

        ValueError for a continuous tokenizer, for counts it has not, and without one where items grow.
        """
        check_discrete(facts)
        if depth is not None and depth != len(facts.codebook_sizes):
            if facts.nested != "codebooks":
                raise ValueError(f"depth={depth}: {facts.name} decodes {len(facts.codebook_sizes)} codebooks")
            depth = facts.check_keep(depth)
        if num_tokens is None and facts.max_tokens is None:
            raise ValueError(f"items of {facts.name} may have any length: say how long with num_tokens=")
        row = cls(facts.codebook_sizes[:depth], num_tokens or facts.max_tokens or 0)
        if facts.max_tokens is not None and row.tokens > facts.max_tokens:
            raise ValueError(f"num_tokens={row.tokens}: {facts.name} has at most {facts.max_tokens}")
        return row

    @property
    def depth(self) -> int:
        return len(self.sizes)

    @property
    def length(self) -> int:
        """Ids in a row."""
        return self.tokens * self.depth

    def flatten(self, ids: Tensor) -> Tensor:
        """ids (B, N) or (B, N, Q) -> (B, N * Q); ValueError unless they fit."""
        if ids.ndim not in (2, 3) or (ids.shape[2] if ids.ndim == 3 else 1) != self.depth:
            raise ValueError(
                f"ids have shape {tuple(ids.shape)}: expected (B, N{f', {self.depth}' * (self.depth > 1)})"
            )
        if not 1 <= ids.shape[1] <= self.tokens:
            raise ValueError(f"{ids.shape[1]} tokens an item: this generator takes 1 ... {self.tokens}")
        sizes = ids.new_tensor(self.sizes)
        each = ids if ids.ndim == 3 else ids[..., None]
        if bool(((each < 0) | (each >= sizes)).any()):
            raise ValueError(f"ids {int(ids.min())} ... {int(ids.max())}: the codebooks have {self.sizes}")
        return each.flatten(1)

    def shape(self, flat: Tensor, facts: Facts) -> Tensor:
        """(B, N * Q) -> the ids that `stamp` takes: (B, N), or (B, N, Q) with several codebooks."""
        return flat if len(facts.codebook_sizes) == 1 else flat.unflatten(1, (-1, self.depth))

    def count(self, asked: int | None, facts: Facts) -> int:
        """How many tokens to generate: `asked`, or all. ValueError for a prefix that would not decode."""
        if asked is None or asked == self.tokens:
            return self.tokens
        if not 1 <= asked <= self.tokens:
            raise ValueError(f"num_tokens={asked}: this generator makes 1 ... {self.tokens}")
        return facts.check_keep(asked) if facts.nested == "tokens" else asked


class TokenizerComponent(ModelMixin, ConfigMixin):
    """Any tokenizer as a component of a diffusers pipeline, which drops what is none of its own classes.

    Its folder is a checkpoint of ours: `tokenzoo.load("pipeline/tokenizer")` reads it.
    """

    config_name = "config.json"

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.register_to_config(name=tokenizer.facts.name)

    @classmethod
    def wrap(cls, tokenizer: Tokenizer | TokenizerComponent) -> TokenizerComponent:
        """TypeError for what is no tokenizer."""
        if isinstance(tokenizer, TokenizerComponent):
            return tokenizer
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError(f"the tokenizer is a {type(tokenizer).__name__}: expected one of tokenzoo's")
        return cls(tokenizer)

    @property
    def facts(self) -> Facts:
        return self.tokenizer.facts

    # Text tokenizers have no weights; diffusers asks every component where it lies.
    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters()), torch.float32)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """A checkpoint folder of the tokenizer."""
        self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str], *, torch_dtype: torch.dtype | None = None, **_: Any
    ) -> Self:
        """The inverse, by `tokenzoo.load`; how diffusers would read its own files has no meaning here."""
        return cls(load(name, dtype=torch_dtype))


@dataclass(frozen=True, eq=False)
class Generated:
    """What a pipeline made.

    tokens  stamped for the pipeline's tokenizer
    images  list of PIL images, or float32 (B, 3, H, W) in [0, 1]; None for other media, and when not decoded
    audios  float32 (B, C, S) in [-1, 1], likewise
    texts   strings or bytes, likewise
    """

    tokens: Tokens
    images: list[Image] | Tensor | None = None
    audios: Tensor | None = None
    texts: list[Any] | None = None


class TokenPipeline(DiffusionPipeline):
    """A pipeline with components `tokenizer` and `transformer`, whose last step is `tokenizer.decode`."""

    tokenizer: TokenizerComponent
    transformer: Any

    @classmethod
    def download(
        cls,
        pretrained_model_name: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool | None = False,
        **_: Any,
    ) -> str:
        """The folder of a repository on the Hub, all of it at one commit; `from_pretrained` calls this.

        diffusers' own refuses a repository with components of another library before it downloads anything.
        """
        from ..checkpoints.hub import fetch_folder

        offline = bool(local_files_only)
        return str(fetch_folder(pretrained_model_name, revision, token=token, local_files_only=offline))

    def _check_output(self, output_type: str | None) -> str:
        """The output type, by default "pil" for images and "pt" for sound; errors before the work."""
        facts = self.tokenizer.facts
        chosen = output_type or ("pil" if facts.modality == "image" else "pt")
        if chosen not in OUTPUT_TYPES:
            raise ValueError(f"output_type={output_type!r}: expected one of {', '.join(OUTPUT_TYPES)}")
        if chosen == "pil" and facts.modality != "image":
            raise ValueError(f"output_type='pil': {facts.name} makes {facts.modality}; leave it out")
        if chosen != "tokens" and not facts.has_decoder:
            raise NoDecoder(f"{facts.name} only encodes: ask for output_type='tokens'")
        return chosen

    def _finish(self, ids: Tensor, output_type: str, captions: Sequence[str] | None) -> Generated:
        """ids (B, N) or (B, N, Q), decoded without a generator: the same ids, the same signal."""
        tokenizer = self.tokenizer.tokenizer
        tokens = tokenizer.stamp(ids.to(self.tokenizer.device), captions=captions)
        if output_type == "tokens":
            return Generated(tokens)
        signal = tokenizer.decode(tokens)
        modality = tokenizer.facts.modality
        if modality == "image":
            pil = output_type == "pil"
            return Generated(tokens, images=_pictures(self, tokens.crop(signal)) if pil else signal)
        return Generated(tokens, audios=signal) if modality == "audio" else Generated(tokens, texts=signal)


def _pictures(pipeline: Any, images: Sequence[Tensor]) -> list[Image]:
    return [pipeline.numpy_to_pil(image.permute(1, 2, 0).cpu().numpy())[0] for image in images]


def check_discrete(facts: Facts) -> None:
    """ValueError unless there are ids to generate."""
    if not facts.is_discrete:
        raise ValueError(
            f"{facts.name} is continuous: floats have no ids to generate; choose a discrete tokenizer"
        )


def check_fits(row: TokenRow, facts: Facts) -> None:
    """ValueError unless the tokenizer decodes what a generator writes in this row."""
    expected = TokenRow.of(facts, row.tokens, row.depth)
    if expected != row:
        raise ValueError(
            f"the generator writes codebooks of {row.sizes}, {facts.name} reads {expected.sizes}: "
            "they were not made for each other"
        )


def check_finite(name: str, value: Any, *, least: float = -math.inf) -> None:
    """ValueError unless this is a finite number of at least `least`."""
    try:
        is_good = math.isfinite(value) and value >= least
    except (TypeError, ValueError, OverflowError):
        is_good = False
    if not is_good:
        more = "" if least == -math.inf else f" of at least {least:g}"
        raise ValueError(f"{name}={value!r}: expected a finite number{more}")


def integer(value: Any) -> int | None:
    """An integer of Python, numpy or torch as an int; None for anything else, bool and 1.0 too."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def one_each(name: str, values: Any) -> list[Any]:
    """A list of what is given for each item; ValueError for a single value, and for none."""
    values = values.tolist() if isinstance(values, Tensor) else values
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{name}={values!r}: expected a list, one for each item, e.g. [{values!r}]")
    if not (found := list(values)):
        raise ValueError(f"{name} are empty: give one for each item, None for none")
    return found


def initialise(module: nn.Module) -> None:
    """Linear and embedding weights from N(0, 0.02^2), biases 0, as BERT and Llama start."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=0.02, a=-0.04, b=0.04)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def cosine_share(chance: Tensor) -> Tensor:
    """Share of a row that is masked, cos(u * pi / 2), u uniform (MaskGIT, arXiv 2202.04200, section 3.3)."""
    return torch.cos(chance * math.pi / 2)
