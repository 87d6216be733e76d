"""Nearest code at the speed of bfloat16, proved to be what float32 finds."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# A certificate costs some passes over the rows; below this work the plain search is as fast.
_LEAST_DIM, _LEAST_ROWS, _LEAST_CODES = 96, 512, 2048
# Half the distance of neighbours: the largest relative error of rounding to bfloat16, and to float32.
_BFLOAT16_ROUNDING, _FLOAT32_ROUNDING = 2.0**-8, 2.0**-24
# With more candidates than this per row, scoring them again would cost what was won.
_MOST_CANDIDATES = 4
# Numbers (row features and candidate scores) that are held at a time: 4 MiB, and as much for each candidate.
_HELD_ELEMENTS = 1 << 20


def pays(latents: Tensor, codebook: Tensor) -> bool:
    """Whether the certified search is the faster one for these shapes on this machine."""
    return (
        latents.device.type == "cpu"
        and latents.dtype == torch.float32
        and latents.shape[1] >= _LEAST_DIM
        and latents.shape[0] >= _LEAST_ROWS
        and codebook.shape[0] >= _LEAST_CODES
        and _multiplies_bfloat16()
    )


@cache
def _multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class CertifiedSearch:
    """Finds the best of K codes by z.e + bias; ties go to the lowest index.

    codebook  (K, D) float32, K a multiple of `block`
    bias      (K,) float32, or -inf where a code may not win
    block     codes that are ruled out, or scored again, together
    tile      rows and columns (a multiple of `block`) of the scores in flight at a time

    One product in bfloat16 gives the maximum of each block. With z' and e' the rounded vectors,
    |z.e - z'.e'| <= |z - z'| |e| + |z'| |e - e'| (Cauchy-Schwarz), both of which are known, plus what float32
    sums and the rounding of the score itself may add. A block whose maximum lies further below the best one
    than twice that error cannot hold the nearest code; the others, 1.5 of K / block in a typical row, are
    scored again in float32. What is found is therefore what a search in float32 finds.
    """

    def __init__(self, codebook: Tensor, bias: Tensor, block: int, tile: tuple[int, int]) -> None:
        self.codebook, self.bias, self.block, self.tile = codebook, bias, block, tile
        rounded = codebook.bfloat16()
        self._lengths = codebook.norm(dim=1).max()
        self._rounding = (codebook - rounded).norm(dim=1).max()
        self._bias_size = bias.abs().nan_to_num(posinf=0.0).max()
        self._columns = torch.cat([rounded, _three_parts(bias)], dim=1)

    def __call__(self, latents: Tensor) -> Tensor | None:
        """(N, D) float32 -> (N,) int64; None when no certificate is to be had: the data is too crowded, or
        not finite."""
        rows = max(1, _HELD_ELEMENTS // (latents.shape[1] + self.block + len(self.codebook) // self.block))
        found = [self._search(part) for part in latents.split(rows)]
        certified = [ids for ids in found if ids is not None]
        return torch.cat(certified) if len(certified) == len(found) else None

    def _search(self, latents: Tensor) -> Tensor | None:
        rounded = latents.bfloat16()
        maxima = self._block_maxima(rounded)
        best = maxima.amax(dim=1).float()
        error = self._error(latents, rounded)
        # The scores were rounded too: that of the best, and that of a block which comes as near.
        slack = 2 * error + 2.05 * _BFLOAT16_ROUNDING * (best.abs() + 2 * error)
        threshold = best - slack
        if not bool(threshold.isfinite().all()):
            return None
        blocks, rows = (maxima.T >= threshold).nonzero(as_tuple=True)
        if len(rows) > _MOST_CANDIDATES * len(latents):
            return None
        return self._best_candidate(latents, blocks, rows)

    def _block_maxima(self, rounded: Tensor) -> Tensor:
        """(N, D) bfloat16 -> (N, K / block) bfloat16."""
        rounded = torch.cat([rounded, rounded.new_ones(len(rounded), 3)], dim=1)
        rows, columns = self.tile
        room = rounded.new_empty(min(rows, len(rounded)) * min(columns, len(self.codebook)))
        maxima = rounded.new_empty(len(rounded), len(self.codebook) // self.block)
        for tile, row in zip(rounded.split(rows), maxima.split(rows), strict=True):
            parts = zip(self._columns.split(columns), row.split(columns // self.block, dim=1), strict=True)
            for codes, blocks in parts:
                scores = room[: len(tile) * len(codes)].view(len(tile), len(codes))
                torch.mm(tile, codes.T, out=scores)
                blocks.copy_(scores.unflatten(1, (-1, self.block)).amax(dim=2))
        return maxima

    def _error(self, latents: Tensor, rounded: Tensor) -> Tensor:
        """(N,) what a score may be off before it is rounded."""
        wide = rounded.float()
        lengths = wide.norm(dim=1)
        terms = latents.shape[1] + 3
        product = (latents - wide).norm(dim=1) * self._lengths + lengths * self._rounding
        sums = 2 * terms * _FLOAT32_ROUNDING * (lengths * self._lengths + self._bias_size)
        # Products in bfloat16 take numbers below the normal ones for zero.
        underflow = terms * torch.finfo(torch.float32).tiny * (1 + lengths + self._lengths)
        return product + sums + underflow

    def _best_candidate(self, latents: Tensor, blocks: Tensor, rows: Tensor) -> Tensor:
        """The first best code among candidate blocks (P,) of rows (P,); blocks come in ascending order."""
        candidates = latents[rows]
        scores = candidates.new_empty(len(rows), self.block)
        counts = torch.bincount(blocks, minlength=len(self.codebook) // self.block).tolist()
        parts = zip(
            candidates.split(counts),
            scores.split(counts),
            self.codebook.split(self.block),
            self.bias.split(self.block),
            strict=True,
        )
        for mine, out, codes, bias in parts:
            if len(mine):
                torch.addmm(bias, mine, codes.T, out=out)
        value, index = scores.max(dim=1)
        best = value.new_full((len(latents),), -torch.inf).scatter_reduce_(0, rows, value, "amax")
        wins = value == best[rows]
        ids = torch.full((len(latents),), len(self.codebook), dtype=torch.int64)
        return ids.scatter_reduce_(0, rows[wins], (blocks * self.block + index)[wins], "amin")


def _three_parts(bias: Tensor) -> Tensor:
    """(K,) float32 as the sum of three bfloat16 columns (K, 3), exact to a float32 rounding."""
    parts: list[Tensor] = []
    for _ in range(3):
        parts.append(bias.bfloat16())
        bias = (bias - parts[-1].float()).nan_to_num()  # -inf leaves no remainder
    return torch.stack(parts, dim=1)
