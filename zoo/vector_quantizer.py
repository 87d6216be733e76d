"""Vector quantization with a learned codebook (van den Oord et al. 2017; l2 form: ViT-VQGAN, 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .codebook_care import KMeansStart, Moves, Revival
from .codebook_quantizer import CodebookQuantizer
from .collective import sum_over_ranks

# Of the running counts that a revival looks at.
COUNT_DECAY = 0.99


class VectorQuantizer(CodebookQuantizer):
    """One id per latent: the nearest of `num_codes` vectors, which the optimizer learns.

    The options are those of `CodebookQuantizer`. TiTok and ViT-VQGAN: l2 and normalise_lookup; DAC and
    SNAC: l2 alone, inside a `ProjectedQuantizer`. The codebook gets gradients through the loss alone, so
    DistributedDataParallel averages them like any others. A code that is revived had none for a while: its
    momentum in Adam has faded, and the second moment makes its first steps smaller at most.

    Source: bytedance/1d-tokenizer, modeling/quantizer/quantizer.py; descript-audio-codec, dac/nn/quantize.py.
    """

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        l2: bool = False,
        normalise_lookup: bool = False,
        commitment_weight: float = 0.25,
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
        self.codebook = nn.Parameter(torch.empty(num_codes, dim).uniform_(-1 / num_codes, 1 / num_codes))
        if start:
            self.register_buffer("started", torch.zeros(1))
        if revival:
            self.register_buffer("counts", torch.ones(num_codes))

    @torch.no_grad()
    def _learn(self, latents: Tensor, ids: Tensor, usage: Tensor) -> None:
        if self.revival:
            (counts,) = sum_over_ranks(usage)
            self.counts.lerp_(counts.to(self.counts.dtype), 1 - COUNT_DECAY)

    def _move(self, moves: Moves) -> None:
        self.codebook.copy_(torch.where(moves.marked[:, None], moves.codes, self.codebook))
        if self.revival:
            self.counts.copy_(torch.where(moves.marked, self.counts.mean(), self.counts))
