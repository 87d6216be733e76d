"""The nearest-code search: against brute force in float64, on ties, dtypes, tiles and under autocast."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenzoo.kernels import vq
from tokenzoo.kernels.bench_measure import measure
from tokenzoo.kernels.paths import using
from tokenzoo.kernels.vq import nearest_code, nearest_op


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scores(latents: Tensor, codebook: Tensor, metric: str = "euclidean") -> Tensor:
    """All scores in float64: the largest is the nearest."""
    latents, codebook = latents.double(), codebook.double()
    bias = codebook.square().sum(dim=1) / 2 if metric == "euclidean" else 0
    return latents @ codebook.T - bias


def assert_nearest(found: Tensor, latents: Tensor, codebook: Tensor, metric: str = "euclidean") -> None:
    """Every id is the brute-force id, but where two codes are within 1e-6 |x||c| of each other."""
    exact = scores(latents, codebook, metric)
    gap = exact.max(dim=1).values - exact.gather(1, found[:, None]).squeeze(1)
    lengths = latents.double().norm(dim=1) * codebook.double().norm(dim=1).max()
    assert bool((gap <= 1e-6 * lengths).all()), f"worst gap {(gap / lengths).max():.1e} |x||c|"


@pytest.mark.parametrize("path", ["reference", "torch"])
@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(0, 9),
    codes=st.one_of(st.integers(1, 17), st.sampled_from([63, 64, 65, 128, 129, 200, 256])),
    dim=st.integers(1, 8),
    seed=st.integers(0, 1000),
    tile=st.sampled_from([1, 300, 1 << 20]),
    metric=st.sampled_from(["euclidean", "dot"]),
)
def test_nearest_is_nearest(path, rows: int, codes: int, dim: int, seed: int, tile: int, metric) -> None:
    """In float64 and for any size of tile the answer is the best score."""
    latents, codebook = seeded(rows, dim, seed=seed).double(), seeded(codes, dim, seed=seed + 1).double()
    with pytest.MonkeyPatch.context() as patch, using(path):
        patch.setattr(vq, "TILE_ELEMENTS", tile)
        found = nearest_code(latents, codebook, metric=metric)
    assert found.tolist() == scores(latents, codebook, metric).argmax(dim=1).tolist()


@pytest.mark.parametrize("metric", ["euclidean", "dot"])
@pytest.mark.parametrize(
    ("rows", "dim", "codes"),
    [(700, 8, 1024), (300, 12, 4096), (257, 32, 5000), (130, 256, 1000), (64, 7, 20_000)],
)
def test_float32_agrees_with_float64(rows: int, dim: int, codes: int, metric) -> None:
    latents, codebook = seeded(rows, dim), seeded(codes, dim, seed=1)
    assert_nearest(nearest_code(latents, codebook, metric=metric), latents, codebook, metric)
    far = latents + 100  # where |z - e|^2 loses what |z|^2 outweighs
    assert_nearest(nearest_code(far, codebook + 100, metric=metric), far, codebook + 100, metric)


@pytest.mark.parametrize("path", ["reference", "torch"])
@pytest.mark.parametrize("tile", [1, 5, 1 << 20])
def test_ties_go_to_the_lowest_index(monkeypatch: pytest.MonkeyPatch, tile: int, path) -> None:
    monkeypatch.setattr(vq, "TILE_ELEMENTS", tile)
    codebook = torch.tensor([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    latents = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -5.0], [2.0, 0.0]])
    with using(path):
        assert nearest_code(latents, codebook).tolist() == [1, 1, 1, 0]
        assert nearest_code(torch.zeros(4, 3, 2), torch.zeros(600, 2)).tolist() == [[0] * 3] * 4


@pytest.mark.parametrize(("dim", "codes"), [(2, 100), (3, 640), (16, 257), (160, 96)])
def test_ties_on_a_lattice_and_between_copies(dim: int, codes: int) -> None:
    """Small integers make every score exact; copies of a codebook tie on any latents."""
    generator = torch.Generator().manual_seed(dim)
    codebook = torch.randint(-2, 3, (codes, dim), generator=generator).float()
    latents = torch.randint(-2, 3, (500, dim), generator=generator).float()
    assert torch.equal(nearest_code(latents, codebook), scores(latents, codebook).argmax(dim=1))
    codebook = seeded(codes, dim)
    found = nearest_code(seeded(500, dim, seed=9), codebook.repeat(3, 1))
    assert torch.equal(found, nearest_code(seeded(500, dim, seed=9), codebook))


@pytest.mark.parametrize(
    ("rows", "dim", "codes"), [(20_000, 4, 4096), (4096, 256, 4096), (600, 8, 65_536), (40_000, 4, 300)]
)
def test_memory_stays_far_below_all_scores(rows: int, dim: int, codes: int) -> None:
    latents, codebook = seeded(rows, dim), seeded(codes, dim, seed=1)
    peak = measure({"": lambda: nearest_code(latents, codebook)}, "cpu", repeats=0)[""].peak_mib
    assert 0 < peak < 24 and peak < rows * codes * 4 / 2**20 / 2


def test_float32_under_autocast() -> None:
    """Two codes that bfloat16 cannot tell apart."""
    codebook = torch.tensor([[1.0], [1.0 + 1 / 1024]])
    latents = torch.tensor([[1.0 + 1 / 1024]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest_code(latents, codebook).item() == 1
        # The operator by itself: autocast widens what does not fit together.
        assert nearest_op(torch.ones(1, 1).bfloat16(), codebook, "euclidean").item() == 0


def test_float64_stays_float64() -> None:
    codebook = torch.tensor([[1.0], [1.0 + 1e-6]], dtype=torch.float64)
    assert nearest_code(torch.tensor([[1.0 + 1e-6]], dtype=torch.float64), codebook).item() == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_widened(dtype: torch.dtype) -> None:
    latents, codebook = seeded(64, 12).to(dtype), seeded(40, 12, seed=1)
    assert torch.equal(nearest_code(latents, codebook), nearest_code(latents.float(), codebook))


def test_shapes_strides_and_the_meta_device() -> None:
    assert nearest_code(seeded(2, 5, 3, 8), seeded(4, 8)).shape == (2, 5, 3)
    assert nearest_code(seeded(8), seeded(4, 8)).shape == ()
    assert nearest_code(seeded(0, 8), seeded(400, 8)).shape == (0,)
    meta = nearest_code(torch.randn(2, 8, device="meta"), torch.randn(4, 8, device="meta"))
    assert meta.shape == (2,) and meta.dtype == torch.int64
    latents, codebook = seeded(8, 50), seeded(8, 300, seed=1)
    expected = nearest_code(latents.T.contiguous(), codebook.T.contiguous())
    assert torch.equal(nearest_code(latents.T, codebook.T), expected)


@pytest.mark.parametrize("path", ["reference", "torch"])
def test_not_a_number_gets_index_zero(path) -> None:
    latents = seeded(5, 3)
    latents[2, 1] = torch.nan
    with using(path):
        assert nearest_code(latents, seeded(300, 3, seed=1))[2] == 0


@pytest.mark.parametrize("path", ["reference", "torch"])
@pytest.mark.parametrize("codes", [8, 64, 5000])
def test_infinity_gets_some_id_in_range(codes: int, path) -> None:
    latents = seeded(600, 3)
    latents[1, 0], latents[2, 1] = torch.inf, -torch.inf
    with using(path):
        assert int(nearest_code(latents, seeded(codes, 3, seed=1)).max()) < codes


@pytest.mark.parametrize(
    ("latents", "codebook"),
    [
        (seeded(7, 4), seeded(300, 4, seed=1)),
        (seeded(4, 7).T, seeded(4, 300, seed=1).T),
        (seeded(14, 4)[::2], seeded(200, 8, seed=1)[:, ::2]),
        (seeded(0, 4), seeded(3, 4)),
        (seeded(1, 4), seeded(1, 4)),
    ],
)
def test_the_operator_is_sound(latents: Tensor, codebook: Tensor) -> None:
    torch.library.opcheck(nearest_op, (latents, codebook, "euclidean"))


def test_compiled_equals_eager_without_a_graph_break() -> None:
    compiled = torch.compile(nearest_code, fullgraph=True, backend="aot_eager", dynamic=True)
    codebook = seeded(300, 6, seed=1)
    for rows in (5, 9):
        latents = seeded(rows, 6).requires_grad_()
        assert torch.equal(compiled(latents, codebook), nearest_code(latents, codebook))


@pytest.mark.parametrize(
    ("latents", "codebook", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 5), r"\(2, 3\).*\(4, 5\).*last axis"),
        (torch.zeros(2, 3), torch.zeros(0, 3), "K >= 1"),
        (torch.zeros(2, 3), torch.zeros(3), r"expected \(K, D\)"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(4, 3), "latents of dtype torch.int64"),
    ],
)
def test_misfits_are_refused(latents: Tensor, codebook: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_code(latents, codebook)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric 'cosine'; expected 'euclidean' or 'dot'"):
        nearest_code(torch.zeros(2, 3), torch.zeros(4, 3), metric="cosine")  # pyright: ignore[reportArgumentType]


def test_float32_whatever_precision_is_allowed() -> None:
    """The setting "medium" lets CPUs multiply in bfloat16; it is back afterwards."""
    latents, codebook = seeded(200, 64), seeded(2000, 64, seed=1)
    expected = nearest_code(latents, codebook)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(nearest_code(latents, codebook), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("path", ["reference", "torch"])
@pytest.mark.parametrize("rows", [1, 3, 300])
def test_copies_tie_in_codebooks_of_any_size(rows: int, path) -> None:
    """The last columns of a product are summed in another order, unless there are none."""
    for codes in (2, 5, 9, 11, 63, 65, 75, 127, 130, 1274):
        for dim in (4, 16, 72):
            codebook = seeded(codes, dim, seed=codes)
            codebook[-1] = codebook[0]
            latents = codebook[0] + 0.3 * seeded(rows, dim, seed=1) / dim**0.5
            with using(path):
                assert not bool((nearest_code(latents, codebook) == codes - 1).any()), (codes, dim)
