"""The quantizer of the pyramid: a latent map as residuals on finer and finer grids, a code pair a cell.

Coarse to fine as in VAR (Tian et al. 2024, arXiv 2404.02905), several residual steps on one grid as in
SoundStream (arXiv 2107.03312); the finest grid may use a tree-structured codebook (Buzo et al. 1980).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..kernels.precision import without_autocast, working_dtype
from ..kernels.statistics import code_counts
from ..zoo.chance import Chance
from ..zoo.config import check_range
from ..zoo.fitting import kmeans, principal_axes
from ..zoo.quantizer import Quantized, Quantizer

# First codes that a search tries; more find a closer pair, at a price.
BEAM = 6
# Rows of one block of a search: bounds its memory.
_FLAT_ROWS, _TREE_ROWS = 1 << 11, 1 << 16


@dataclass(frozen=True)
class PyramidStage:
    """`steps` tokens for each cell of a `grid` x `grid` division of the latent map.

    channels  latent channels it describes, the first ones
    dim       principal components of a cell that are quantized
    tree      the second code has a table for each first code; else one table serves all
    """

    grid: int
    steps: int
    channels: int
    dim: int
    tree: bool = False

    def __post_init__(self) -> None:
        check_range("grid", self.grid, 1, 256)
        check_range("steps", self.steps, 1, 64)
        check_range("channels", self.channels, 1, 4096)
        check_range("dim", self.dim, 1, 4096)
        if self.grid & (self.grid - 1):
            raise ValueError(f"grid={self.grid}: expected a power of two")

    @property
    def tokens(self) -> int:
        return self.steps * self.grid**2


class StageQuantizer(nn.Module):
    """One stage: cells (B, G*G, c*c*channels) are projected on `dim` axes and quantized `steps` times.

    An id is `first * codes + second`; its vector is the sum of the two codes.
    """

    def __init__(self, stage: PyramidStage, side: int, codes: int) -> None:
        super().__init__()
        self.stage, self.side, self.codes = stage, side, codes
        self.cell = side // stage.grid
        tables = codes if stage.tree else 1
        self.axes = nn.Parameter(torch.zeros(stage.channels * self.cell**2, stage.dim))
        self.first = nn.Parameter(torch.zeros(stage.steps, codes, stage.dim))
        self.second = nn.Parameter(torch.zeros(stage.steps, tables, codes, stage.dim))

    def cells(self, latents: Tensor) -> Tensor:
        """(B, S*S, C) -> (B, G*G, channels*c*c), in the order of the tokens."""
        rows = rearrange(
            latents[..., : self.stage.channels],
            "b (gy y gx x) c -> b (gy gx) (c y x)",
            gy=self.stage.grid, gx=self.stage.grid, y=self.cell, x=self.cell,
        )  # fmt: skip
        return rows[:, list(spread_order(self.stage.grid))]

    def uncells(self, rows: Tensor) -> Tensor:
        """The inverse of `cells`: -> (B, S*S, channels)."""
        return rearrange(
            rows[:, list(_inverse(spread_order(self.stage.grid)))],
            "b (gy gx) (c y x) -> b (gy y gx x) c",
            gy=self.stage.grid, gx=self.stage.grid, y=self.cell, x=self.cell,
        )  # fmt: skip

    def initialise(self, latents: Tensor, generator: torch.Generator) -> None:
        """Axes and codebooks from latents (M, S*S, C) by principal axes and k-means."""
        rows = self.cells(latents).flatten(0, 1)
        self.axes.copy_(principal_axes(rows, self.stage.dim))
        rest = rows @ self.axes
        for step in range(self.stage.steps):
            first = kmeans(rest, self.codes, generator=generator)
            self.first[step] = first
            index = (rest @ first.T - first.square().sum(1) / 2).argmax(1)
            inner = rest - first[index]
            for parent in range(self.second.shape[1]):
                mine = inner[index == parent] if self.stage.tree else inner
                if len(mine):
                    self.second[step, parent] = kmeans(mine, self.codes, generator=generator)
            rest = rest - self.vectors(step, self.search(step, rest))

    def vectors(self, step: int, ids: Tensor) -> Tensor:
        """ids (...) -> (..., dim)"""
        first, second = ids // self.codes, ids % self.codes
        row = first * self.codes + second if self.stage.tree else second
        vectors = F.embedding(first, self.first[step]), F.embedding(row, self.second[step].flatten(0, 1))
        return _wide(vectors[0]) + _wide(vectors[1])

    def search(self, step: int, rows: Tensor) -> Tensor:
        """The best pair of each row (M, dim) among the BEAM closest first codes; (M,) int64."""
        find = self._search_tree if self.stage.tree else self._search_flat
        blocks = rows.split(_TREE_ROWS if self.stage.tree else _FLAT_ROWS)
        return torch.cat([find(step, block) for block in blocks])

    def _beam(self, step: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and indices (M, BEAM) of the closest first codes; score = x.a - |a|^2 / 2."""
        first = _wide(self.first[step])
        scores = rows @ first.T - first.square().sum(1) / 2
        best = scores.topk(min(BEAM, self.codes), dim=1)
        return best.values, best.indices

    def _search_flat(self, step: int, rows: Tensor) -> Tensor:
        """|x - a - b|^2 from the products x.a, x.b and a.b: no vector of a pair is ever made."""
        first, second = _wide(self.first[step]), _wide(self.second[step, 0])
        scores, tops = self._beam(step, rows)
        cross = first @ second.T + second.square().sum(1) / 2
        pair_scores, index = (scores[..., None] + (rows @ second.T)[:, None] - cross[tops]).max(2)
        best = pair_scores.argmax(1, keepdim=True)
        return (tops * self.codes + index).gather(1, best).squeeze(1)

    def _search_tree(self, step: int, rows: Tensor) -> Tensor:
        """Candidates are gathered by first code, so each table is one matrix product."""
        first, second = _wide(self.first[step]), _wide(self.second[step])
        _, tops = self._beam(step, rows)
        row = torch.arange(len(rows), device=rows.device).repeat_interleave(tops.shape[1])
        parents = tops.flatten()
        by_parent = parents.argsort(stable=True)
        row, counts = row[by_parent], torch.bincount(parents, minlength=self.codes).tolist()
        least = rows.new_full((len(rows),), torch.inf)
        ids = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for parent, mine in enumerate(row.split(counts)):
            if not len(mine):
                continue
            inner, leaves = rows[mine] - first[parent], second[parent]
            score, index = (inner @ leaves.T - leaves.square().sum(1) / 2).max(1)
            error = inner.square().sum(1) - 2 * score
            closer = error < least[mine]
            least[mine[closer]], ids[mine[closer]] = error[closer], parent * self.codes + index[closer]
        return ids

    def encode(self, latents: Tensor) -> Tensor:
        """Residual latents (B, S*S, C) -> ids (B, steps*G*G)."""
        rows = self.cells(latents)
        rest = (rows @ _wide(self.axes)).flatten(0, 1)
        ids: list[Tensor] = []
        for step in range(self.stage.steps):
            ids.append(self.search(step, rest))
            rest = rest - self.vectors(step, ids[-1])
        return torch.cat([part.view(rows.shape[:2]) for part in ids], dim=1)

    def decode(self, ids: Tensor, kept: Tensor) -> Tensor:
        """ids and kept (B, steps*G*G) -> (B, S*S, channels); tokens that are not kept add nothing."""
        parts = zip(ids.chunk(self.stage.steps, 1), kept.chunk(self.stage.steps, 1), strict=True)
        vectors = [self.vectors(step, part) * keep[..., None] for step, (part, keep) in enumerate(parts)]
        return self.uncells(torch.stack(vectors).sum(0) @ _wide(self.axes).T)

    def coverage(self, kept: Tensor) -> Tensor:
        """kept (B, steps*G*G) -> (B, S*S, 1): the share of this stage's tokens that each place has."""
        share = kept.unflatten(1, (self.stage.steps, -1)).mean(1)[..., None]
        return self.uncells(share.expand(-1, -1, self.cell**2))


