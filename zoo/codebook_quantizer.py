"""What quantizers with a codebook share: search, look-up, gradients, and the care of the codes."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..kernels.precision import without_autocast, working_dtype
from ..kernels.rotation import rotate_to
from ..kernels.statistics import code_counts
from ..kernels.vq import nearest_code
from .chance import Chance, one_generator
from .codebook_care import KMeansStart, Moves, Revival, StartingRows, revive
from .quantizer import Quantized, Quantizer, straight_through


class CodebookQuantizer(Quantizer):
    """One id per latent: the nearest of K vectors. How the vectors are learned is up to the subclass.

    num_codes         K, size of the codebook
    dim               D, width of a code
    l2                compare directions only: the search divides latents and codes by their length
    normalise_lookup  with l2: latents and looked-up codes are divided by their length for good, in the loss
                      and in the result (TiTok, ViT-VQGAN); else both stay as they are (DAC, SNAC)
    commitment_weight weight of the term that pulls latents towards their codes
    rotation          gradients to the latents by the rotation trick, not straight through
    start             k-means on the first training batches
    revival           what happens to codes that are hardly used

    Codes move in a training forward only. The start and the revival draw from the generator of `forward`,
    without one from torch's own, as any dropout does.
    """

    codebook: Tensor
    counts: Tensor  # (K,) float, running hits, for a revival
    started: Tensor  # (1,) float, 1 once the start is over; official codebooks keep it in this form

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
        super().__init__()
        if num_codes < 1 or dim < 1:
            raise ValueError(f"codebook of {num_codes} codes of width {dim}; expected at least 1 of each")
        if normalise_lookup and not l2:
            raise ValueError(
                "normalise_lookup without l2: codes of length 1 are searched by direction; set l2"
            )
        self.codebook_sizes = (num_codes,)
        self.dim_in = self.dim_out = dim
        self.l2 = l2
        self.normalise_lookup = normalise_lookup
        self.commitment_weight = commitment_weight
        self.rotation = rotation
        self.revival = revival
        self.start = start
        self._start_over()
        self.register_load_state_dict_post_hook(CodebookQuantizer._start_over)
        # Training steps since the start; no tensor, so checkpoints of a fit keep it beside the weights.
        self.steps = 0

    def forward(self, latents: Tensor, *, generator: Chance = None, valid: Tensor | None = None) -> Quantized:
        """See `Quantizer`.

        valid  (...) bool; latents that are not (padding, dropped stages) get id -1 and a zero vector, and
               neither loss, usage, statistics nor gradients see them. None: all are.
        """
        self._check_latents(latents)
        if valid is not None and (valid.shape != latents.shape[:-1] or valid.dtype != torch.bool):
            raise ValueError(
                f"valid of shape {tuple(valid.shape)} and dtype {valid.dtype}; "
                f"expected bool of shape {tuple(latents.shape[:-1])}, one for each latent"
            )
        with without_autocast(latents.device):
            if valid is not None:
                latents = torch.where(valid[..., None], latents, 0)
            latents = self._prepare(latents)
            if self.training and (self._starting or self.revival):
                self._tend(latents.detach(), valid, generator)
            codebook = self._codes()
            ids = self._search(latents, codebook)
            ids = ids if valid is None else torch.where(valid, ids, -1)
            codes = self._look_up(ids, codebook)
            usage = code_counts(ids, self.codebook_sizes[0])
            loss = self._loss(latents, codes, valid)
            if self.training:
                self._learn(latents.detach(), ids, usage)
            carry = rotate_to if self.rotation else straight_through
            return Quantized(latents=carry(latents, codes), values=ids, loss=loss, usage=usage)

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        with without_autocast(latents.device):
            return self._search(self._prepare(latents), self._codes())

    def decode(self, values: Tensor) -> Tensor:
        """Codes of the ids: (...) int64 in [0, K), or -1 for a zero vector -> (..., D) float32 or wider."""
        with without_autocast(values.device):
            return self._look_up(values, self._codes())

    def plain_codebook(self) -> Tensor | None:
        """Codes (K, D), if an id is that of the nearest and decodes to it, and nothing else; or else None."""
        return None if self.l2 else self._codes().detach()

    @abstractmethod
    def _learn(self, latents: Tensor, ids: Tensor, usage: Tensor) -> None:
        """What a training step teaches the buffers: prepared latents (..., D), ids (...), their hits (K,)."""

    def _move(self, moves: Moves) -> None:
        """Put codes in new places, with the mean running count; for a start or a revival."""
        raise NotImplementedError

    def _loss(self, latents: Tensor, codes: Tensor, valid: Tensor | None) -> Tensor:
        """commitment_weight * |sg(q) - z|^2 + |q - sg(z)|^2, both means over all elements that are valid."""
        commitment = mean_square(latents - codes.detach(), valid)
        return self.commitment_weight * commitment + mean_square(codes - latents.detach(), valid)

    def _codes(self) -> Tensor:
        """The codebook (K, D), before any normalisation."""
        return self.codebook

    def _prepare(self, latents: Tensor) -> Tensor:
        latents = latents.to(working_dtype(latents))
        return F.normalize(latents, dim=-1) if self.normalise_lookup else latents

    def _search(self, latents: Tensor, codebook: Tensor) -> Tensor:
        latents, codebook = latents.detach(), codebook.detach()
        codebook = codebook.to(working_dtype(codebook))
        if self.l2 and not self.normalise_lookup:
            latents = F.normalize(latents, dim=-1)
        return nearest_code(latents, F.normalize(codebook, dim=-1) if self.l2 else codebook)

    def _look_up(self, ids: Tensor, codebook: Tensor) -> Tensor:
        codes = F.embedding(ids.clamp(min=0), codebook).to(working_dtype(codebook))
        codes = F.normalize(codes, dim=-1) if self.normalise_lookup else codes
        return torch.where(ids[..., None] < 0, 0, codes)

    @torch.no_grad()
    def _tend(self, latents: Tensor, valid: Tensor | None, generator: Chance) -> None:
        """Start or revive codes, before they are searched. All ranks take the same branches."""
        rows = latents.reshape(-1, self.dim_in)
        valid = None if valid is None else valid.reshape(-1)
        draws = one_generator(generator)
        if self._is_starting():
            self._begin(rows if valid is None else rows[valid], draws)
        elif self.revival:
            self.steps += 1
            if self.steps % self.revival.every == 0:
                self._move(revive(self.counts, rows, valid, self.revival.share, generator=draws))

    def _start_over(self, _: object = None) -> None:
        """Also after loading: the rows seen belong to other codes, and `started` is news."""
        self._starting = StartingRows(self.start, self.codebook_sizes[0]) if self.start else None

    def _is_starting(self) -> bool:
        """Reads the buffer, which a checkpoint may have set, once: it would make the host wait every step."""
        if self._starting and not self._starting.batches and bool(self.started):
            self._starting = None
        return self._starting is not None

    def _begin(self, rows: Tensor, generator: Generator) -> None:
        assert self._starting is not None
        codes = self._starting.fit(rows, spherical=self.normalise_lookup, generator=generator)
        if codes is not None:
            self._move(Moves(codes, torch.ones(len(codes), dtype=torch.bool, device=codes.device)))
        if self._starting.is_complete:
            self.started.fill_(1)
            self._starting = None


def mean_square(difference: Tensor, valid: Tensor | None) -> Tensor:
    """Mean square () of (..., D), which is zero where `valid` (...) is not; 0, not NaN, where nothing is."""
    if valid is None:
        return difference.square().sum() / max(difference.numel(), 1)
    return difference.square().sum() / (valid.sum() * difference.shape[-1]).clamp(min=1)
