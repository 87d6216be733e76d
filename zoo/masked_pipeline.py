"""Masked-token generation over the ids of any discrete tokenizer, as a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Generator, Tensor

from .chance import Chance, check_generators
from .generator_parts import (
    Generated,
    TokenizerComponent,
    TokenPipeline,
    check_discrete,
    check_finite,
    check_fits,
    integer,
    one_each,
)
from .masked_transformer import MaskedTransformer
from .optional import require
from .tokenizer import Tokenizer

AmusedScheduler = require("diffusers", "diffusers").AmusedScheduler


class MaskedTokenPipeline(TokenPipeline):
    """Starts from a masked row and unmasks it in a few steps, the most certain ids first (MaskGIT).

    tokenizer    any discrete tokenizer of ours
    transformer  what predicts the masked ids
    scheduler    which are unmasked when; by default a cosine schedule

    `save_pretrained` and `MaskedTokenPipeline.from_pretrained` are each other's inverse;
    `DiffusionPipeline.from_pretrained` does not know this class. ValueError for a continuous tokenizer, for
    one whose codebooks are not the transformer's, and for a scheduler with another mask; TypeError for a
    transformer of another kind.
    """

    # A component with a default: diffusers must know that it is one, or it hands over its line of the index.
    _optional_components: ClassVar[list[str]] = ["scheduler"]
    transformer: MaskedTransformer

    def __init__(
        self,
        tokenizer: Tokenizer | TokenizerComponent,
        transformer: MaskedTransformer,
        scheduler: AmusedScheduler | None = None,  # pyright: ignore[reportInvalidTypeForm]
    ) -> None:
        super().__init__()
        component = TokenizerComponent.wrap(tokenizer)
        check_discrete(component.facts)
        if not isinstance(getattr(transformer, "_orig_mod", transformer), MaskedTransformer):  # compiled
            raise TypeError(
                f"the transformer is a {type(transformer).__name__}: expected a MaskedTransformer; a causal "
                "model belongs to AutoregressiveTokenPipeline"
            )
        check_fits(transformer.row, component.facts)
        if scheduler is not None and not isinstance(scheduler, AmusedScheduler):
            raise TypeError(f"the scheduler is a {type(scheduler).__name__}: expected an AmusedScheduler")
        if scheduler is not None and scheduler.config.mask_token_id != transformer.mask_id:
            raise ValueError(
                f"the scheduler masks with id {scheduler.config.mask_token_id}, the transformer with "
                f"{transformer.mask_id}: leave the scheduler out, or give AmusedScheduler(mask_token_id="
                f"{transformer.mask_id})"
            )
        self.register_modules(
            tokenizer=component,
            transformer=transformer.eval(),
            scheduler=scheduler or AmusedScheduler(mask_token_id=transformer.mask_id),
        )

    @torch.no_grad()
    def __call__(
        self,
        classes: Sequence[int | None] | Tensor | None = None,
        *,
        prompt_embeds: Tensor | None = None,
        prompt_keep: Tensor | None = None,
        guidance_scale: float = 3.0,
        num_inference_steps: int = 12,
        temperature: tuple[float, float] = (2.0, 0.0),
        num_tokens: int | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
        output_type: str | None = None,
    ) -> Generated:
        """One item for each class, or for each row of `prompt_embeds`.

        classes        None stands for no class: [None, None] makes two unconditional items
        prompt_embeds  (B, T, text_width) hidden states of the encoder that the transformer was trained with
        prompt_keep    (B, T) bool, where there is text
        guidance_scale logits are none + scale * (condition - none); 1 leaves the second forward out
        temperature    of the order in which ids are unmasked, at the first and at the last step
        num_tokens     fewer, where the tokenizer is nested; the transformer should have seen such prefixes
        captions       for the decoder of a tokenizer that takes them
        generator      one draws for the batch at once, so an item depends on its neighbours; with a list of
                       one an item, each comes out as it would alone, up to the last bit of the logits.
                       Without any, torch's own
        output_type    "pil" (default for images), "pt" (tensors), or "tokens": not decoded
        """
        chosen = self._check_output(output_type)
        check_finite("guidance_scale", guidance_scale)
        _check_temperature(temperature)
        if (steps := integer(num_inference_steps)) is None or steps < 1:
            raise ValueError(
                f"num_inference_steps={num_inference_steps!r}: expected an integer of at least 1"
            )
        row = self.transformer.row
        count = row.count(num_tokens, self.tokenizer.facts)
        batch, given = self._classes(classes, prompt_embeds)
        check_generators(generator, batch)
        device = self.transformer.device
        ids = torch.full((batch, count * row.depth), self.transformer.mask_id, device=device)
        self.scheduler.set_timesteps(steps, temperature, device)
        for timestep in self.progress_bar(self.scheduler.timesteps):
            logits = self._guided(ids, given, prompt_embeds, prompt_keep, guidance_scale)
            ids = self._step(logits, timestep, ids, generator)
        return self._finish(row.shape(ids, self.tokenizer.facts), chosen, captions)

    def _classes(
        self, classes: Sequence[int | None] | Tensor | None, prompt_embeds: Tensor | None
    ) -> tuple[int, Tensor]:
        """The size of the batch, and (B,) classes with the null class for None."""
        if classes is None and prompt_embeds is None:
            raise ValueError("nothing to generate: give classes, [None] for one without, or prompt_embeds")
        null = self.transformer.num_classes
        nobody = [None] * (0 if prompt_embeds is None else len(prompt_embeds))
        filled: list[int] = []
        for each in one_each("classes", nobody if classes is None else classes):
            found = null if each is None else integer(each)
            if found is None:
                raise ValueError(f"class {each}: expected an integer, or None for none")
            if each is not None and not 0 <= found < null:
                raise ValueError(f"class {each}: expected 0 ... {null - 1}, or None for none")
            filled.append(found)
        return len(filled), torch.tensor(filled, device=self.transformer.device)

    def _guided(
        self, ids: Tensor, classes: Tensor, text: Tensor | None, keep: Tensor | None, scale: float
    ) -> Tensor:
        """Logits (B, L, K) with classifier-free guidance, condition and none in one forward."""
        if text is not None:
            there = torch.ones(text.shape[:2], dtype=torch.bool)
            text, keep = text.to(ids.device), (there if keep is None else keep).to(ids.device)
        if scale == 1:
            return self.transformer(ids, classes, text, keep).float()
        nobody = torch.full_like(classes, self.transformer.num_classes)
        texts = None if text is None else torch.cat([text, text])
        keeps = None if keep is None else torch.cat([keep, torch.zeros_like(keep)])
        both = self.transformer(torch.cat([ids, ids]), torch.cat([classes, nobody]), texts, keeps).float()
        conditional, unconditional = both.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    def _step(self, logits: Tensor, timestep: Tensor, ids: Tensor, generator: Chance) -> Tensor:
        """The scheduler's step; item by item where every item has its own generator."""
        if generator is None or isinstance(generator, Generator):
            return self.scheduler.step(logits, timestep, ids, generator=generator).prev_sample
        steps = [
            self.scheduler.step(logits[item, None], timestep, ids[item, None], generator=each).prev_sample
            for item, each in enumerate(generator)
        ]
        return torch.cat(steps)


def _check_temperature(temperature: tuple[float, float]) -> None:
    """ValueError unless these are two finite numbers of at least 0."""
    if not isinstance(temperature, tuple | list) or len(temperature) != 2:
        raise ValueError(f"temperature={temperature!r}: expected two, at the first and at the last step")
    for each in temperature:
        check_finite("temperature", each, least=0)
