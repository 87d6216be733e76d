"""Training image tokenizers: a LightningModule that is a Tokenizer too."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import Timer
from torch import Generator, Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..zoo import catalogue
from ..zoo.chance import Chance
from ..zoo.ema import WeightAverage
from ..zoo.facts import Facts
from ..zoo.loading import load, read_yaml
from ..zoo.neural import Reconstruction
from ..zoo.recipe import Identity, LengthSettings, OptimizerSettings, as_settings, nested_length, plain
from ..zoo.tokenizer import Tokenizer
from ..zoo.tokens import Tokens
from ..zoo.usage import UsageCount
from .image_tokenizer import ImageTokenizer
from .losses import LossWeights, PerceptualLoss, reconstruction_loss
from .metrics import psnr
from .preprocess import ImagePreprocess

VALIDATED_LENGTHS = (1, 8, 32, 128)
# One of each, so that the signature shows the defaults; they are frozen.
_IDENTITY, _LOSSES, _LENGTHS, _OPTIMIZER = Identity(), LossWeights(), LengthSettings(), OptimizerSettings()


class ImageTraining(LightningModule, Tokenizer):
    """Trains an image tokenizer to reconstruct, under nested dropout, and averages its weights.

    tokenizer_type     key of `catalogue.FAMILIES`, when a new tokenizer is trained
    config             its configuration: the fields, or a file of configs/, which says the type too
    pretrained         instead of both: the name, Hub id or folder of the tokenizer to start from
    identity           what the result is called, its licence and provenance
    losses             weights of the terms
    lengths            distribution of kept tokens; ignored unless the tokenizer is nested
    optimizer          AdamW, warm-up, cosine, clipping
    ema_decay          share of the old average kept at each step; None trains without an average
    freeze             parts that do not move: "encoder", "quantizer", "decoder", or submodules of them
    initialise_images  how many training images a new tokenizer's `initialise` sees
    seed               of the kept lengths and the quantizer's noise, which depend on it and the step alone

    Batches are (B, 3, H, W), float in [0, 1] or uint8. A new tokenizer with a method `initialise(images)` is
    handed float images (M, 3, H, W) of the training data at `on_train_start`, before the first step; it
    changes its parameters in place. A resumed fit, a reloaded checkpoint and a pretrained tokenizer skip it.

    The hyperparameters kept in checkpoints are plain values and hold the whole configuration, so
    `load_from_checkpoint` needs neither `pretrained` nor the weights of the perceptual loss.
    """

    def __init__(
        self,
        tokenizer_type: str | None = None,
        config: dict[str, Any] | str | None = None,
        pretrained: str | None = None,
        *,
        identity: Identity = _IDENTITY,
        losses: LossWeights = _LOSSES,
        lengths: LengthSettings = _LENGTHS,
        optimizer: OptimizerSettings = _OPTIMIZER,
        ema_decay: float | None = 0.999,
        freeze: tuple[str, ...] = (),
        initialise_images: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer = _build(tokenizer_type, config, pretrained, as_settings(Identity, identity))
        self.loss_weights = as_settings(LossWeights, losses)
        self.optimizer_settings = as_settings(OptimizerSettings, optimizer)
        lengths = as_settings(LengthSettings, lengths)
        self.length_policy = lengths.policy(self.tokenizer.facts)
        self.average = None if ema_decay is None else WeightAverage(ema_decay)
        self.freeze_parts = tuple(freeze)
        self.initialise_images = initialise_images
        self.seed = seed
        self.is_new = pretrained is None
        for part in self._frozen():
            part.requires_grad_(False)
        self._batches_seen = 0
        self._usage = UsageCount()
        # In a tuple it is no submodule: its weights stay out of checkpoints and out of `parameters()`.
        self._perceptual: tuple[PerceptualLoss, ...] = ()
        self.save_hyperparameters(
            {
                "tokenizer_type": self.tokenizer.config_type.tokenizer_type,
                "config": self.tokenizer.config.to_dict(),
                "identity": plain(Identity.of(self.tokenizer)),
                "losses": plain(self.loss_weights),
                "lengths": plain(lengths),
                "optimizer": plain(self.optimizer_settings),
                "ema_decay": ema_decay,
                "freeze": list(freeze),
                "initialise_images": initialise_images,
                "seed": seed,
            }
        )

    @property
    def facts(self) -> Facts:
        return self.tokenizer.facts

    @property
    def preprocess(self) -> ImagePreprocess:
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

    def decode(self, tokens: Tokens, *, generator: Chance = None) -> Tensor:
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
        self, signal: Tensor, *, lengths: Tensor | None = None, generator: Chance = None
    ) -> Reconstruction:
        return self.tokenizer(signal, lengths=lengths, generator=generator)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        images = _as_floats(batch)
        generator = Generator().manual_seed((self.seed << 40) + (self._batches_seen << 12) + self.global_rank)
        self._batches_seen += 1
        lengths = None
        if self.length_policy is not None:
            lengths = self.length_policy.sample(len(images), generator=generator)
        painted = self(images, lengths=lengths, generator=generator)
        terms = reconstruction_loss(painted.signal, images, self.loss_weights, *self._perceptual)
        loss = terms.total + self.loss_weights.quantizer * painted.quantized.loss
        figures = {"loss": loss.detach(), "psnr": -10 * terms.mse.log10()}
        if terms.perceptual is not None:
            figures["perceptual"] = terms.perceptual
        self.log_dict({f"train/{name}": value for name, value in figures.items()}, prog_bar=True)
        self.log("train/quantizer_loss", painted.quantized.loss.detach())
        self.log("train/learning_rate", self.lr_schedulers().get_last_lr()[0])  # pyright: ignore
        if painted.quantized.usage is not None:
            self._usage.add(painted.quantized.usage)
        if self._batches_seen % self.trainer.log_every_n_steps == 0 and (usage := self._usage.take()):  # pyright: ignore
            self.log_dict({"train/usage": usage.share, "train/perplexity": usage.perplexity})
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """PSNR at a few kept lengths through the verbs: what a user gets."""
        images = _as_floats(batch)
        tokens = self.encode(images)
        for count in self._validated_lengths():
            score = psnr(self.decode(tokens.keep(count)), images).mean()
            self.log(f"val/psnr_{count}", score.float(), batch_size=len(images), sync_dist=True)
        score = psnr(self.decode(tokens), images).mean()
        self.log("val/psnr", score.float(), batch_size=len(images), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        settings = self.optimizer_settings
        optimizer = settings.build(self.tokenizer)
        schedule = LambdaLR(optimizer, lambda step: settings.factor(step, self._progress(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """`clip_norm`, unless the trainer says something else."""
        if gradient_clip_val is None:
            gradient_clip_val, gradient_clip_algorithm = self.optimizer_settings.clip_norm, "norm"
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_callbacks(self) -> list[Callback]:
        return [] if self.average is None else [self.average]

    def on_fit_start(self) -> None:
        """The perceptual loss reads its weights only where it is needed."""
        weights = self.loss_weights
        if weights.perceptual:
            loss = PerceptualLoss(weights.perceptual_backbone, weights.perceptual_weights)
            self._perceptual = (loss.to(self.device),)

    def on_train_start(self) -> None:
        for part in self._frozen():
            part.eval()
        initialise = getattr(self.tokenizer, "initialise", None)
        if self.is_new and initialise is not None:
            with torch.no_grad():
                initialise(self._first_images(self.initialise_images).to(self.device))
            if self.trainer.world_size > 1:
                for tensor in self.tokenizer.state_dict().values():
                    torch.distributed.broadcast(tensor, src=0)
        self.is_new = False

    def on_train_end(self) -> None:
        self.train()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["batches_seen"] = self._batches_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._batches_seen = checkpoint["batches_seen"]
        self.is_new = False

    def _progress(self, step: int) -> float:
        """Share of the fit that is done: of `decay_steps`, or of the trainer's steps or time."""
        if self.optimizer_settings.decay_steps:
            return step / self.optimizer_settings.decay_steps
        steps = self.trainer.estimated_stepping_batches
        shares = [] if steps == float("inf") else [step / steps]
        for timer in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None:
                shares.append(timer.time_elapsed() / max(timer.time_elapsed() + left, 1e-9))
        if not shares:
            raise ValueError("the cosine has no end: set decay_steps, or the trainer's max_steps or max_time")
        return max(shares)

    def _first_images(self, count: int) -> Tensor:
        """At most `count` images (M, 3, H, W), from a copy of the loader: its place does not move."""
        found: list[Tensor] = []
        for batch in copy.copy(self.trainer.train_dataloader):  # pyright: ignore[reportOptionalIterable]
            found.append(_as_floats(batch))
            if sum(map(len, found)) >= count:
                break
        return torch.cat(found)[:count]

    def _frozen(self) -> list[torch.nn.Module]:
        try:
            return [self.tokenizer.get_submodule(name) for name in self.freeze_parts]
        except AttributeError as error:
            parts = ", ".join(name for name, _ in self.tokenizer.named_children())
            raise ValueError(f"freeze {list(self.freeze_parts)}: {error}; parts: {parts}") from error

    def _validated_lengths(self) -> list[int]:
        facts = self.facts
        longest = nested_length(facts) or 0
        return [n for n in VALIDATED_LENGTHS if n < longest and (not facts.keeps or n in facts.keeps)]


