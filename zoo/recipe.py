"""What a training module of any modality is told: plain values, for YAML and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from .facts import Facts
from .length_policy import Distribution, LengthPolicy
from .neural import NeuralTokenizer

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Identity:
    """What the trained tokenizer will be called and where its weights come from.

    name        default: the name of the family; of a pretrained tokenizer its own with "-finetuned"
    licence     of the weights
    provenance  goes to config.json and the model card
    """

    name: str | None = None
    licence: str | None = None
    provenance: str | None = None

    @classmethod
    def of(cls, tokenizer: NeuralTokenizer) -> Identity:
        """What a tokenizer is called now."""
        facts = tokenizer.facts
        return cls(facts.name, facts.licence, tokenizer.provenance)

    def updated(self, other: Identity | Mapping[str, Any]) -> Identity:
        """`other`, and this where it says nothing."""
        told = asdict(as_settings(Identity, other))
        return replace(self, **{name: value for name, value in told.items() if value is not None})


@dataclass(frozen=True)
class LengthSettings:
    """Nested dropout: a `LengthPolicy` but for the longest length, which the tokenizer knows.

    "uniform" means one of the counts that the tokenizer can keep, where those are not all.
    """

    distribution: Distribution = "uniform"
    counts: tuple[int, ...] = ()
    per: Literal["batch", "sample"] = "sample"
    full: float = 0.0

    def policy(self, facts: Facts) -> LengthPolicy | None:
        """The policy along the nested axis of the tokenizer, None when it has no such axis."""
        longest = nested_length(facts)
        if longest is None:
            return None
        distribution, counts = self.distribution, tuple(self.counts)
        if facts.keeps and distribution == "uniform":
            distribution, counts = "fixed", facts.keeps
        return LengthPolicy(longest, distribution, counts, self.per, full=self.full)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, a linear warm-up and a cosine.

    learning_rate      at its peak, after the warm-up
    betas              of AdamW
    weight_decay       of matrices and kernels; vectors (biases, norms, gains) have none
    warmup_steps       steps from 0 to the peak
    decay_steps        step at which the cosine ends; default: the trainer's max_steps, epochs or max_time,
                       whichever is nearer
    min_learning_rate  where the cosine ends
    clip_norm          largest norm of the gradient; None leaves it as it is
    """

    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_steps: int | None = None
    min_learning_rate: float = 0.0
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_learning_rate <= self.learning_rate:
            raise ValueError(
                f"min_learning_rate={self.min_learning_rate}, learning_rate={self.learning_rate}: "
                "expected 0 <= min <= peak"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm={self.clip_norm}: expected above 0, or none")
        if self.decay_steps is not None and self.decay_steps < 1:
            raise ValueError(f"decay_steps={self.decay_steps}: expected at least 1, or none")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: expected from 0 to below 1")

    def factor(self, step: int, progress: float) -> float:
        """Share of `learning_rate` at a step, counted from 0, when `progress`, 0 ... 1, is done."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        floor = self.min_learning_rate / self.learning_rate if self.learning_rate else 0.0
        return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))

    def build(self, module: nn.Module) -> torch.optim.AdamW:
        """The optimizer of all parameters that ask for a gradient."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not parameters:
            raise ValueError("nothing to train: every part is frozen; shorten `freeze`")
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        # The fused step is several times faster on a CPU; on a GPU it would forbid clipping in fp16.
        fused = all(parameter.device.type == "cpu" for parameter in parameters)
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.learning_rate,
            betas=(self.betas[0], self.betas[1]),
            fused=fused or None,
        )


def nested_length(facts: Facts) -> int | None:
    """Length of the nested axis in tokens or codebooks; None without one, or when it grows with the item."""
    if facts.nested == "codebooks":
        return len(facts.codebook_sizes)
    return facts.max_tokens if facts.nested == "tokens" else None


def named_parts(parts: str | Sequence[str]) -> tuple[str, ...]:
    """Names of parts, which a caller may give as a list or as one string with commas."""
    if isinstance(parts, str):
        parts = parts.split(",")
    return tuple(name.strip() for name in parts if name.strip())


def as_settings(kind: type[Settings], values: Settings | Mapping[str, Any]) -> Settings:
    """`values`, which a checkpoint or a caller may give as a mapping; ValueError names an unknown entry."""
    if isinstance(values, kind):
        return values
    if not isinstance(values, Mapping):
        raise TypeError(f"{kind.__name__} is given as {values!r}: expected a mapping of its fields")
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(values) - set(names)):
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}; known: {', '.join(names)}")
    return kind(**values)


def plain(settings: Any) -> dict[str, Any]:
    """The fields as plain values, for checkpoints that load with weights_only."""
    return asdict(settings)
