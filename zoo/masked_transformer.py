"""The generator of masked-token pipelines: a bidirectional transformer over the ids of a tokenizer.

Source: MaskGIT, Chang et al. 2022, arXiv 2202.04200.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from .generator_parts import ConfigMixin, ModelMixin, TokenRow, cosine_share, initialise
from .optional import require
from .tokenizer import Tokenizer
from .tokens import Tokens
from .transformer import Transformer, TransformerSize

register_to_config = require("diffusers.configuration_utils", "diffusers").register_to_config


class MaskedTransformer(ModelMixin, ConfigMixin):
    """Logits of every id of a row at once, given those that are not masked yet.

    codebook_sizes  of the codebooks in the row, the first Q of the tokenizer's
    num_tokens      most tokens N of an item; a row has N * Q ids, those of a token side by side
    num_classes     0 for none; class `num_classes` stands for no class
    text_width      features of the encoder's hidden states, 0 for no text
    width, layers, heads  of the transformer

    A row starts with one token for the class, then the text; nothing is masked but what is missing. Embedding
    and head of a codebook share their weights; every codebook has its own, so no illegal id has a logit.
    """

    @register_to_config
    def __init__(
        self,
        codebook_sizes: Sequence[int],
        num_tokens: int,
        num_classes: int = 0,
        text_width: int = 0,
        width: int = 384,
        layers: int = 8,
        heads: int = 6,
    ) -> None:
        super().__init__()
        self.row = TokenRow(tuple(codebook_sizes), num_tokens)
        self.num_classes = num_classes
        self.codes = nn.ModuleList(nn.Embedding(size, width) for size in self.row.sizes)
        self.head_biases = nn.ParameterList(torch.zeros(size) for size in self.row.sizes)
        self.masked = nn.Embedding(1, width)
        self.places = nn.Embedding(self.row.length, width)
        self.classes = nn.Embedding(num_classes + 1, width)
        self.text = nn.Linear(text_width, width) if text_width else None
        self.blocks = Transformer(TransformerSize(width, layers, heads))
        self.norm = nn.LayerNorm(width)
        initialise(self)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        output_loading_info: bool = False,
        **told: Any,
    ) -> Any:
        """As diffusers loads it, but ValueError where weights are missing or left over, not a warning."""
        name = pretrained_model_name_or_path
        model, found = super().from_pretrained(name, output_loading_info=True, **told)
        wrong = {kind: found[kind] for kind in ("missing_keys", "unexpected_keys") if found[kind]}
        if wrong:
            raise ValueError(
                f"{name} is no whole MaskedTransformer: {wrong}; save it again, or another folder"
            )
        return (model, found) if output_loading_info else model

    @classmethod
    def for_tokenizer(
        cls,
        tokenizer: Tokenizer,
        *,
        num_classes: int = 0,
        text_width: int = 0,
        num_tokens: int | None = None,
        depth: int | None = None,
        width: int = 384,
        layers: int = 8,
        heads: int = 6,
    ) -> Self:
        """A new generator of this tokenizer's ids; depth takes the first codebooks alone."""
        row = TokenRow.of(tokenizer.facts, num_tokens, depth)
        return cls(row.sizes, row.tokens, num_classes, text_width, width, layers, heads)

    @property
    def mask_id(self) -> int:
        """The id that stands for a masked one in every codebook: the largest size."""
        return max(self.row.sizes)

    def forward(
        self,
        ids: Tensor,
        classes: Tensor | None = None,
        text: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, L, K), K the largest codebook; the least float where a codebook has no such id.

        ids      (B, L) int64, `mask_id` where masked; L = N * Q or a prefix of it in whole tokens
        classes  (B,) int64, `num_classes` for none; default none
        text     (B, T, text_width) hidden states of a text encoder; default none
        keep     (B, T) bool, True where there is text: a row without any is unconditional
        """
        hidden = self._hidden(ids, classes, text, keep)
        lowest = torch.finfo(hidden.dtype).min
        logits = hidden.new_full((*ids.shape, self.mask_id), lowest)
        for turn, size in enumerate(self.row.sizes):
            places = slice(turn, None, self.row.depth)
            logits[:, places, :size] = self._logits(hidden[:, places], turn)
        return logits

    def loss(
        self,
        tokens: Tokens | Tensor,
        classes: Tensor | None = None,
        *,
        text: Tensor | None = None,
        keep: Tensor | None = None,
        drop: float = 0.1,
        generator: Generator | None = None,
    ) -> Tensor:
        """Cross entropy of the masked ids, a scalar in nats.

        tokens     of one length, or their ids (B, N) or (B, N, Q), at most `num_tokens` of them
        classes, text, keep   as in `forward`
        drop       chance that an item loses class and text, so that guidance has something to compare with
        generator  draws masks and drops

        Each item masks a share cos(u * pi / 2) of its ids, at least one, u uniform in [0, 1).
        """
        row = self.row.flatten(_whole_ids(tokens).to(self.places.weight.device))
        batch, length = row.shape

        def draw(*shape: int) -> Tensor:
            at = None if generator is None else generator.device
            return torch.rand(*shape, generator=generator, device=at).to(row.device)

        count = (cosine_share(draw(batch)) * length).ceil().clamp(min=1)
        hide = draw(batch, length).argsort(dim=1).argsort(dim=1) < count[:, None]
        dropped = draw(batch) < drop
        if classes is not None:
            classes = torch.where(dropped, self.num_classes, classes.to(row.device))
        if text is not None:
            there = torch.ones(text.shape[:2], dtype=torch.bool, device=row.device)
            keep = (there if keep is None else keep.to(row.device)) & ~dropped[:, None]
        hidden = self._hidden(row.masked_fill(hide, self.mask_id), classes, text, keep)
        total = hidden.new_zeros(())
        for turn in range(self.row.depth):
            places = slice(turn, None, self.row.depth)
            chosen = hide[:, places]
            logits = self._logits(hidden[:, places][chosen], turn)
            total = total + F.cross_entropy(logits.float(), row[:, places][chosen], reduction="sum")
        return total / hide.sum()

    def _hidden(
        self, ids: Tensor, classes: Tensor | None, text: Tensor | None, keep: Tensor | None
    ) -> Tensor:
        """(B, L, D) before the heads."""
        batch, length = ids.shape
        rows = self.places.weight[:length].expand(batch, -1, -1).clone()
        for turn, codes in enumerate(self.codes):
            places = slice(turn, None, self.row.depth)
            mine = ids[:, places]
            is_masked = mine == self.mask_id
            known = codes(mine.masked_fill(is_masked, 0))  # pyright: ignore[reportCallIssue]
            rows[:, places] += torch.where(is_masked[..., None], self.masked.weight[0], known)
        prefix, there = self._prefix(batch, classes, text, keep)
        if there is not None:
            there = F.pad(there, (0, length), value=True)
        mixed = self.blocks(torch.cat([prefix, rows], dim=1), there)
        return self.norm(mixed[:, prefix.shape[1] :])

    def _prefix(
        self, batch: int, classes: Tensor | None, text: Tensor | None, keep: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, 1 + T, D) of the condition, and which of them are there (None: all)."""
        device = self.places.weight.device
        if classes is None:
            classes = torch.full((batch,), self.num_classes, device=device)
        self._check_condition(batch, classes, text)
        first = self.classes(classes)[:, None]
        if text is None or self.text is None:
            return first, None
        prefix = torch.cat([first, self.text(text.to(first))], dim=1)
        return prefix, None if keep is None else F.pad(keep, (1, 0), value=True)

    def _check_condition(self, batch: int, classes: Tensor, text: Tensor | None) -> None:
        if classes.shape != (batch,) or not bool(((classes >= 0) & (classes <= self.num_classes)).all()):
            raise ValueError(
                f"classes {classes.tolist()[:8]} of {batch} items: expected one each in "
                f"0 ... {self.num_classes}, where {self.num_classes} stands for none"
            )
        if text is None:
            return
        if self.text is None:
            raise ValueError("this generator takes no text: make one with text_width=")
        if text.ndim != 3 or len(text) != batch or text.shape[2] != self.text.in_features:
            raise ValueError(
                f"text has shape {tuple(text.shape)}: expected ({batch}, T, {self.text.in_features})"
            )

    def _logits(self, hidden: Tensor, turn: int) -> Tensor:
        """(..., D) -> (..., K of this codebook)."""
        codes: Any = self.codes[turn]
        return F.linear(hidden, codes.weight, self.head_biases[turn])


def _whole_ids(tokens: Tokens | Tensor) -> Tensor:
    """ids of items of one length; ValueError for ragged ones."""
    if isinstance(tokens, Tensor):
        return tokens
    if len(tokens) and int(tokens.lengths.min()) != tokens.ids.shape[1]:
        raise ValueError(
            f"lengths {tokens.lengths.tolist()[:8]}: expected one length a batch; "
            "sort the items by length, or keep a common prefix"
        )
    return tokens.ids