def _build(
    tokenizer_type: str | None,
    config: Mapping[str, Any] | str | None,
    pretrained: str | None,
    identity: Identity,
) -> ImageTokenizer:
    """The tokenizer to train, float32 on the CPU, without a fingerprint."""
    if (pretrained is None) == (config is None):
        raise ValueError("give either `config` (with `tokenizer_type`), for a new tokenizer, or `pretrained`")
    if pretrained is not None:
        tokenizer = load(pretrained)
    else:
        if isinstance(config, str):
            tokenizer_type, config = read_yaml(config)
        if tokenizer_type is None:
            raise ValueError(f"tokenizer_type is missing; known: {', '.join(catalogue.FAMILIES)}")
        family: Any = catalogue.family(tokenizer_type)
        tokenizer = family(family.config_type.from_dict(config))
    if not isinstance(tokenizer, ImageTokenizer):
        raise TypeError(
            f"{tokenizer.facts.name} is a {type(tokenizer).__name__}: expected an image tokenizer"
        )
    tokenizer.identify(
        name=identity.name or tokenizer.facts.name,
        revision=None,
        fingerprint=None,
        licence=identity.licence or tokenizer.facts.licence,
    )
    if identity.provenance or pretrained:
        tokenizer.provenance = identity.provenance or f"fine-tuned from {pretrained}"
    return tokenizer.train()


def _as_floats(batch: Any) -> Tensor:
    """Bytes become floats in the step, so that a quarter of the memory travels to the device."""
    if not isinstance(batch, Tensor):
        raise TypeError(f"a batch is a {type(batch).__name__}: expected one tensor of images (B, 3, H, W)")
    return batch.float().div_(255) if batch.dtype == torch.uint8 else batch
