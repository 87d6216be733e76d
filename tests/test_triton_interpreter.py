"""The Triton kernels in Triton's interpreter, on the CPU: every id against float64, every sum against torch.

triton reads TRITON_INTERPRET when it is imported, and torch may import it at any time: one test runs the
classes of this file in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
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


def _interprets() -> bool:
    """Triton up to 3.6 makes loops of arrays, which numpy from 2.4 on refuses (triton issue 9171)."""
    if not has_triton():
        return False
    known = [tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy")]
    return known[0] >= (3, 7) or known[1] < (2, 4)


if not INTERPRETED:

    @pytest.mark.skipif(not _interprets(), reason="needs triton, from 3.7 on where numpy is 2.4 or later")
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
    keys, left = vq_triton.screened(latents, codebook, bias)
    return vq_triton.scanned(latents, codebook, bias), vq_triton.scanned(latents, codebook, bias, keys, left)


def screened(latents: Tensor, codebook: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Ids, and whether the screening settled them."""
    from tokenzoo.kernels import vq_triton

    keys, left = vq_triton.screened(latents, codebook, bias)
    settled = keys != vq_triton.NO_KEY.value
    assert left.rows[: left.count].sort().values.tolist() == settled.logical_not().nonzero()[:, 0].tolist()
    return keys & 0xFFFFFFFF, settled


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
        """Each code four times, far apart: the screening can settle no row."""
        latents, codebook = lattice(150, dim), lattice(70, dim, seed=1).repeat(4, 1)
        expected = (latents @ codebook.T + euclidean(codebook)).argmax(dim=1)
        for ids in both_ways(latents, codebook):
            assert torch.equal(ids, expected)
        for ids in both_ways(torch.zeros(3, dim), torch.zeros(200, dim)):
            assert ids.tolist() == [0, 0, 0]

    def test_candidates_are_decided_in_float32(self) -> None:
        """Pairs of codes nearer to each other than half precision sees; in one lane they stay open."""
        codebook = normal(100, 64).repeat(2, 1)
        ids, settled = screened(codebook[100:] * 1.1, codebook, euclidean(codebook))
        assert settled.all() and ids.tolist() == list(range(100))
        codebook[100:] += 3e-3 * normal(100, 64, seed=1)
        ids, settled = screened(codebook, codebook, euclidean(codebook))
        assert settled.all() and ids.tolist() == list(range(200))
        codebook = normal(64, 64).repeat(2, 1)
        assert not screened(codebook, codebook, euclidean(codebook))[1].any()

    def test_a_tie_that_half_precision_takes_for_a_lead(self) -> None:
        """Both codes sum to 2 + 2**-12, their halves to 2 and to 2 + 2**-11."""
        codebook = torch.zeros(300, 16)
        codebook[3, :2] = torch.tensor([1, 1 + 2**-12])
        codebook[200, :2] = torch.tensor([1 + 3 * 2**-12, 1 - 2**-11])
        ids, settled = screened(torch.ones(1, 16), codebook, torch.zeros(300))
        assert settled.item() and ids.item() == 3

    def test_crowded_codes_leave_rows_open(self) -> None:
        """More codes than three are nearer to each other than half precision sees, in one tile or in four."""
        codebook = normal(1, 64) + 3e-3 * normal(300, 64, seed=1)
        latents = codebook + 1e-4 * normal(300, 64, seed=2)
        for ids in both_ways(latents, codebook):
            assert score_gap(latents, codebook, ids) <= 1e-6
        first = normal(100, 64, seed=3)
        fours = torch.cat([first, normal(30, 64, seed=4), first, first, normal(20, 64, seed=6), first])
        fours += 3e-3 * normal(450, 64, seed=5)
        assert not screened(fours, fours, euclidean(fours))[1].all()
        for ids in both_ways(fours, fours):
            assert ids.tolist() == list(range(450))

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
        codes = vq_triton.halved(codebook[None], euclidean(codebook)[None])
        values, scales, errors = vq_triton.halved_rows(latents, codes.extremes, bits=0)
        assert values.dtype == getattr(torch, dtype) and values.abs().amax(dim=1).ge(1).all()
        halves = codes.values[0].double() * codes.scales[0, :, None].double()
        wrong = latents.double() @ codebook.double().T - values.double() * scales[:, None].double() @ halves.T
        assert wrong.abs().amax(dim=1).gt(0).all()
        assert (wrong.abs().amax(dim=1) <= errors * scales).all()

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

    def test_the_work_decides_the_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tokenzoo.kernels import vq_triton

        shapes = []

        def recorded(latents: Tensor, codebook: Tensor, bias: Tensor) -> tuple[Tensor, vq_triton.OpenRows]:
            shapes.append(tuple(latents.shape))
            return screened_before(latents, codebook, bias)

        screened_before = vq_triton.screened
        monkeypatch.setattr(vq_triton, "screened", recorded)
        monkeypatch.setattr(vq_triton, "SCREEN_FROM_WORK", 200 * 50 * 48)
        for rows, dim in [(199, 20), (200, 16), (200, 20)]:
            latents, codebook = normal(rows, dim), normal(50, dim, seed=1)
            with using("triton"):
                assert score_gap(latents, codebook, nearest_code(latents, codebook)) <= 1e-6
        assert shapes == [(200, 20)]
        assert vq_triton.screening_pays(1 << 16, 32 << 14, 32)  # tiles are numbered by 14 bits
        assert not vq_triton.screening_pays(1 << 16, (32 << 14) + 1, 32)


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

    @pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30])
    def test_sums_of_any_size_are_those_of_float64(self, scale: float) -> None:
        """Rounded to float32 once, at the end; the order of the rows does not show."""
        latents = scale * normal(3000, 5)
        ids = torch.where(torch.arange(3000) % 100 == 7, 0, 2)
        with using("triton"):
            found = code_statistics(latents, ids, 4)
            turned = code_statistics(latents.flip(0), ids.flip(0), 4)
        exact = code_statistics(latents.double(), ids, 4)
        torch.testing.assert_close(found.sums, exact.sums.float(), rtol=2e-7, atol=1e-12 * scale)
        assert torch.equal(found.sums, turned.sums)
        assert found.counts.tolist() == [30, 0, 2970, 0]

    def test_a_row_beyond_all_others_stays_with_its_code(self) -> None:
        latents, ids = normal(50, 3), torch.arange(50) % 4
        latents[1] = 1e30
        with using("triton"):
            found = code_statistics(latents, ids, 4)
        torch.testing.assert_close(found.sums, code_statistics(latents, ids, 4).sums, rtol=1e-6, atol=1e-6)

    def test_strided_ids(self) -> None:
        ids = torch.tensor([[0, 3], [1, 3], [0, 3], [1, 3]])[:, 0]
        with using("triton"):
            found = code_statistics(torch.arange(4.0)[:, None], ids, 4)
            hot = code_statistics(torch.arange(4.0)[:, None], torch.tensor([3]).expand(4), 4)
        assert found.sums[:, 0].tolist() == [2, 4, 0, 0] and hot.sums[:, 0].tolist() == [0, 0, 0, 6]

    def test_infinity_and_nan_stay_with_their_code(self) -> None:
        latents = torch.ones(6, 3)
        latents[0, 0], latents[1, 1], latents[2, 2] = torch.inf, -torch.inf, torch.nan
        latents[3, 0] = -torch.inf
        latents[4:] = -3e38
        ids = torch.tensor([0, 0, 1, 1, 2, 2])
        with using("triton"):
            found = code_statistics(latents, ids, 3)
            beyond = code_statistics(torch.tensor([[torch.inf], [-3e38], [-3e38]]), ids[:3] * 0, 1)
        assert beyond.sums.item() == torch.inf
        expected = [[torch.inf, -torch.inf, 2], [-torch.inf, 2, torch.nan], [-torch.inf] * 3]
        torch.testing.assert_close(found.sums, torch.tensor(expected), rtol=0, atol=0, equal_nan=True)

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
