"""What neither interpreter nor compiler sees of the Triton kernels: rounding, races, memory, waiting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tokenzoo.kernels.paths import has_triton, using

if not torch.cuda.is_available() or not has_triton():
    pytest.skip("needs CUDA and triton", allow_module_level=True)

from tokenzoo.kernels.residual import residual_codes
from tokenzoo.kernels.scalar import level_values, quantize_bins, quantize_levels, quantize_signs
from tokenzoo.kernels.statistics import code_statistics
from tokenzoo.kernels.vq import nearest_code, nearest_op

from .near_ties import euclidean, lattice, normal, score_gap

pytestmark = pytest.mark.gpu


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """An operation that makes the CPU wait for the GPU raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def clustered(rows: int, codebook: Tensor, seed: int = 2) -> Tensor:
    """Latents near codes, some of which are hit far more often than others."""
    popular = normal(rows, seed=seed).abs().pow(3).mul(len(codebook) / 30).long().clamp(max=len(codebook) - 1)
    return codebook[popular.to(codebook.device)] + 0.3 * normal(rows, codebook.shape[1], seed=seed + 1).cuda()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "codes", "dim"),
    [
        (1, 1, 7),
        (130, 16_384, 12),
        (5000, 1000, 32),
        (20_000, 1000, 8),
        (20_000, 2000, 48),
        (20_000, 1000, 128),
        (20_000, 999, 256),
        (5000, 1000, 64),
        (5001, 4096, 100),
        (5000, 999, 256),
        (4500, 777, 1024),
    ],
)
def test_nearest_agrees_with_float64(
    rows: int, codes: int, dim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenzoo.kernels import vq_triton

    monkeypatch.setattr(vq_triton, "SCREEN_DTYPE", dtype)
    codebook = normal(codes, dim, seed=1).cuda()
    for latents in (normal(rows, dim).cuda(), clustered(rows, codebook)):
        bias = euclidean(codebook)
        keys, left = vq_triton.screened(latents, codebook, bias)
        for ids in (
            nearest_code(latents, codebook),
            vq_triton.scanned(latents, codebook, bias),
            vq_triton.scanned(latents, codebook, bias, keys, left),
        ):
            assert score_gap(latents, codebook, ids) <= 1e-6


@pytest.mark.parametrize("dim", [8, 64, 256, 1024])
def test_screening_settles_nearly_all_rows_and_keeps_its_bound(dim: int) -> None:
    from tokenzoo.kernels import vq_triton

    latents, codebook = normal(8192, dim).cuda(), normal(8192, dim, seed=1).cuda()
    keys, left = vq_triton.screened(latents, codebook, euclidean(codebook))
    settled = keys != vq_triton.NO_KEY.value
    assert settled.float().mean() > 0.95
    assert left.rows[: left.count].sort().values.tolist() == settled.logical_not().nonzero()[:, 0].tolist()
    ids = keys & 0xFFFFFFFF
    assert score_gap(latents[settled], codebook, ids[settled]) <= 1e-6


@pytest.mark.parametrize(("rows", "dim"), [(100, 24), (5000, 64)])
def test_ties_go_to_the_lowest_index_and_nan_to_zero(rows: int, dim: int) -> None:
    latents, codebook = lattice(rows, dim).cuda(), lattice(700, dim, seed=1).repeat(3, 1).cuda()
    expected = (latents.double() @ codebook.double().T + euclidean(codebook)).argmax(dim=1)
    latents[5, 1], expected[5] = torch.nan, 0
    assert torch.equal(nearest_code(latents, codebook), expected)


@pytest.mark.parametrize(("rows", "codes", "dim"), [(65_536, 16_384, 32), (32_768, 16_384, 256)])
def test_nearest_needs_no_memory_for_scores(rows: int, codes: int, dim: int) -> None:
    latents, codebook = normal(rows, dim).cuda(), normal(codes, dim, seed=1).cuda()
    nearest_code(latents, codebook)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    nearest_code(latents, codebook)
    used = torch.cuda.max_memory_allocated() - before
    assert used <= latents.nbytes + 4 * codebook.nbytes + 64 * rows


def test_the_search_is_one_operator_for_compile_and_opcheck() -> None:
    latents, codebook = normal(300, 48).cuda(), normal(200, 48, seed=1).cuda()
    torch.library.opcheck(nearest_op, (latents, codebook, "euclidean"))
    expected = nearest_code(latents, codebook)
    compiled = torch.compile(nearest_code, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(latents, codebook), expected)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert torch.equal(nearest_code(latents, codebook), expected)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_nothing_waits_for_the_device() -> None:
    latents, codebook = torch.randn(5000, 64, device="cuda"), torch.randn(500, 64, device="cuda")
    ids = nearest_code(latents, codebook)
    code_statistics(latents, ids, 500)
    residual_codes(latents, codebook[None])
    quantize_levels(latents[:, :4], (8, 5, 5, 5))
    quantize_signs(latents[:, :18])
    quantize_bins(latents, codebook[0].sort().values)


@pytest.mark.parametrize(
    ("rows", "dim"),
    [(3, 8), (5000, 8), (5000, 32), (3, 128), (5000, 64), (5000, 128), (5000, 256), (20_000, 64)],
)
def test_residual_stages_take_the_nearest(rows: int, dim: int) -> None:
    codebooks = torch.stack([0.7**stage * normal(1024, dim, seed=stage) for stage in range(8)]).cuda()
    latents = normal(rows, dim, seed=9).cuda()
    kept = torch.arange(rows, device="cuda") % 9
    found = residual_codes(latents, codebooks, kept)
    assert torch.equal(found.ids, residual_codes(latents, codebooks, kept).ids)
    assert torch.equal(found.ids >= 0, torch.arange(8, device="cuda") < kept[:, None])
    quantized = torch.zeros_like(latents)
    for stage, codebook in enumerate(codebooks):
        live = kept > stage
        if live.any():
            residual = latents[live] - quantized[live]
            assert score_gap(residual, codebook, found.ids[live, stage]) <= 2e-6
            quantized[live] += codebook[found.ids[live, stage]]
    assert torch.equal(found.quantized, quantized)


@pytest.mark.parametrize(
    ("rows", "dim", "codes"), [(65_536, 32, 1024), (65_536, 256, 1024), (4096, 12, 16_384)]
)
def test_statistics_are_the_same_bits_at_every_run(rows: int, dim: int, codes: int) -> None:
    codebook = normal(codes, dim).cuda()
    latents = clustered(rows, codebook)
    ids = nearest_code(latents, codebook)
    ids[::7] = -1
    found = [code_statistics(latents, ids, codes) for _ in range(3)]
    assert torch.equal(found[0].sums, found[1].sums) and torch.equal(found[0].sums, found[2].sums)
    with using("torch"):
        expected = code_statistics(latents.double(), ids, codes)
    assert torch.equal(found[0].counts.double(), expected.counts)
    torch.testing.assert_close(found[0].sums.double(), expected.sums, rtol=1e-5, atol=1e-3)


def test_a_row_beyond_all_others_stays_with_its_code_whatever_the_strides() -> None:
    latents = normal(5000, 48).cuda()
    latents[7] = 1e30
    ids = torch.stack([torch.arange(5000) % 64, torch.full((5000,), 3)], dim=1).cuda()
    for column in ids.unbind(1):
        found = code_statistics(latents, column, 64)
        with using("torch"):
            expected = code_statistics(latents.double(), column, 64)
        torch.testing.assert_close(found.sums.double(), expected.sums, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("levels", "rule"),
    [((8, 5, 5, 5), {}), ((8,) * 9, {}), ((8, 7, 2), {"symmetric": True}), ((8, 5, 4), {"clamp": True})],
)
def test_levels(levels: tuple[int, ...], rule: dict[str, bool]) -> None:
    latents = 2 * normal(100_000, len(levels))
    latents[0], latents[1], latents[2] = torch.nan, torch.inf, -torch.inf
    found = quantize_levels(latents.cuda(), levels, **rule)
    below, above = (quantize_levels(latents.double() + nudge, levels, **rule) for nudge in (-2e-6, 2e-6))
    clear = below.values == above.values
    assert clear.float().mean() > 0.99
    assert torch.equal(found.values.cpu()[clear], below.values[clear])
    assert torch.equal(found.values, level_values(found.ids, levels, symmetric=rule.get("symmetric", False)))


def test_signs_and_bins() -> None:
    latents, edges = normal(100_000, 18), normal(63, seed=1).sort().values
    latents[0], latents[1], latents[2] = torch.nan, torch.inf, 0
    found, expected = quantize_signs(latents.cuda(), scale=0.3), quantize_signs(latents, scale=0.3)
    assert torch.equal(found.ids.cpu(), expected.ids) and torch.equal(found.values.cpu(), expected.values)
    assert torch.equal(quantize_bins(latents.cuda(), edges.cuda()).cpu(), quantize_bins(latents, edges))