class PyramidQuantizer(Quantizer):
    """Latent maps as one row of tokens, coarse to fine; any prefix decodes.

    latents  (B, S*S, C + stages) float: C channels, then how much of each stage describes the place, from
             0 to 1. `encode` reads the channels alone; `decode` fills in both.
    values   (B, N) int64 in [0, codes**2)
    """

    def __init__(self, stages: tuple[PyramidStage, ...], side: int, channels: int, codes: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(StageQuantizer(stage, side, codes) for stage in stages)
        self.sizes = [stage.tokens for stage in stages]
        self.channels = channels
        self.codebook_sizes = (codes**2,)
        self.dim_in = self.dim_out = channels + len(stages)

    def forward(
        self, latents: Tensor, *, generator: Chance = None, lengths: Tensor | None = None
    ) -> Quantized:
        """The first `lengths` (B,) tokens, default all; the values are always all of them.

        The gradient of the result goes to the codebooks and straight through to the latents. The loss draws
        the codes of all tokens to the latents.
        """
        self._check_latents(latents)
        with without_autocast(latents.device):
            latents = latents.to(self._working_dtype())
            ids = self.encode(latents)
            decoded = self.decode(ids)
            loss = F.mse_loss(decoded[..., : self.channels], latents[..., : self.channels].detach())
            if lengths is not None:
                decoded = self.decode(ids, lengths)
            return Quantized(
                latents=decoded + (latents - latents.detach()),  # adds an exact zero
                values=ids,
                loss=loss,
                usage=code_counts(ids, self.codebook_sizes[0]),
            )

    def encode(self, latents: Tensor, *, generator: Chance = None) -> Tensor:
        self._check_latents(latents)
        with torch.no_grad(), without_autocast(latents.device):
            rest = latents[..., : self.channels].to(self._working_dtype())
            ids: list[Tensor] = []
            for stage in self._stages():
                ids.append(stage.encode(rest))
                rest = rest - self._widened(stage.decode(ids[-1], torch.ones_like(ids[-1])))
            return torch.cat(ids, dim=1)

    def decode(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Latents of the first `lengths` (B,) tokens, default all: (B, n <= N) -> (B, S*S, C + stages)."""
        total = sum(self.sizes)
        values = F.pad(values, (0, total - values.shape[1]))
        if lengths is None:
            lengths = values.new_full((len(values),), total)
        with without_autocast(values.device):
            kept = torch.arange(total, device=values.device) < lengths[:, None]
            kept = kept.to(self._working_dtype())
            parts = zip(self._stages(), values.split(self.sizes, 1), kept.split(self.sizes, 1), strict=True)
            maps, covers = [], []
            for stage, ids, keep in parts:
                maps.append(self._widened(stage.decode(ids, keep)))
                covers.append(stage.coverage(keep))
            return torch.cat([torch.stack(maps).sum(0), *covers], dim=-1)

    def initialise(self, latents: Tensor, generator: torch.Generator) -> None:
        """Every stage from what the coarser ones leave of latents (M, S*S, C + stages)."""
        rest = latents[..., : self.channels].clone()
        for stage in self._stages():
            stage.initialise(rest, generator)
            for block in rest.split(64):
                ids = stage.encode(block)
                block -= self._widened(stage.decode(ids, torch.ones_like(ids)))

    def _working_dtype(self) -> torch.dtype:
        return working_dtype(self._stages()[0].axes)

    def _stages(self) -> list[StageQuantizer]:
        return list(self.stages)  # pyright: ignore[reportReturnType]

    def _widened(self, latents: Tensor) -> Tensor:
        """Zeros for the channels that a stage does not describe."""
        return F.pad(latents, (0, self.channels - latents.shape[-1]))


def _wide(table: Tensor) -> Tensor:
    """Tables stored in half precision are read as float32; wider ones as they are."""
    return table.to(working_dtype(table))


@lru_cache
def spread_order(grid: int) -> tuple[int, ...]:
    """Raster indices of a grid's cells in the order of a Bayer matrix: any prefix is spread out."""
    bayer = torch.zeros(1, 1, dtype=torch.int64)
    while len(bayer) < grid:
        upper = torch.cat([4 * bayer, 4 * bayer + 2], dim=1)
        bayer = torch.cat([upper, torch.cat([4 * bayer + 3, 4 * bayer + 1], dim=1)])
    return tuple(bayer.flatten().argsort().tolist())


@lru_cache
def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))
