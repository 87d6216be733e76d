"""Nearest code at the speed of bfloat16, proved to be what float32 finds."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# Half the distance of neighbours, relative to a number: the most that rounding changes it.
_BFLOAT16_ROUNDING, _FLOAT32_ROUNDING = 2.0**-8, 2.0**-24
# Codes that are ruled out, or scored again, together.
GROUP_CODES = 64
# With more candidates than this per row, scoring them again would cost what was won.
_MOST_CANDIDATES = 6
# Numbers (row features and candidate scores) that are held at a time: 4 MiB, and as much for each candidate.
_HELD_ELEMENTS = 1 << 20
# A certificate costs some passes over rows and codes; with less work the plain search is as fast.
_LEAST_ROWS, _LEAST_CODES = 512, 4096


def pays(latents: Tensor, codebook: Tensor) -> bool:
    """Whether the certified search is the faster one for these shapes on this machine."""
    return (
        latents.device.type == "cpu"
        and latents.dtype == torch.float32
        and latents.shape[0] >= _LEAST_ROWS
        and codebook.shape[0] >= _LEAST_CODES
        and _multiplies_bfloat16()
    )


@cache
def _multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class CertifiedSearch:
    """Finds the code of the largest z.e + bias; ties go to the lowest index.

    codebook  (K, D) float32, K a multiple of GROUP_CODES
    bias      (K,) float32: -|e|^2 / 2 for the nearest code, 0 for the largest product, -inf where a code may
              not win
    tile      rows and columns (a multiple of GROUP_CODES) of the scores in flight at a time

    One product in bfloat16 gives every distance t = |z|^2 / 2 - z.e - bias, or t = |z| max|e| - z.e for plain
    products, and the least t of each group of codes. With z' and e' the rounded vectors, t is off by at most
    |z.e - z'.e'| <= |z - z'| |e| + |z'| |e - e'| (Cauchy-Schwarz), both of which are known, by what the sums
    in float32 lose, and by the rounding of t itself. A group whose least t lies further above the least of
    all than two such errors cannot hold the best code. The others, about 1.5 a row, are scored again in
    float32: what is found is what a search in float32 finds.
    """

    def __init__(self, codebook: Tensor, bias: Tensor, tile: tuple[int, int]) -> None:
        self.codebook, self.bias, self.tile = codebook, bias, tile
        self._is_distance = bool(bias[bias.isfinite()].any())
        self._lengths, self._rounding = _lengths_and_rounding(codebook)
        self._bias_size = bias.abs().nan_to_num(posinf=0.0).max()
        ones = torch.ones(len(codebook), 3, dtype=torch.bfloat16, device=codebook.device)
        self._columns = torch.cat([codebook.bfloat16(), _three_parts(-bias), ones], dim=1)
        self._order = _grouped(torch.arange(len(codebook), device=codebook.device), tile[1])
        self._biases = _grouped(bias, tile[1])

    def __call__(self, latents: Tensor) -> Tensor | None:
        """(N, D) float32 -> (N,) int64; None when no certificate is to be had: the data is too crowded, or
        not finite."""
        rows = max(1, _HELD_ELEMENTS // (latents.shape[1] + GROUP_CODES + len(self._biases)))
        found: list[Tensor] = []
        for part in latents.split(rows):
            ids = self._search(part)
            if ids is None:
                return None
            found.append(ids)
        return torch.cat(found)

    def _search(self, latents: Tensor) -> Tensor | None:
        rounded = latents.bfloat16()
        lengths = latents.norm(dim=1)
        ceiling = lengths.square() / 2 if self._is_distance else lengths * self._lengths
        least = self._least_of_groups(rounded, ceiling)
        error = self._error((latents - rounded).norm(dim=1), lengths, ceiling)
        best = least.amin(dim=1).float().clamp(min=0)
        threshold = best * (1 + 2.05 * _BFLOAT16_ROUNDING) + 2.05 * error
        if not bool(threshold.isfinite().all()):
            return None
        groups, rows = (threshold >= least.T).nonzero(as_tuple=True)
        if len(rows) > _MOST_CANDIDATES * len(latents):
            return None
        # How far two equal scores in float32 may come out apart.
        noise = 4 * latents.shape[1] * _FLOAT32_ROUNDING * (lengths * self._lengths + self._bias_size)
        return self._best_candidate(latents, groups, rows, noise)

    def _least_of_groups(self, rounded: Tensor, ceiling: Tensor) -> Tensor:
        """Least t of each group, (N, D) bfloat16 and (N,) -> (N, K / GROUP_CODES) bfloat16.

        The bits of floats that are not negative are ordered as integers are, and a minimum of integers is
        several times faster than one of bfloat16. A t below zero is all error; its bits come first of all,
        which is what a candidate needs.
        """
        ones = rounded.new_ones(len(rounded), 3)
        rounded = torch.cat([-rounded, ones, _three_parts(ceiling)], dim=1)
        rows, columns = self.tile
        room = rounded.new_empty(min(rows, len(rounded)) * min(columns, len(self._columns)))
        least = torch.empty(len(rounded), len(self._biases), dtype=torch.int16, device=rounded.device)
        for tile, row in zip(rounded.split(rows), least.split(rows), strict=True):
            parts = zip(self._columns.split(columns), row.split(columns // GROUP_CODES, dim=1), strict=True)
            for codes, groups in parts:
                distances = room[: len(tile) * len(codes)].view(len(tile), len(codes))
                torch.mm(tile, codes.T, out=distances)
                bits = distances.view(torch.int16).unflatten(1, (GROUP_CODES, -1))
                groups.copy_(bits.amin(dim=1))
        return least.view(torch.bfloat16)

    def _error(self, lost: Tensor, lengths: Tensor, ceiling: Tensor) -> Tensor:
        """(N,) what a t may be off before it is rounded; from lengths of latents, and of what they lost."""
        terms = self._columns.shape[1]
        product = lost * self._lengths + (lengths + lost) * self._rounding
        sums = 2 * terms * _FLOAT32_ROUNDING * (lengths * self._lengths + self._bias_size + ceiling)
        # Products in bfloat16 take numbers below the normal ones for zero.
        underflow = terms * torch.finfo(torch.float32).tiny * (1 + lengths + self._lengths)
        return product + sums + underflow

    def _best_candidate(self, latents: Tensor, groups: Tensor, rows: Tensor, noise: Tensor) -> Tensor:
        """(N,) the first best code among candidate groups (P,) of rows (P,); groups come in order."""
        candidates = latents[rows]
        scores = candidates.new_empty(len(rows), GROUP_CODES)
        counts = torch.bincount(groups, minlength=len(self._biases)).tolist()
        parts = zip(candidates.split(counts), scores.split(counts), self._biases, strict=True)
        for group, (mine, out, bias) in enumerate(parts):
            if len(mine):
                torch.addmm(bias, mine, self._codes_of(group).T, out=out)
        value, index = scores.max(dim=1)
        ids = self._order[groups, index]
        best = value.new_full((len(latents),), -torch.inf).scatter_reduce_(0, rows, value, "amax")
        wins = value >= (best - noise)[rows]
        return self._first_best(latents, rows[wins], ids[wins])

    def _codes_of(self, group: int) -> Tensor:
        """(GROUP_CODES, D), a view: see `_grouped`."""
        columns = self.tile[1]
        first, inside = divmod(group, columns // GROUP_CODES)
        return self.codebook[first * columns :][:columns].unflatten(0, (GROUP_CODES, -1))[:, inside]

    def _first_best(self, latents: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        """The best of the ids (P,) of each row (P,); float64 decides where it is close.

        Products of other shapes round in other ways, so copies of a code may differ from group to group.
        """
        close = torch.bincount(rows, minlength=len(latents))[rows] > 1
        found = ids.new_zeros(len(latents)).scatter_(0, rows, ids)
        rows, ids = rows[close], ids[close]
        exact = (latents[rows].double() * self.codebook[ids].double()).sum(dim=1) + self.bias[ids].double()
        best = exact.new_full((len(latents),), -torch.inf).scatter_reduce_(0, rows, exact, "amax")
        wins = exact == best[rows]
        return found.scatter_reduce_(0, rows[wins], ids[wins], "amin", include_self=False)


def _grouped(table: Tensor, columns: int) -> Tensor:
    """Rows (K, ...) as groups (K / GROUP_CODES, GROUP_CODES, ...). A group takes every n-th row of a tile, in
    order: a minimum over an axis that is not the last is the faster one."""
    tiles = table.split(columns)
    return torch.cat([tile.unflatten(0, (GROUP_CODES, -1)).transpose(0, 1) for tile in tiles])


def _lengths_and_rounding(codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The longest code, and the longest that rounding takes from one; some codes at a time."""
    parts = codebook.split(max(1, _HELD_ELEMENTS // codebook.shape[1]))
    longest = torch.stack([part.norm(dim=1).max() for part in parts]).max()
    lost = torch.stack([(part - part.bfloat16()).norm(dim=1).max() for part in parts]).max()
    return longest, lost


def _three_parts(numbers: Tensor) -> Tensor:
    """(K,) float32 as the sum of three bfloat16 columns (K, 3), exact to a float32 rounding."""
    parts: list[Tensor] = []
    for _ in range(3):
        parts.append(numbers.bfloat16())
        numbers = (numbers - parts[-1].float()).nan_to_num()  # infinity leaves no remainder
    return torch.stack(parts, dim=1)
