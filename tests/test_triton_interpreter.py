"""The Triton kernels in Triton's interpreter, on the CPU: every id against float64, every sum against torch.

triton reads TRITON_INTERPRET when it is imported, and torch may import it at any time: one test runs the
classes of this file in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokenzoo.kernels.paths import has_triton, using
from tokenzoo.kernels.residual import residual_codes
from tokenzoo.kernels.scalar import level_values, quantize_bins, quantize_levels, quantize_signs
from tokenzoo.kernels.statistics import code_statistics
from tokenzoo.kernels.vq import nearest_code

from .near_ties import euclidean, lattice, normal, score_gap

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# numpy, which interprets, warns of what a GPU does in silence: inf - inf, exp(1000).
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")

if not INTERPRETED:

    @pytest.mark.skipif(not has_triton(), reason="needs triton")
    def test_in_a_process_of_its_own() -> None:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "TRITON_INTERPRET": "1"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert "skipped" not in run.stdout


def both_ways(latents: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Ids of the scan, and of the screening with its open rows scanned."""
    from tokenzoo.kernels import vq_triton

    bias = euclidean(codebook)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vq_triton, "SCREEN_FROM_ROWS", 0)
        patch.setattr(vq_triton, "SCREEN_ABOVE_DIM", 0)
        return vq_triton.scanned(latents, codebook, bias), vq_triton.nearest_triton(latents, codebook, bias)


