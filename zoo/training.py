"""Training tokenizers of any modality: a LightningModule that is a Tokenizer too."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import Timer
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .adversary import Adversary
from .balancer import Balancer
from .chance import Chance, item_generators, seed_of, seeded
from .codebook_quantizer import CodebookQuantizer
from .ema import WeightAverage
from .facts import Facts
from .neural import NeuralTokenizer, Reconstruction
from .objective import Objective, Step
from .recipe import LengthSettings, OptimizerSettings, named_parts
from .tokenizer import Tokenizer
from .tokens import Tokens
from .usage import UsageCount

_PRECISIONS_THAT_SCALE = ("16-mixed", "16-true")


class TokenizerTraining(LightningModule, Tokenizer):
    """Trains a tokenizer on a weighted sum of objectives, under nested dropout, and averages its weights.

    tokenizer         float32, without a fingerprint; see `tokenizer_to_train`
    objectives        terms of the loss
    adversary         discriminators, or None
    balance           weights are shares of the gradient at the decoded signal (`Balancer`)
    lengths           distribution of kept tokens or codebooks; ignored unless the tokenizer is nested
    optimizer         AdamW, warm-up, cosine, clipping
    ema_decay         share of the old average kept at each step; None trains without an average
    freeze            parts that do not move: "encoder", "quantizer", "decoder", or what lies in them; a list,
                      or one string with commas. What no term of the loss teaches (`untaught`) is frozen too
    initialise_items  how many training items a new tokenizer's `initialise` sees
    seed              of the kept lengths and the quantizer's noise, which depend on it and the step alone
    is_new            its weights are random: `initialise` is called

    A new tokenizer with a method `initialise(signal)` is handed float signals (M, ...) of the training data
    at `on_train_start`, before the first step; it changes its parameters in place. A resumed fit, a reloaded
    checkpoint and a pretrained tokenizer skip it.

    A modality subclasses it, keeps plain hyperparameters that hold the whole configuration, and says what
    signal lies in a batch and which figures validation shows.
    """

    def __init__(
        self,
        tokenizer: NeuralTokenizer,
        objectives: Sequence[Objective],
        *,
        adversary: Adversary | None,
        balance: bool,
        lengths: LengthSettings,
        optimizer: OptimizerSettings,
        ema_decay: float | None,
        freeze: str | Sequence[str],
        initialise_items: int,
        seed: int,
        is_new: bool,
    ) -> None:
        super().__init__()
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed={seed!r}: expected an integer")
        if adversary is None and not any(each.weight for each in objectives):
            raise ValueError("every weight of the loss is 0: there is nothing to learn from")
        self.tokenizer = tokenizer
        self.objectives = nn.ModuleList(objectives)
        self.adversary = adversary
        self.balancer = Balancer(self._signal_weights()) if balance else None
        self.optimizer_settings = optimizer
        self.length_policy = lengths.policy(tokenizer.facts)
        self.average = None if ema_decay is None else WeightAverage(ema_decay)
        self.freeze_parts = named_parts(freeze)
        self.initialise_items = initialise_items
        self.seed = seed
        self.is_new = is_new
        taught = {name for each in objectives for name in each.teaches}
        idle = [name for name in tokenizer.untaught if name not in taught]
        for part in (*self._frozen(), *map(self._part, idle)):
            part.requires_grad_(False)
        self._batches_seen = 0
        self._usage = UsageCount()
        self._adversary_state: dict[str, Any] | None = None

    @abstractmethod
    def signal_of(self, batch: Any) -> Tensor:
        """The float signals of a batch of the data, on its device. TypeError says what was expected."""

    @abstractmethod
    def validation_figures(self, signal: Tensor) -> dict[str, Tensor]:
        """Scalars by name for one batch, through the verbs: what a user gets."""

    def captions_of(self, batch: Any) -> tuple[str, ...] | None:
        """The texts of a batch, for tokenizers that take them."""
        return None

    def training_figures(self, step: Step) -> dict[str, Tensor]:
        """Scalars that the progress bar shows beside the loss."""
        return {}

    @property
    def facts(self) -> Facts:
        return self.tokenizer.facts

    @property
    def preprocess(self) -> Any:
        return self.tokenizer.preprocess

    def num_tokens(self, extent: Sequence[int]) -> int:
        return self.tokenizer.num_tokens(extent)

    def encode(
        self,
        signal: Tensor | Sequence[Tensor],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
    ) -> Tokens:
        return self.tokenizer.encode(signal, extents=extents, keep=keep, generator=generator)

    def decode(self, tokens: Tokens, *, generator: Chance = None) -> Any:
        return self.tokenizer.decode(tokens, generator=generator)

    def default_extents(self, lengths: Tensor) -> Tensor:
        return self.tokenizer.default_extents(lengths)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """The inference weights alone: the average where there is one. `push_to_hub` rests on this."""
        if self.average is None:
            self.tokenizer.save_pretrained(folder)
        else:
            with self.average.averaged(self):
                self.tokenizer.save_pretrained(folder)

    def forward(
        self,
        signal: Tensor,
        *,
        lengths: Tensor | None = None,
        captions: tuple[str, ...] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        return self.tokenizer(signal, lengths=lengths, captions=captions, generator=generator)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        seed = seed_of(self.seed, self._batches_seen, "rank", self.global_rank)
        with seeded(seed, self.device):
            return self._step(batch, batch_idx)

    def _step(self, batch: Any, batch_idx: int) -> Tensor:
        signal, captions = self.signal_of(batch), self.captions_of(batch)
        # Items are dealt to the ranks in turn, see `Batches`.
        places = range(self.global_rank, len(signal) * self.trainer.world_size, self.trainer.world_size)
        generator = item_generators(self.seed, self._batches_seen, places)
        lengths = self._lengths(len(signal), generator)
        self._batches_seen += 1
        made = self(signal, lengths=lengths, captions=captions, generator=generator)
        step = Step(signal, made.signal, made.quantized, self.tokenizer, lengths, captions, generator)
        terms = {each.name: each(step) for each in self._each_objective()}
        figures = self._play(step, terms, batch_idx)
        loss = self._total(terms, step.rebuilt)
        figures |= {name: term.detach() for name, term in terms.items()}
        self._log_step(loss, figures, step)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        signal = self.signal_of(batch)
        self.log_validation(self.validation_figures(signal), len(signal))

    def log_validation(self, figures: Mapping[str, Tensor], items: int) -> None:
        """The figures of one batch of so many items; Lightning averages over batches and ranks."""
        for name, figure in figures.items():
            self.log(f"val/{name}", figure.float(), batch_size=items, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        settings = self.optimizer_settings
        optimizer = settings.build(nn.ModuleList([self.tokenizer, self.objectives]))
        schedule = LambdaLR(optimizer, lambda step: settings.factor(step, self._progress(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """`clip_norm`, unless the trainer says something else."""
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif self.optimizer_settings.clip_norm is not None:
            # Lightning would refuse a fused optimiser under bf16, which has no loss scale to undo first.
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.optimizer_settings.clip_norm)

    def configure_callbacks(self) -> list[Callback]:
        return [] if self.average is None else [self.average]

    def on_fit_start(self) -> None:
        """Frozen networks are read only where they are needed."""
        if self.adversary is not None and str(self.trainer.precision) in _PRECISIONS_THAT_SCALE:
            raise ValueError(
                f"precision {self.trainer.precision} scales the loss, and the adversary's step would not; "
                "use bf16-mixed or 32-true"
            )
        for objective in self._each_objective():
            objective.prepare(self)
        if self.adversary is not None and self._adversary_state is not None:
            self.adversary.load_training_state(self._adversary_state)
            self._adversary_state = None

    def on_train_start(self) -> None:
        for part in self._frozen():
            part.eval()
        initialise = getattr(self.tokenizer, "initialise", None)
        if self.is_new and initialise is not None:
            with torch.no_grad():
                initialise(self._first_items(self.initialise_items).to(self.device))
            if self.trainer.world_size > 1:
                for tensor in self.tokenizer.state_dict().values():
                    torch.distributed.broadcast(tensor, src=0)
        self.is_new = False

    def on_train_end(self) -> None:
        self.train()

    def on_fit_end(self) -> None:
        for objective in self._each_objective():
            objective.release()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["batches_seen"] = self._batches_seen
        checkpoint["codebook_steps"] = {name: each.steps for name, each in self._codebooks()}
        if self.adversary is not None:
            checkpoint["adversary"] = self.adversary.training_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._batches_seen = checkpoint["batches_seen"]
        for name, each in self._codebooks():
            each.steps = checkpoint.get("codebook_steps", {}).get(name, 0)
        self._adversary_state = checkpoint.get("adversary")
        self.is_new = False

    def _lengths(self, items: int, generator: Chance) -> Tensor | None:
        if self.length_policy is None:
            return None
        if self.length_policy.per == "batch":
            generator = Generator().manual_seed(seed_of(self.seed, self._batches_seen, "lengths"))
        return self.length_policy.sample(items, generator=generator)

    def _play(self, step: Step, terms: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The discriminators' turn, then their say in `terms`; what is to be shown of it."""
        if self.adversary is None or self._batches_seen <= self.adversary.settings.start_step:
            return {}
        trainer = self.trainer
        batches = trainer.accumulate_grad_batches
        is_last = (batch_idx + 1) % batches == 0 or trainer.is_last_batch
        figures = self.adversary.learn(step.signal, step.rebuilt, batches=batches, is_last=is_last)
        terms |= self.adversary.losses(step.signal, step.rebuilt)
        return figures

    def _total(self, terms: Mapping[str, Tensor], rebuilt: Tensor) -> Tensor:
        """The weighted sum; with a balancer, of balanced gradients where the terms are of the signal."""
        weights = {each.name: each.weight for each in self._each_objective()} | self._adversary_weights()
        balanced = set(self._signal_weights()) if self.balancer is not None else set()
        parts = [weights[name] * term for name, term in terms.items() if name not in balanced]
        if self.balancer is not None:
            at_signal = {name: terms[name] for name in terms if name in balanced}
            parts.append(self.balancer(at_signal, rebuilt))
        return torch.stack(parts).sum()

    def _log_step(self, loss: Tensor, figures: Mapping[str, Tensor], step: Step) -> None:
        shown = {"loss": loss.detach()} | self.training_figures(step)
        self.log_dict({f"train/{name}": figure for name, figure in shown.items()}, prog_bar=True)
        self.log_dict({f"train/{name}": figure for name, figure in figures.items()})
        self.log("train/learning_rate", self.lr_schedulers().get_last_lr()[0])  # pyright: ignore
        if step.quantized.usage is not None:
            self._usage.add(step.quantized.usage)
        if self._batches_seen % self.trainer.log_every_n_steps == 0 and (usage := self._usage.take()):  # pyright: ignore
            self.log_dict({"train/usage": usage.share, "train/perplexity": usage.perplexity})

    def _codebooks(self) -> list[tuple[str, CodebookQuantizer]]:
        """Those whose dead codes are revived by the step."""
        parts = self.tokenizer.named_modules()
        return [(name, part) for name, part in parts if isinstance(part, CodebookQuantizer)]

    def _each_objective(self) -> list[Objective]:
        return list(self.objectives)  # pyright: ignore[reportReturnType]

    def _adversary_weights(self) -> dict[str, float]:
        return {} if self.adversary is None else self.adversary.weights

    def _signal_weights(self) -> dict[str, float]:
        own = {each.name: each.weight for each in self._each_objective() if each.is_of_signal}
        return own | self._adversary_weights()

    def _progress(self, step: int) -> float:
        """Share of the fit that is done: of `decay_steps`, or of the trainer's steps or time."""
        if self.optimizer_settings.decay_steps:
            return step / self.optimizer_settings.decay_steps
        steps = self.trainer.estimated_stepping_batches
        shares = [] if steps == float("inf") else [step / max(steps, 1)]
        for timer in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None:
                shares.append(timer.time_elapsed() / max(timer.time_elapsed() + left, 1e-9))
        if not shares:
            raise ValueError("the cosine has no end: set decay_steps, or the trainer's max_steps or max_time")
        return max(shares)

    def _first_items(self, count: int) -> Tensor:
        """At most `count` signals (M, ...), from a copy of the loader: its place does not move."""
        found: list[Tensor] = []
        for batch in copy.copy(self.trainer.train_dataloader):  # pyright: ignore[reportOptionalIterable]
            found.append(self.signal_of(batch))
            if sum(map(len, found)) >= count:
                break
        return torch.cat(found)[:count]

    def _frozen(self) -> list[nn.Module]:
        try:
            return [self.tokenizer.get_submodule(name) for name in self.freeze_parts]
        except AttributeError as error:
            parts = ", ".join(name for name, _ in self.tokenizer.named_children())
            raise ValueError(f"freeze {list(self.freeze_parts)}: {error}; parts: {parts}") from error

    def _part(self, name: str) -> nn.Module | nn.Parameter:
        parameters = dict(self.tokenizer.named_parameters())
        return parameters[name] if name in parameters else self.tokenizer.get_submodule(name)
