"""KARL (Duggal et al. 2025, arXiv 2507.07995): the tokens that an image needs for a given error, in one pass.

The encoder is told what error is allowed and tries with a budget of latents; each latent then votes on
whether it is needed. Those that halt are left out, so the tokens that stay are scattered over the slots:
`positions` say where they stand, and the decoder needs to know.

Source: ShivamDuggal4/karl, kolmogorov_tokenizers. The official code gives no tokens and mixes up the masks of
a batch; its batches of one are what this module reproduces, for every size of batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..zoo.chance import Chance, draw_noise
from ..zoo.collective import broadcast_from_first
from ..zoo.config import check_range
from ..zoo.facts import Facts
from ..zoo.neural import Reconstruction
from ..zoo.tokens import Tokens
from .distilled import DistilledConfig, DistilledTokenizer, posterior_noise
from .karl_parts import KarlDecoder, KarlEncoder, error_index

# A latent whose vote is above this halts; hard-coded in the official code.
HALTING_THRESHOLD = 0.75
# What the authors recommend.
MAX_ERROR = 0.05
# Training first asks for one of so many errors, the smallest: 0.005 ... 0.04.
FIRST_ERRORS = 5


@dataclass(frozen=True, kw_only=True)
class KarlConfig(DistilledConfig):
    """One KARL; see `DistilledConfig` for the other fields.

    max_tokens   slots that latents can stand in
    budget       how many of them are tried unless `encode` is told otherwise
    budget_step  budgets are multiples of this
    table_side   side of the tables that positions of patches are resampled from
    """

    tokenizer_type: ClassVar[str] = "karl"

    max_tokens: int = 512
    budget: int = 256
    budget_step: int = 16
    table_side: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("max_tokens", self.max_tokens, 1, 16384)
        check_range("budget", self.budget, 1, self.max_tokens)
        check_range("budget_step", self.budget_step, 1, self.max_tokens)
        check_range("table_side", self.table_side, 1, 1024)

    def facts(self) -> Facts:
        """All but identity."""
        return Facts(
            name="karl",
            modality="image",
            channels=3,
            max_tokens=self.max_tokens,
            codebook_sizes=() if self.num_codes is None else (self.num_codes,),
            latent_dim=self.latent_dim,
            keeps=tuple(range(self.budget_step, self.max_tokens + 1, self.budget_step)),
            is_adaptive=True,
            draws_noise=self.vae is not None,
        )


class Karl(DistilledTokenizer):
    """Images of one size as a set of tokens in slots; how many depends on the image and on the allowed error.

    With a VAE below, the encoder reads the mean of its posterior, or with a generator a sample, as the
    official code always does.
    """

    config_type = KarlConfig
    config: KarlConfig
    untaught = ("encoder.norm_halt", "encoder.halting")

    def __init__(self, config: KarlConfig) -> None:
        super().__init__(config)
        self.encoder = KarlEncoder(config)
        self.quantizer = config.build_quantizer()
        self.decoder = KarlDecoder(config)

    @property
    def term_defaults(self) -> tuple[str, ...]:
        return ("halting",)

    @torch.no_grad()
    def encode(
        self,
        signal: Tensor | Sequence[Any],
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        generator: Chance = None,
        max_error: float = MAX_ERROR,
    ) -> Tokens:
        """See `Tokenizer.encode`.

        keep       latents to try with, by default the configuration's budget: no image gets more tokens. The
                   authors trained 16 ... 368 and advise 256
        max_error  mean absolute error of the image to aim at, 0 or more; rounded up to one of the 19 that the
                   model knows, 0.005 ... 0.38. What comes out is not checked
        """
        budget = self._budget(keep)

        def latents_of(images: Tensor, chance: Chance) -> Tokens:
            noise = posterior_noise(self.config, len(images), chance)
            return self.encode_latents(images, keep=budget, max_error=max_error, noise=noise)

        return self._encode_with(signal, extents, None, generator, latents_of)

    def encode_latents(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        keep: int | None = None,
        max_error: float = MAX_ERROR,
        noise: Tensor | None = None,
    ) -> Tokens:
        """See `NeuralTokenizer`; values (B, N, D) of the latents that did not halt, with their positions.

        noise  (B, C, h, w) standard normal: with a VAE below, its posterior is sampled with it
        The other keywords are those of `encode`.
        """
        latents, kept = self._vote(signal, keep, max_error, noise)
        lengths = kept.sum(dim=1)
        width = int(lengths.max()) if len(lengths) else 0
        # A stable sort brings those that stay to the front, in the order of their slots.
        positions = (~kept).long().argsort(dim=1, stable=True)[:, :width]
        there = kept.gather(1, positions)
        values = latents.gather(1, positions[..., None].expand(-1, -1, latents.shape[2]))
        return Tokens(
            torch.where(there[..., None], values, 0),
            lengths,
            self.default_extents(lengths) if extents is None else extents,
            self.facts,
            positions=torch.where(there, positions, 0),
        )

    def decode_latents(self, tokens: Tokens) -> Tensor:
        """See `NeuralTokenizer`; (B, 3, H, W). Tokens without positions stand in the first slots in order."""
        width = int(tokens.lengths.max()) if len(tokens) else 0
        mask, positions = tokens.mask[:, :width], tokens.positions
        if positions is not None:
            positions = torch.where(mask, positions[:, :width], 0)
            self._check_positions(positions, mask)
        return self.decoder(tokens.values[:, :width], positions, mask)

    def forward(
        self,
        signal: Tensor,
        *,
        extents: Tensor | None = None,
        lengths: Tensor | None = None,
        captions: Sequence[str] | None = None,
        generator: Chance = None,
    ) -> Reconstruction:
        """See `NeuralTokenizer`. All latents of the budget are quantized and count in the loss.

        In eval mode those that halt are then left out, as `encode` does. In train mode none is, and given a
        generator, budget and error are drawn: the first of the two passes of the official training. The
        votes get no gradient here; `Halting` of image/halting.py is the second pass.
        """
        self._refuse(lengths, captions)
        noise = posterior_noise(self.config, len(signal), generator)
        if not self.training or generator is None:
            latents, kept = self._vote(signal, None, MAX_ERROR, noise)
        else:
            budget, errors = self._first_trial(signal, generator)
            latents, kept = self.encoder(signal, errors, budget, noise)[0], None
        quantized = self.quantizer(latents, generator=generator)
        return Reconstruction(
            self.decoder(quantized.latents, keep=None if self.training else kept), quantized
        )

    def _first_trial(self, signal: Tensor, generator: Chance) -> tuple[int, Tensor]:
        """A budget for the batch of all ranks, a multiple of the step up to one and a half times the usual
        (16 ... 368 for the authors' 256), and an error for each item (B,), by its place among ERRORS."""
        batch = len(signal)
        uniform = torch.special.ndtr(draw_noise((batch, 2), generator)).clamp(max=1 - 1e-6)
        step, usual = self.config.budget_step, self.config.budget
        most = max(1, min(self.config.max_tokens, 3 * usual // 2 - step) // step)
        budget = step * (1 + int(uniform[0, 0] * most)) if batch else usual
        told = broadcast_from_first(torch.tensor(budget, device=signal.device))
        return int(told), (uniform[:, 1] * FIRST_ERRORS).long().to(signal.device)

    def _vote(
        self, signal: Tensor, keep: int | None, max_error: float, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """All latents of the budget (B, N, D), and which of them stay (B, N) bool."""
        budget = self.config.budget if keep is None else keep
        check_range("keep", budget, 1, self.config.max_tokens)
        check_range("max_error", max_error, 0, float("inf"))
        latents, votes = self.encoder(signal, error_index(max_error), budget, noise)
        return latents, ~halted(votes)

    def _check_positions(self, positions: Tensor, mask: Tensor) -> None:
        """ValueError unless every token has a slot of its own."""
        slots = self.config.max_tokens
        if bool(((positions < 0) | (positions >= slots)).any()):
            raise ValueError(
                f"positions hold {int(positions.max())}: {self.facts.name} has slots 0 ... {slots - 1}"
            )
        # Padding counts from -1 down, so that it differs from slots and from itself.
        padding = -1 - torch.arange(positions.shape[1], device=positions.device)
        ordered = torch.where(mask, positions, padding).sort(dim=1).values
        if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
            raise ValueError(f"positions hold a slot twice: {self.facts.name} has one token a slot")


def halted(votes: Tensor) -> Tensor:
    """Which latents are not needed, by their logits: (B, N) float -> (B, N) bool."""
    return votes.sigmoid() > HALTING_THRESHOLD
