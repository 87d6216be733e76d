"""Reconstructions to look at and listen to while a tokenizer trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from .media import Medium, medium
from .training import TokenizerTraining


class Examples(Callback):
    """Writes the first validation items, decoded, at each validation; the last ones stay.

    folder  where to: what `tokenzoo reconstruct` would write, pages of pictures or of spectrograms among it
    count   how many items

    Nested tokenizers show the shortest prefix too. Loggers that take sounds and pictures (TensorBoard) get
    them with their step. Tokenizers that take captions show nothing.
    """

    def __init__(self, folder: Path, count: int = 4) -> None:
        if count < 1:
            raise ValueError(f"count={count}: expected at least 1; leave the callback out for none")
        self.folder = folder
        self.count = count

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """In the first batch, the same at each validation, and with the averaged weights."""
        assert isinstance(pl_module, TokenizerTraining)
        is_first = batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking
        if not is_first or not trainer.is_global_zero or pl_module.facts.takes_captions:
            return
        files = medium(pl_module.facts.modality)
        # `compare` measures on the CPU, where pages are drawn.
        items = [item.float().cpu() for item in pl_module.signal_of(batch)[: self.count]]
        names = [f"{index:02d}" for index in range(len(items))]
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, item in zip(names, items, strict=True):
            files.write(item, self.folder / f"{name}-original{files.output_suffix}", pl_module.facts)
        files.compare(pl_module, names, items, self._keeps(pl_module), self.folder)
        for writer in _writers(trainer):
            _show(files, writer, pl_module, names, items, trainer.global_step)

    def _keeps(self, module: TokenizerTraining) -> list[int | None]:
        facts = module.facts
        if facts.nested is None:
            return [None]
        return [min(facts.keeps, default=1), None]


def _writers(trainer: Trainer) -> Iterator[Any]:
    """Those of TensorBoard's kind."""
    for logger in trainer.loggers:
        writer = getattr(logger, "experiment", None)
        if hasattr(writer, "add_audio") and hasattr(writer, "add_image"):
            yield writer


def _show(
    files: Medium, writer: Any, module: TokenizerTraining, names: list[str], items: list[Tensor], step: int
) -> None:
    with torch.no_grad():
        tokens = module.encode(items)
        decoded = tokens.crop(module.decode(tokens))
    for name, item, made in zip(names, items, decoded, strict=True):
        files.log(writer, f"examples/{name}-original", item, step, module.facts)
        files.log(writer, f"examples/{name}", made.cpu(), step, module.facts)