class TestNearest:
    __test__ = INTERPRETED

    @pytest.mark.parametrize(
        ("rows", "codes", "dim"),
        [
            (1, 1, 7),
            (257, 33, 7),
            (70, 1000, 12),
            (257, 300, 32),
            (129, 130, 100),
            (40, 70, 256),
            (33, 65, 520),
        ],
    )
    def test_agrees_with_float64(self, rows: int, codes: int, dim: int) -> None:
        latents, codebook = normal(rows, dim), normal(codes, dim, seed=1)
        for ids in both_ways(latents, codebook):
            assert score_gap(latents, codebook, ids) <= 1e-6

    @pytest.mark.parametrize("dim", [5, 40])
    def test_ties_go_to_the_lowest_index(self, dim: int) -> None:
        """Each code three times, far apart: the screening can settle no row."""
        latents, codebook = lattice(150, dim), lattice(70, dim, seed=1).repeat(3, 1)
        expected = (latents @ codebook.T + euclidean(codebook)).argmax(dim=1)
        for ids in both_ways(latents, codebook):
            assert torch.equal(ids, expected)
        for ids in both_ways(torch.zeros(3, dim), torch.zeros(200, dim)):
            assert ids.tolist() == [0, 0, 0]

    def test_candidates_are_decided_in_float32(self) -> None:
        """Pairs of codes in two tiles, nearer to each other than half precision sees."""
        from tokenzoo.kernels import vq_triton

        codebook = normal(128, 64).repeat(2, 1)
        ids, settled = vq_triton.screened(codebook[128:] * 1.1, codebook, euclidean(codebook))
        assert settled.all() and ids.tolist() == list(range(128))
        codebook[128:] += 3e-3 * normal(128, 64, seed=1)
        ids, settled = vq_triton.screened(codebook, codebook, euclidean(codebook))
        assert settled.all() and ids.tolist() == list(range(256))

    def test_a_tie_that_half_precision_takes_for_a_lead(self) -> None:
        """Both codes sum to 2 + 2**-12, their halves to 2 and to 2 + 2**-11."""
        from tokenzoo.kernels import vq_triton

        codebook = torch.zeros(300, 16)
        codebook[3, :2] = torch.tensor([1, 1 + 2**-12])
        codebook[200, :2] = torch.tensor([1 + 3 * 2**-12, 1 - 2**-11])
        ids, settled = vq_triton.screened(torch.ones(1, 16), codebook, torch.zeros(300))
        assert settled.item() and ids.item() == 3

    def test_crowded_codes_leave_rows_open(self) -> None:
        """More codes than two are nearer to each other than half precision sees, in one tile or in three."""
        codebook = normal(1, 64) + 3e-3 * normal(300, 64, seed=1)
        latents = codebook + 1e-4 * normal(300, 64, seed=2)
        for ids in both_ways(latents, codebook):
            assert score_gap(latents, codebook, ids) <= 1e-6
        first = normal(100, 64, seed=3)
        triples = torch.cat([first, normal(30, 64, seed=4), first, first])
        triples += 3e-3 * normal(330, 64, seed=5)
        for ids in both_ways(triples, triples):
            assert ids.tolist() == list(range(330))

    def test_rows_with_nan_get_zero(self) -> None:
        latents = normal(40, 48)
        latents[3, 7] = latents[4] = torch.nan
        latents[5, 0] = torch.inf
        codebook = normal(100, 48, seed=1)
        sound = torch.arange(40).ne(5)  # infinity has no distance, but must not spread
        for ids in both_ways(latents, codebook):
            assert ids[3] == 0 and ids[4] == 0 and 0 <= ids[5] < 100
            expected = nearest_code(latents, codebook)
            assert torch.equal(ids[sound], expected[sound])

    def test_any_share_of_the_codes_gives_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tokenzoo.kernels import vq_triton

        latents, codebook = lattice(70, 20), lattice(500, 20, seed=1)
        found = []
        for wanted in (1, 5, 10_000):
            monkeypatch.setattr(vq_triton, "WANTED_PROGRAMS", wanted)
            found.append(vq_triton.scanned(latents, codebook, euclidean(codebook)))
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_the_error_of_halves_is_bounded(self, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """For vectors of any size, down to those whose halves underflow."""
        from tokenzoo.kernels import vq_triton

        monkeypatch.setattr(vq_triton, "SCREEN_DTYPE", getattr(torch, dtype))
        latents, codebook = normal(60, 50), normal(80, 50, seed=1)
        latents *= 10 ** (6 * normal(60, 50, seed=2))
        codebook *= 10 ** (3 * normal(80, 1, seed=3))
        rows, codes = vq_triton.halved(latents), vq_triton.halved(codebook)
        assert rows.values.dtype == getattr(torch, dtype) and rows.values.abs().amax(dim=1).ge(1).all()
        halves = [half.values.double() * half.scales[:, None].double() for half in (rows, codes)]
        wrong = (latents.double() @ codebook.double().T - halves[0] @ halves[1].T).abs().amax(dim=1)
        assert wrong.gt(0).all()
        assert (wrong <= vq_triton.score_errors(rows, codes, euclidean(codebook))).all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_through_the_public_face(self, dtype: torch.dtype) -> None:
        latents, codebook = normal(3, 20, 48).to(dtype).transpose(0, 1), normal(100, 48, seed=1)
        for metric in ("euclidean", "dot"):
            with using("triton"):
                found = nearest_code(latents, codebook, metric=metric)
            assert found.dtype == torch.int64
            assert torch.equal(found, nearest_code(latents, codebook, metric=metric))
        with using("triton"):
            assert nearest_code(torch.zeros(0, 8), torch.zeros(4, 8)).shape == (0,)

    def test_the_shape_decides_the_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tokenzoo.kernels import vq_triton

        screened = vq_triton.screened
        shapes = []

        def recorded(latents: Tensor, codebook: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            shapes.append(tuple(latents.shape))
            return screened(latents, codebook, bias)

        monkeypatch.setattr(vq_triton, "screened", recorded)
        monkeypatch.setattr(vq_triton, "SCREEN_FROM_ROWS", 200)
        for rows, dim in [(199, 33), (200, 32), (200, 33)]:
            latents, codebook = normal(rows, dim), normal(50, dim, seed=1)
            ids = vq_triton.nearest_triton(latents, codebook, euclidean(codebook))
            assert score_gap(latents, codebook, ids) <= 1e-6
        assert shapes == [(200, 33)]


class TestResidual:
    __test__ = INTERPRETED

    @pytest.mark.parametrize(
        ("rows", "dim", "stages", "codes"),
        [(33, 7, 3, 17), (100, 32, 8, 300), (40, 128, 3, 65), (9, 200, 2, 40)],
    )
    def test_each_stage_takes_the_nearest(self, rows: int, dim: int, stages: int, codes: int) -> None:
        latents, codebooks = normal(rows, dim), normal(stages, codes, dim, seed=1)
        codebooks *= 0.7 ** torch.arange(stages)[:, None, None]
        kept = torch.arange(rows) % (stages + 1)
        with using("triton"):
            found = residual_codes(latents, codebooks, kept)
        assert torch.equal(found.ids >= 0, torch.arange(stages) < kept[:, None])
        quantized = torch.zeros_like(latents)
        for stage, codebook in enumerate(codebooks):
            live = kept > stage
            residual = latents[live] - quantized[live]
            assert score_gap(residual, codebook, found.ids[live, stage]) <= 2e-6
            quantized[live] += codebook[found.ids[live, stage]]
            left = (latents - quantized).square().sum(dim=1) * live
            torch.testing.assert_close(found.errors[:, stage], left, rtol=1e-4, atol=1e-4)
        assert torch.equal(found.quantized, quantized)

    def test_ties_nan_and_no_rows(self) -> None:
        latents, codebooks = lattice(40, 6), lattice(2, 30, 6, seed=1).repeat(1, 3, 1)
        latents[7] = torch.nan
        with using("triton"):
            found = residual_codes(latents, codebooks)
            assert residual_codes(torch.zeros(0, 6), codebooks).ids.shape == (0, 2)
        assert torch.equal(found.ids, residual_codes(latents, codebooks).ids)
        assert found.ids[7].tolist() == [0, 0]

    def test_gradient(self) -> None:
        codebooks = normal(3, 20, 8, seed=1)
        gradients = []
        for path in ("triton", "torch"):
            latents = normal(10, 8).requires_grad_()
            with using(path):
                found = residual_codes(latents, codebooks)
            (found.losses.sum() + found.quantized.square().sum()).backward()
            gradients.append(latents.grad)
        torch.testing.assert_close(*gradients)


class TestStatistics:
    __test__ = INTERPRETED

    @pytest.mark.parametrize(("rows", "dim", "codes"), [(0, 4, 3), (1, 4, 1), (400, 7, 10), (300, 130, 40)])
    def test_agrees_with_torch(self, rows: int, dim: int, codes: int) -> None:
        latents = normal(rows, dim)
        ids = torch.randint(-1, codes, (rows,), generator=torch.Generator().manual_seed(1))
        latents[ids < 0] = torch.nan
        with using("triton"):
            found = code_statistics(latents, ids, codes)
        expected = code_statistics(latents, ids, codes)
        assert torch.equal(found.counts, expected.counts)
        torch.testing.assert_close(found.sums, expected.sums, rtol=1e-5, atol=1e-5)

    def test_a_hot_code_is_shared_out(self) -> None:
        """Whole numbers: the sum is exact in any order, if every row is added once."""
        from tokenzoo.kernels.statistics_triton import PIECE_ROWS

        rows = 3 * PIECE_ROWS + 5
        latents = lattice(rows, 3)
        ids = torch.where(torch.arange(rows) % 100 == 7, 0, 2)
        with using("triton"):
            found = code_statistics(latents, ids, 4)
        assert torch.equal(found.sums, code_statistics(latents, ids, 4).sums)
        assert found.counts.tolist() == [8, 0, rows - 8, 0]

    def test_an_id_beyond_the_codebook_fails(self) -> None:
        with using("triton"), pytest.raises((IndexError, RuntimeError)):
            code_statistics(torch.zeros(2, 3), torch.tensor([0, 4]), 4)


class TestScalar:
    __test__ = INTERPRETED

    @pytest.mark.parametrize(
        ("levels", "rule"),
        [
            ((8, 5, 5, 5), {}),
            ((8,) * 9, {}),
            ((2,) * 62, {}),
            ((7, 4), {"epsilon": -1e-3}),
            ((2001, 3), {}),
            ((8, 7, 2), {"symmetric": True}),
            ((8, 5, 4), {"clamp": True}),
            ((8, 5, 4), {"clamp": True, "symmetric": True}),
        ],
    )
    def test_levels(self, levels: tuple[int, ...], rule: dict[str, float | bool]) -> None:
        """Digit by digit, but where a nudge of 1e-6 decides; ids decode to the values bit for bit."""
        latents = 2 * normal(300, len(levels))
        latents[0, 0], latents[1], latents[2] = torch.nan, torch.inf, -torch.inf
        with using("triton"):
            found = quantize_levels(latents, levels, **rule)
        below, above = (quantize_levels(latents.double() + nudge, levels, **rule) for nudge in (-1e-6, 1e-6))
        clear = below.values == above.values
        assert clear.float().mean() > 0.99 or max(levels) > 1000
        assert torch.equal(found.values[clear], below.values[clear])
        symmetric = bool(rule.get("symmetric", False))
        assert torch.equal(found.values, level_values(found.ids, levels, symmetric=symmetric))

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_levels_at_ties(self, symmetric: bool) -> None:
        latents = torch.linspace(-1, 1, 33)[:, None].expand(33, 2).contiguous()
        rule = {"epsilon": 0.0, "clamp": True, "symmetric": symmetric}
        with using("triton"):
            found = quantize_levels(latents, (5, 9), **rule)
        assert torch.equal(found.ids, quantize_levels(latents, (5, 9), **rule).ids)

    def test_more_levels_than_the_kernel_rounds(self) -> None:
        latents = normal(20, 2)
        with using("triton"):
            found = quantize_levels(latents, (1 << 23, 2))
        assert torch.equal(found.ids, quantize_levels(latents, (1 << 23, 2)).ids)

    def test_gradient_of_levels(self) -> None:
        gradients = []
        for path in ("triton", "torch"):
            latents = normal(50, 3).requires_grad_()
            with using(path):
                quantize_levels(latents, (8, 5, 2)).values.square().sum().backward()
            gradients.append(latents.grad)
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("high_first", [True, False])
    @pytest.mark.parametrize("dim", [1, 18, 63])
    def test_signs(self, dim: int, high_first: bool) -> None:
        latents = normal(200, dim)
        latents[0], latents[1], latents[2] = 0, torch.nan, 1
        with using("triton"):
            found = quantize_signs(latents, scale=0.3, high_first=high_first)
        expected = quantize_signs(latents, scale=0.3, high_first=high_first)
        assert torch.equal(found.ids, expected.ids) and torch.equal(found.values, expected.values)
        assert found.ids[:3].tolist() == [0, 0, 2**dim - 1]

    @pytest.mark.parametrize("edges", [0, 1, 7, 8, 9])
    def test_bins(self, edges: int) -> None:
        latents, borders = normal(30, 18), normal(edges, seed=1).sort().values
        latents[0, :edges] = borders
        latents[1, 0], latents[1, 1] = torch.nan, torch.inf
        with using("triton"):
            found = quantize_bins(latents, borders)
        assert torch.equal(found, quantize_bins(latents, borders))
        assert found[1, :2].tolist() == [0, edges]
