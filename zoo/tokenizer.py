"""The one interface: a signal becomes Tokens, and Tokens become a signal. No torch is imported here."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from .config import Config
    from .facts import Facts
    from .measured import Measured
    from .tokens import Tokens

    Chance = Generator | Sequence[Generator] | None


class NoDecoder(NotImplementedError):
    """This tokenizer only encodes; the message says what can be done instead."""


class Tokenizer(ABC):
    """Turns a signal into tokens and back.

    Signals. Image: float32 (B, 3, H, W) in [0, 1]. Audio: float32 (B, C, S) in [-1, 1] at
    `facts.sample_rate_hz`. Text: list of str or bytes. Signals may lie on any device; ids come back int64,
    signals float32, on the model's device.

    Chance. Without a generator everything is repeatable: posterior mean, no added noise, and where noise is
    needed the noise of seed 0, drawn on the CPU for each item by itself. With a generator, or a list of one
    per item, models draw as the official ones do.

    A family adds its own named and defaulted keywords to `encode` and `decode`, never `**kwargs`. It is built
    from one configuration, an instance of its `config_type`, kept as `config`.
    """

    config_type: ClassVar[type[Config]]
    config: Any
    # Where the weights come from; the loader and training say it.
    provenance: str | None = None

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What is true of this tokenizer, the same object that its tokens carry."""

    @property
    @abstractmethod
    def preprocess(self) -> Callable[[Any], Any]:
        """Turns one path, PIL image, array, (waveform, rate_hz) or string into one unbatched signal.

        A small frozen object without weights, so data-loader workers can carry it.
        """

    @abstractmethod
    def num_tokens(self, extent: Sequence[int]) -> int:
        """Tokens of an item of this extent ((H, W), (samples,) or (bytes,)); an upper bound when adaptive."""

    @abstractmethod
    def encode(
        self, signal: Any, *, extents: Tensor | None = None, keep: int | None = None, generator: Chance = None
    ) -> Tokens:
        """Tokens of a batch, or of a list of preprocessed items of any sizes, each as it would get alone.

        extents    (B, 1) or (B, 2) int64, the real sizes inside a padded batch
        keep       at most so many, by the model's own means; ValueError when the tokenizer is not nested
        """

    @abstractmethod
    def decode(self, tokens: Tokens, *, generator: Chance = None) -> Any:
        """The signal, zero-padded to the largest extent (`tokens.crop` takes the padding off).

        Raises NoDecoder without a decoder, and ValueError for tokens that another tokenizer made.
        """

    @abstractmethod
    def default_extents(self, lengths: Tensor) -> Tensor:
        """(B, 1) or (B, 2) int64: the extents that `stamp` assumes for strings of these lengths."""

    @abstractmethod
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, weights and README.md; a failed save leaves what was there."""

    def files(self) -> dict[str, bytes]:
        """What a saved folder holds besides config.json, weights and README.md, by name."""
        return {}

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str | None = None,
        measured: Measured | None = None,
    ) -> str:
        """Save and upload to the Hub; returns the sha of the commit that holds it.

        measured  of `zoo.evaluation.evaluate`: figures for the model card, which then has a gallery, too
        """
        import tempfile

        from ..checkpoints.hub import push

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if measured is not None:
                from ..checkpoints.card_measures import add_measures
                from .gallery import draw_gallery

                measured.check_is_of(self.facts)
                add_measures(folder, measured, draw_gallery(self, measured.keeps), facts=self.facts)
            return push(folder, repo, private=private, token=token, message=message)

    def finetune(self, **hyperparameters: Any) -> Any:
        """The LightningModule that trains on from these weights; NotImplementedError where there are none."""
        raise NotImplementedError(
            f"{self.facts.name} has no weights to finetune: `tokenzoo fit` trains a new vocabulary"
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str = "cpu",
        dtype: Any = None,
    ) -> Self:
        """`tokenzoo.load`, and TypeError when what was loaded is not of this class."""
        from .loading import load

        tokenizer = load(name, revision=revision, device=device, dtype=dtype)
        if not isinstance(tokenizer, cls):
            raise TypeError(
                f"{name} is a {type(tokenizer).__name__}, not a {cls.__name__}; use tokenzoo.load"
            )
        return tokenizer

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
        """Tokens out of ids (or floats) that a language model, a generator or another library made.

        values     (B, N), (B, N, Q) or nested lists of ids; float (B, N, D) when continuous. Ragged lists are
                   padded and their lengths counted.
        lengths    (B,), default: every position counts
        extents    default: the model's image size, or N hops

        Raises ValueError or TypeError for a wrong shape, type or length, and for an id outside its codebook.
        """
        from .stamping import stamped

        return stamped(
            self,
            values,
            lengths=lengths,
            extents=extents,
            positions=positions,
            scales=scales,
            durations=durations,
            captions=captions,
        )

    def check_tokens(self, tokens: Tokens) -> None:
        """ValueError unless these tokens were made (or stamped) by this tokenizer; TypeError for bare ids."""
        if not hasattr(tokens, "facts"):  # Tokens itself would import torch
            raise TypeError(
                f"tokens are a {type(tokens).__name__}: expected Tokens; tokenizer.stamp(ids) makes them"
            )
        if not self.facts.is_same_tokenizer(tokens.facts):
            raise ValueError(
                f"these tokens were made by {_identity(tokens.facts)}, this is {_identity(self.facts)}; "
                "load that tokenizer, or insist with "
                "tokenizer.stamp(tokens.values, lengths=tokens.lengths, extents=tokens.extents); on the "
                "command line with --tokenizer FOLDER and --restamp"
            )


def _identity(facts: Facts) -> str:
    return f"{facts.name} ({facts.fingerprint[:12]})" if facts.fingerprint else facts.name
