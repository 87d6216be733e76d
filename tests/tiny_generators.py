"""Tiny generators trained for a second on rows of ids, and the rows they have to give back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tokenzoo.zoo.autoregressive_pipeline import AutoregressiveTokenPipeline
from tokenzoo.zoo.masked_pipeline import MaskedTokenPipeline
from tokenzoo.zoo.masked_transformer import MaskedTransformer
from tokenzoo.zoo.neural import NeuralTokenizer
from tokenzoo.zoo.prepacking import pack

from .toys import build_toy

CLASSES = 3
TOKENS = 6


def ids_of_classes(tokenizer: NeuralTokenizer) -> Tensor:
    """One row of ids a class: (CLASSES, TOKENS), or (CLASSES, TOKENS, Q)."""
    chance = torch.Generator().manual_seed(7)
    sizes = tokenizer.facts.codebook_sizes
    ids = [torch.randint(0, size, (CLASSES, TOKENS), generator=chance) for size in sizes]
    return ids[0] if len(ids) == 1 else torch.stack(ids, dim=-1)


@cache
def trained_masked(name: str, text_width: int = 0) -> MaskedTokenPipeline:
    """Knows one row for each class, or for each of the one-hot hidden states of text."""
    tokenizer = build_toy(name)
    ids = ids_of_classes(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MaskedTransformer.for_tokenizer(
            tokenizer,
            num_classes=0 if text_width else CLASSES,
            text_width=text_width,
            num_tokens=TOKENS,
            width=32,
            layers=2,
            heads=2,
        )
    chance = torch.Generator().manual_seed(0)
    rows = torch.cat([ids] * 8)
    told = torch.arange(CLASSES).repeat(8)
    text = torch.eye(CLASSES, text_width)[told][:, None] if text_width else None
    classes = None if text_width else told
    descend(model, lambda: model.loss(rows, classes, text=text, generator=chance))
    return quiet(MaskedTokenPipeline(tokenizer, model))


@cache
def trained_autoregressive(name: str) -> AutoregressiveTokenPipeline:
    """Knows one row for each class; trained on packed rows."""
    tokenizer = build_toy(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = AutoregressiveTokenPipeline.untrained(
            tokenizer, num_conditions=CLASSES, num_tokens=TOKENS, width=32, layers=2, heads=2
        )
    model: transformers.LlamaForCausalLM = pipeline.transformer
    chance = torch.Generator().manual_seed(0)
    tokens = tokenizer.stamp(torch.cat([ids_of_classes(tokenizer)] * 4))
    told = list(range(CLASSES)) * 4

    def loss() -> Tensor:
        rows = pipeline.rows(tokens, told, drop=0.1, generator=chance)
        return model(**pack(rows, 2 * len(rows[0])).inputs()).loss

    descend(model, loss)
    return quiet(pipeline)


def descend(model: nn.Module, loss: Callable[[], Tensor], steps: int = 200) -> None:
    """AdamW; the rate falls to zero, so that nearly all of the mass lands on what is right."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
