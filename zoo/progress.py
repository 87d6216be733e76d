"""The progress bar of a fit: one bar over all steps, on stderr."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

# Seconds between lines where nobody watches a bar move: a log file, a CI job.
_LOG_SECONDS = 30.0


class StepProgress(ProgressBar):
    """Steps of all steps, and what the module logs for the bar; a line every 30 s without a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None
        self._is_enabled = True

    def disable(self) -> None:
        self._is_enabled = False

    def enable(self) -> None:
        self._is_enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        live = sys.stderr.isatty()
        self._bar = tqdm(
            total=None if steps == float("inf") else int(steps),
            initial=trainer.global_step,
            desc="steps",
            unit="step",
            file=sys.stderr,
            dynamic_ncols=live,
            mininterval=0.2 if live else _LOG_SECONDS,
            disable=not self._is_enabled,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is None:
            return
        moved = self._bar.update(trainer.global_step - self._bar.n)
        if moved:
            self._bar.set_postfix(_figures(self.get_metrics(trainer, pl_module)), refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.set_postfix(_figures(self.get_metrics(trainer, pl_module)), refresh=False)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _figures(metrics: dict[str, Any]) -> dict[str, str]:
    return {name: f"{float(value):.4g}" for name, value in metrics.items() if isinstance(value, int | float)}
