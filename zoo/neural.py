"""What every neural tokenizer shares: grouping of sizes, placement, and the rules of the verbs."""

from __future__ import annotations

import contextlib
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .chance import Chance, check_generators, select_generators
from .facts import Facts
from .stamping import check_lengths, check_values
from .tokenizer import NoDecoder, Tokenizer
from .tokens import Tokens

if TYPE_CHECKING:
    from .config import Config
    from .quantizer import Quantized

# The latents of a stacked, checked and placed batch, with its generators.
LatentsOf = Callable[[Tensor, Chance], Tokens]

# Guards the change of mode around a verb; one for all, since locks can be neither copied nor pickled.
_MODES = threading.Lock()


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What the training path gives.

    signal     the decoded batch, unclamped, with gradient
    quantized  the quantizer's result: latents, values, loss, usage
    """

    signal: Tensor
    quantized: Quantized


class NeuralTokenizer(Tokenizer, nn.Module):
    """A tokenizer built from one frozen configuration, with parts `encoder`, `quantizer`, `decoder`.

    A family writes `encode_latents`, `decode_latents`, `forward` and `codebook_embeddings`; and, where a
    latent is not one token, `quantize` and `dequantize`. The verbs run without gradient, ignore `train()`,
    and never move a statistic.
    """

    encoder: Any
    quantizer: Any
    decoder: Any
    # Parts and parameters that no reconstruction teaches; training freezes those that no objective teaches.
    untaught: tuple[str, ...] = ()

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._facts = config.facts()
        self._verbs_running = 0
        self._paused: list[nn.Module] = []
        self.register_forward_pre_hook(_forget_fingerprint)

    @property
    def facts(self) -> Facts:
        return self._facts

    def identify(
        self, *, name: str, revision: str | None, fingerprint: str | None, licence: str | None
    ) -> None:
        """Set the identity facts; the loader calls this once the weights are in."""
        self._facts = replace(
            self._facts,
            name=name,
            revision=revision,
            fingerprint=fingerprint,
            licence=licence or self._facts.licence,
        )

    def mock_companions(self) -> None:
        """Do without the frozen companions that would be fetched, where all weights are random anyway.

        Families that have one override this; most have none.
        """

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @abstractmethod
    def check_signal(self, signal: Tensor) -> None:
        """ValueError or TypeError unless this stacked batch is what the model takes."""

    @abstractmethod
    def encode_latents(self, signal: Tensor, *, extents: Tensor | None = None) -> Tokens:
        """Float values before quantizing (B, N, D), with the side information of `encode`, and gradients."""

    @abstractmethod
    def decode_latents(self, tokens: Tokens) -> Tensor:
        """The signal of float values in the space the decoder reads, unclamped, with gradients."""

    @abstractmethod
    def codebook_embeddings(self) -> tuple[Tensor, ...]:
        """(K, D) per codebook, in the space the decoder reads or sums; () when continuous.

        Raises NotImplementedError where an id means something else at each place of the row.
        """

    @abstractmethod
    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """The training path, the one that DDP wraps. lengths (B,) keeps a prefix of each nested item."""

    def quantize(self, latents: Tokens, generator: Chance = None, *, keep: int | None = None) -> Tokens:
        """Latent tokens to those that `encode` returns; of codebooks that nest, the first `keep` alone."""
        told = {} if keep is None else {"keep": keep}
        return replace(latents, values=self.quantizer.encode(latents.values, generator=generator, **told))

    def dequantize(self, tokens: Tokens) -> Tokens:
        """The inverse: ids to the float values that `decode_latents` reads."""
        return replace(tokens, values=self.quantizer.decode(tokens.values))

    def item_tensor(self, item: Any) -> Tensor:
        """One item of a list as an unbatched tensor; text families turn a string into its bytes."""
        if not isinstance(item, Tensor):
            raise TypeError(f"item is a {type(item).__name__}: pass it through tokenizer.preprocess first")
        return item

    def finish_signal(self, signal: Tensor, tokens: Tokens) -> Any:
        """Float32 in the range of the modality, or texts, out of what `decode_latents` gave for `tokens`."""
        return signal.float()

    def empty_signal(self) -> Any:
        """What `decode` gives for a batch of no items: of the size that `stamp` assumes without tokens."""
        if self.facts.modality == "text":
            return []
        sizes = self.default_extents(torch.zeros(1, dtype=torch.int64))[0].tolist()
        return torch.zeros(0, self.facts.channels or 1, *sizes, device=self.device)

    @torch.no_grad()
    def encode(
        self,
        signal: Tensor | Sequence[Any],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
    ) -> Tokens:
        """See `Tokenizer.encode`."""
        return self._encode_with(signal, extents, keep, generator)

    def _encode_with(
        self,
        signal: Tensor | Sequence[Any],
        extents: Tensor | None,
        keep: int | None,
        generator: Chance,
        latents_of: LatentsOf | None = None,
    ) -> Tokens:
        """`encode`; a family with keywords of its own hands them to its `encode_latents` by `latents_of`."""
        if keep is not None:
            keep = self.facts.check_keep(keep)
        if not isinstance(signal, Tensor):
            if not isinstance(signal, Sequence) or isinstance(signal, str | bytes):
                raise TypeError(
                    f"signal is a {type(signal).__name__}: expected a stacked tensor or a list of items; "
                    "pass each item through tokenizer.preprocess first"
                )
            if extents is not None:
                raise ValueError("extents go with a padded batch; a list of items has its own sizes")
            return self._encode_list([self.item_tensor(item) for item in signal], keep, generator, latents_of)
        self.check_signal(signal)
        if extents is not None:
            axes = 2 if self.facts.modality == "image" else 1
            return self._encode_list(_unpadded(signal, extents, axes), keep, generator, latents_of)
        check_generators(generator, len(signal))
        with self._evaluating():
            placed = signal.to(self.device, self.dtype if signal.is_floating_point() else None)
            latents = latents_of(placed, generator) if latents_of else self.encode_latents(placed)
            if keep is not None and self.facts.nested == "codebooks":
                kept = min(keep, len(self.facts.codebook_sizes))
                return self.quantize(latents, generator, keep=kept)._zero_padding()
            tokens = self.quantize(latents, generator)._zero_padding()
        return tokens if keep is None else tokens.keep(keep)

    def _encode_list(
        self,
        items: Sequence[Tensor],
        keep: int | None,
        generator: Chance,
        latents_of: LatentsOf | None = None,
    ) -> Tokens:
        """Stacks items of one size, so each gets the ids it would get alone, and restores the order."""
        if not len(items):
            raise ValueError("nothing to encode: the list of items is empty")
        check_generators(generator, len(items))
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, item in enumerate(items):
            groups.setdefault(tuple(item.shape), []).append(index)
        if isinstance(generator, torch.Generator) and len(groups) > 1 and self.facts.draws_noise:
            raise ValueError(
                f"one generator cannot serve {len(groups)} different sizes in a defined order; "
                "give one per item"
            )
        singles: list[Tokens | None] = [None] * len(items)
        for members in groups.values():
            stack = torch.stack([items[index] for index in members])
            chance = select_generators(generator, members)
            if latents_of is None:
                batch = self.encode(stack, keep=keep, generator=chance)
            else:
                batch = self._encode_with(stack, None, keep, chance, latents_of)
            if len(groups) == 1:
                return batch
            for index, single in zip(members, batch.unbind(), strict=True):
                singles[index] = single
        return Tokens.cat([single for single in singles if single is not None])

    @torch.no_grad()
    def decode(self, tokens: Tokens, *, generator: Chance = None) -> Any:
        """See `Tokenizer.decode`."""
        return self._decode_with(tokens, generator, self.decode_latents)

    def _decode_with(self, tokens: Tokens, generator: Chance, signal_of: Callable[[Tokens], Tensor]) -> Any:
        """`decode`; a family with keywords of its own hands them to its `decode_latents` by `signal_of`."""
        if not self.facts.has_decoder:
            raise NoDecoder(
                f"{self.facts.name} only encodes: it has no decoder; use its tokens, or another tokenizer"
            )
        self.check_tokens(tokens)
        check_values(tokens)
        check_lengths(self, tokens)
        check_generators(generator, len(tokens))
        if not len(tokens):
            return self.empty_signal()
        with self._evaluating():
            latents = self.dequantize(tokens.to(self.device))
            latents = replace(latents, values=latents.values.to(self.dtype))
            return self.finish_signal(signal_of(latents), tokens)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Eval mode inside, the former mode of every part after.

        Verbs may run in several threads at once: the last one out restores. The flags are the module's own,
        so a thread that trains it meanwhile must use a copy.
        """
        with _MODES:
            if self._verbs_running == 0:
                self._paused = [module for module in self.modules() if module.training]
            self._verbs_running += 1
            for module in self._paused:
                module.training = False
        try:
            yield
        finally:
            with _MODES:
                self._verbs_running -= 1
                if self._verbs_running == 0:
                    for module in self._paused:
                        module.training = True
                    self._paused = []

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """See `Tokenizer.save_pretrained`."""
        from .loading import save

        save(self, folder)

    def finetune(self, **hyperparameters: Any) -> Any:
        """The LightningModule that trains this modality, started from these weights. Needs `[train]`."""
        raise NotImplementedError(f"{self.facts.modality} tokenizers have no training module yet")

    def stream(self) -> Any:
        """An object that encodes chunks; only causal models have one."""
        raise NotImplementedError(f"{self.facts.name} does not stream: encode the whole item")


