"""Vector quantization with a codebook of moving averages (van den Oord et al. 2017, appendix A.1)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..kernels.statistics import code_statistics
from .codebook_care import KMeansStart, Moves, Revival
from .codebook_quantizer import CodebookQuantizer, mean_square
from .collective import sum_over_ranks

Smoothing = Literal["laplace", "floor"]


class EMAVectorQuantizer(CodebookQuantizer):
    """One id per latent: the nearest of `num_codes` vectors, each the running mean of its latents.

    decay              of the running counts and sums, a training step
    epsilon, smoothing what keeps an unused code from a division by zero, see `centroids`

    The other options are those of `CodebookQuantizer`. A training forward searches and returns the codes as
    they were before it, then moves them by the statistics of all ranks together.

    Buffers, and what EnCodec, SpeechTokenizer and WavTokenizer call them: `codebook` (K, D) embed, `sums`
    (K, D) embed_avg, `counts` (K,) cluster_size, `started` (1,) inited. Mimi has embedding_sum, cluster_usage
    and _initialized; its codebook is `centroids(counts, sums, smoothing="floor")`.
    """

    sums: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        smoothing: Smoothing = "laplace",
        l2: bool = False,
        normalise_lookup: bool = False,
        commitment_weight: float = 1.0,
        rotation: bool = False,
        start: KMeansStart | None = None,
        revival: Revival | None = None,
    ) -> None:
        super().__init__(
            num_codes,
            dim,
            l2=l2,
            normalise_lookup=normalise_lookup,
            commitment_weight=commitment_weight,
            rotation=rotation,
            start=start,
            revival=revival,
        )
        if not 0 < decay < 1 or not epsilon > 0:
            raise ValueError(f"decay={decay}, epsilon={epsilon}: expected 0 < decay < 1 and 0 < epsilon")
        if smoothing not in get_args(Smoothing):
            raise ValueError(
                f"smoothing {smoothing!r}; expected {' or '.join(map(repr, get_args(Smoothing)))}"
            )
        self.decay = decay
        self.epsilon = epsilon
        self.smoothing: Smoothing = smoothing
        codebook = nn.init.kaiming_uniform_(torch.empty(num_codes, dim))
        self.register_buffer("codebook", codebook)
        # As if every code had been used once: counts of zero would send unused codes far away.
        self.register_buffer("sums", codebook.clone())
        self.register_buffer("counts", torch.ones(num_codes))
        self.register_buffer("started", torch.tensor([0.0 if start else 1.0]))

    def _loss(self, latents: Tensor, codes: Tensor, valid: Tensor | None) -> Tensor:
        """commitment_weight * |z - q|^2, mean over all elements that are valid."""
        return self.commitment_weight * mean_square(latents - codes, valid)

    @torch.no_grad()
    def _learn(self, latents: Tensor, ids: Tensor, usage: Tensor) -> None:
        if self.sums.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"running statistics in {self.sums.dtype} stand still, for the steps round to nothing: keep "
                "the quantizer in float32 while it trains, by quantizer.float()"
            )
        # Scaled training in float16 skips a step that overflows; averages would keep its NaN forever.
        ids = torch.where(latents.isfinite().all(dim=-1), ids, -1)
        batch = code_statistics(latents, ids, self.codebook_sizes[0])
        counts, sums = sum_over_ranks(batch.counts, batch.sums)
        # A step without latents on any rank moves nothing.
        weight = (1 - self.decay) * (counts.sum() > 0).to(self.counts.dtype)
        self.counts.lerp_(counts.to(self.counts.dtype), weight)
        self.sums.lerp_(sums.to(self.sums.dtype), weight)
        self.codebook.copy_(centroids(self.counts, self.sums, epsilon=self.epsilon, smoothing=self.smoothing))

    def _move(self, moves: Moves) -> None:
        moved, mean = moves.marked[:, None], self.counts.mean()
        self.codebook.copy_(torch.where(moved, moves.codes, self.codebook))
        # The sums move too: the next step would put the code back where it was.
        self.sums.copy_(torch.where(moved, moves.codes * mean, self.sums))
        self.counts.copy_(torch.where(moves.marked, mean, self.counts))


def centroids(
    counts: Tensor, sums: Tensor, *, epsilon: float = 1e-5, smoothing: Smoothing = "laplace"
) -> Tensor:
    """The codebook (K, D) of running counts (K,) and sums (K, D).

    smoothing  "laplace": sums / ((n + epsilon) / (total + K epsilon) * total), as EnCodec has it;
               "floor": sums / max(n, epsilon), as Mimi has it
    """
    if smoothing == "floor":
        return sums / counts.clamp(min=epsilon)[:, None]
    total = counts.sum()
    smoothed = (counts + epsilon) / (total + len(counts) * epsilon) * total
    return sums / smoothed[:, None]
