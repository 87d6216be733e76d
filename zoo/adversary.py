"""Adversarial training: discriminators that learn inside the step, with an optimiser of their own."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .collective import num_ranks, sum_over_ranks

GanLoss = Literal["hinge", "least_squares"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one discriminator says of a batch.

    logits    (B, ...) float, high where it takes the signal for real
    features  its inner maps, for feature matching; may be empty
    """

    logits: Tensor
    features: Sequence[Tensor] = ()


class Discriminator(nn.Module, ABC):
    """Judges signals at one scale or several."""

    @abstractmethod
    def forward(self, signal: Tensor) -> list[Judgement]:
        """One judgement a scale of a batch of signals."""


@dataclass(frozen=True)
class AdversarySettings:
    """How discriminators learn, and what they weigh in the tokenizer's loss.

    weight         of the adversarial loss
    features       of feature matching: the distance of a discriminator's inner maps, relative to their size
    loss           "hinge" (Lim & Ye 2017, arXiv 1705.02894) or "least_squares" (Mao et al. 2016, 1611.04076)
    lecam          of the LeCam regularization (Tseng et al. 2021, arXiv 2104.03310), for few data
    start_step     batches before it begins: until then there is neither a discriminator's step nor its loss
    learning_rate  of AdamW, constant after `start_step`
    betas          of AdamW
    clip_norm      largest norm of the discriminators' gradient; None leaves it as it is
    """

    weight: float = 1.0
    features: float = 0.0
    loss: GanLoss = "hinge"
    lecam: float = 0.0
    start_step: int = 0
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.9)
    clip_norm: float | None = 10.0

    def __post_init__(self) -> None:
        if self.loss not in get_args(GanLoss):
            raise ValueError(f"loss {self.loss!r}: expected {' or '.join(get_args(GanLoss))}")
        for name in ("weight", "features", "lecam", "start_step", "learning_rate"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} of the adversary is {getattr(self, name)}: expected at least 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm of the adversary is {self.clip_norm}: expected above 0, or none")


class Adversary(nn.Module):
    """Discriminators, their optimiser, and both sides of the game.

    Lightning's optimiser and DDP never see these parameters: they ask for no gradient but inside `learn`,
    which averages it over the ranks itself. So a batch is one step of the trainer, and its clipping,
    accumulation, schedules and `max_steps` stay those of the tokenizer.

    discriminators  judged one after the other, their losses averaged over all scales
    """

    real_mean: Tensor
    fake_mean: Tensor

    def __init__(self, discriminators: Sequence[Discriminator], settings: AdversarySettings) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        self.settings = settings
        self.optimizer = torch.optim.AdamW(
            self.parameters(), settings.learning_rate, (settings.betas[0], settings.betas[1])
        )
        # Running means of the logits: LeCam holds each side to the other's.
        self.register_buffer("real_mean", torch.zeros(()))
        self.register_buffer("fake_mean", torch.zeros(()))
        self.requires_grad_(False)

    def judge(self, signal: Tensor) -> list[Judgement]:
        """The judgements of all scales of all discriminators."""
        return list(itertools.chain.from_iterable(one(signal) for one in self.discriminators))

    def learn(
        self, real: Tensor, fake: Tensor, *, batches: int = 1, is_last: bool = True
    ) -> dict[str, Tensor]:
        """One batch for the discriminators; their figures, detached.

        real, fake  signals of one shape; no gradient goes back through `fake`
        batches     whose gradients make one step of the optimiser
        is_last     the step is taken after this batch
        """
        self.requires_grad_(True)
        try:
            sides = zip(self.judge(real.detach()), self.judge(fake.detach()), strict=True)
            losses, terms = [], []
            for true, false in sides:
                losses.append(self._discriminator_loss(true.logits.float(), false.logits.float()))
                terms.append((true.logits.detach().float().mean(), false.logits.detach().float().mean()))
            real_mean, fake_mean = (torch.stack(list(side)).mean() for side in zip(*terms, strict=True))
            loss = torch.stack(losses).mean()
            # Outside of autocast, as torch asks for backward passes.
            with torch.autocast(real.device.type, enabled=False):
                (loss / batches).backward()
        finally:
            self.requires_grad_(False)
        self._follow(real_mean, fake_mean)
        if is_last:
            self._step()
        return {"discriminator": loss.detach(), "real": real_mean, "fake": fake_mean}

    def losses(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The tokenizer's side, unweighted: "adversarial", and "features" where they are asked for."""
        judged = self.judge(fake)
        sides = [-each.logits.float() for each in judged]
        if self.settings.loss == "least_squares":
            sides = [(1 - each.logits.float()).square() for each in judged]
        found = {"adversarial": torch.stack([side.mean() for side in sides]).mean()}
        if self.settings.features:
            with torch.no_grad():
                wanted = self.judge(real)
            found["features"] = _feature_distance(judged, wanted)
        return found

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each of `losses`."""
        found = {"adversarial": self.settings.weight}
        return found | {"features": self.settings.features} if self.settings.features else found

    def training_state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights."""
        return self.optimizer.state_dict()

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on from there; call it when the weights are on their device."""
        self.optimizer.load_state_dict(state)

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.settings.loss == "hinge":
            loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        else:
            loss = 0.5 * ((1 - real).square().mean() + fake.square().mean())
        if self.settings.lecam:
            apart = (
                F.relu(real - self.fake_mean).square().mean() + F.relu(self.real_mean - fake).square().mean()
            )
            loss = loss + self.settings.lecam * apart
        return loss

    def _follow(self, real: Tensor, fake: Tensor, decay: float = 0.999) -> None:
        real, fake = (total / num_ranks() for total in sum_over_ranks(real, fake))
        self.real_mean.lerp_(real, 1 - decay)
        self.fake_mean.lerp_(fake, 1 - decay)

    def _step(self) -> None:
        gradients = [each.grad for each in self.parameters() if each.grad is not None]
        if num_ranks() > 1:
            for gradient, total in zip(gradients, sum_over_ranks(*gradients), strict=True):
                gradient.copy_(total / num_ranks())
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _feature_distance(judged: list[Judgement], wanted: list[Judgement]) -> Tensor:
    """() mean over maps of the L1 distance relative to the wanted map's mean size. Source: EnCodec, eq. 2."""
    pairs = [
        (a.float(), b.float())
        for one, other in zip(judged, wanted, strict=True)
        for a, b in zip(one.features, other.features, strict=True)
    ]
    if not pairs:
        raise ValueError("feature matching needs discriminators that give their features")
    return torch.stack([(a - b).abs().mean() / b.abs().mean().clamp(min=1e-8) for a, b in pairs]).mean()