def _forget_fingerprint(module: nn.Module, arguments: Any) -> None:
    """In training there is none until the tokenizer is saved and loaded: the weights are about to move."""
    if isinstance(module, NeuralTokenizer) and module.training and torch.is_grad_enabled():
        facts = module.facts
        if facts.fingerprint is not None:
            module.identify(name=facts.name, revision=None, fingerprint=None, licence=facts.licence)


def _unpadded(signal: Tensor, extents: Any, axes: int) -> list[Tensor]:
    """The items (..., *extent) of a padded batch (B, ..., *size), padded along its last `axes` axes."""
    sizes, room = torch.as_tensor(extents), tuple(signal.shape[-axes:])
    if sizes.shape != (len(signal), len(room)) or sizes.is_floating_point() or sizes.dtype == torch.bool:
        raise ValueError(
            f"extents are {sizes.dtype} {tuple(sizes.shape)}: expected integers ({len(signal)}, {len(room)})"
        )
    for size in sizes.tolist():
        if any(not 0 <= n <= most for n, most in zip(size, room, strict=True)):
            raise ValueError(f"extent {tuple(size)} in a batch padded to {room}: expected it to lie inside")
    return [item[(..., *map(slice, size))] for item, size in zip(signal, sizes.tolist(), strict=True)]
