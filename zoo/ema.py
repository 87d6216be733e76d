"""A running average of the trained weights, used wherever the model is judged or saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

_RAW = "raw_weights"


class WeightAverage(Callback):
    """Exponential moving average of the trainable parameters of `module.tokenizer`, and of nothing else.

    decay  share of the old average kept at each step; smaller in the first steps, (1 + n) / (10 + n), so that
           the start is soon forgotten

    Buffers are not averaged: counters are integers, and the statistics of an EMA codebook are averages
    already. Validation, `averaged()`, and the module after the fit use the average. The `state_dict` of a
    checkpoint holds the average, so `load_from_checkpoint` gives the weights to use; the raw weights lie
    beside it, and training resumes exactly. (Lightning's EMAWeightAveraging averages losses and
    discriminators too, and goes on from the average when a finished fit is resumed.)
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay={decay}: expected between 0 and 1, both excluded")
        self.decay = decay
        self.updates = 0
        # The weights that the model does not hold now: the average in training, the raw ones while swapped.
        self._other: dict[str, Tensor] = {}
        self._is_swapped = False
        self._step = 0

    @contextmanager
    def averaged(self, module: LightningModule) -> Iterator[None]:
        """The tokenizer holds the average inside."""
        swap = bool(self._other) and not self._is_swapped
        if swap:
            self._swap(module)
        try:
            yield
        finally:
            if swap:
                self._swap(module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_swapped:
            self._swap(pl_module)
        for name, parameter in _trained(pl_module).items():
            if name in self._other:
                self._other[name] = self._other[name].to(parameter.device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # a batch of an accumulated gradient: no step was taken
        self._step = trainer.global_step
        weights = _trained(pl_module)
        if not self._other:
            self._other = {name: weight.detach().clone() for name, weight in weights.items()}
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, weight in weights.items():
            self._other[name].lerp_(weight, 1 - decay)
        self.updates += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._other and not self._is_swapped and trainer.state.fn == "fit":
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_swapped and trainer.state.fn == "fit":
            self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._other and not self._is_swapped:
            self._swap(pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self._other:
            return
        weights = {name: weight.detach() for name, weight in _trained(pl_module).items()}
        raw, average = (self._other, weights) if self._is_swapped else (weights, self._other)
        checkpoint["state_dict"] |= {_key(name): tensor for name, tensor in average.items()}
        checkpoint[_RAW] = dict(raw)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The module holds the average by now, as `state_dict` does; take it, and put the raw weights in."""
        if _RAW not in checkpoint:
            return
        raw = checkpoint[_RAW]
        self._other = {name: raw[name].to(weight) for name, weight in _trained(pl_module).items()}
        self._is_swapped = True
        self._swap(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]

    @torch.no_grad()
    def _swap(self, module: LightningModule) -> None:
        for name, weight in _trained(module).items():
            kept = weight.detach().clone()
            weight.copy_(self._other[name])
            self._other[name] = kept
        self._is_swapped = not self._is_swapped


def _trained(module: LightningModule) -> dict[str, nn.Parameter]:
    tokenizer: nn.Module = module.tokenizer  # pyright: ignore[reportAssignmentType]
    return {name: parameter for name, parameter in tokenizer.named_parameters() if parameter.requires_grad}


def _key(name: str) -> str:
    return f"tokenizer.{name}"
