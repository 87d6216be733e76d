"""Counts and sums per code: a loop on every path, and the one-hot product left behind in time and memory."""

import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from tokenzoo.kernels.paths import using
from tokenzoo.kernels.statistics import code_counts, code_statistics, statistics_op, sums_sorted, sums_torch


def batch(rows: int, dim: int, codes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(rows, dim, generator=generator)
    return latents, torch.randint(-1, codes, (rows,), generator=generator)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(0, 20), dim=st.integers(1, 5), codes=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_path_is_a_loop_over_the_rows(rows: int, dim: int, codes: int, seed: int) -> None:
    latents, ids = batch(rows, dim, codes, seed)
    latents = latents.double()
    counts, sums = torch.zeros(codes).double(), torch.zeros(codes, dim).double()
    for row, code in zip(latents, ids.tolist(), strict=True):
        if code >= 0:
            counts[code] += 1
            sums[code] += row
    for path in ("reference", "torch"):
        with using(path):
            found = code_statistics(latents, ids, codes)
        assert torch.equal(found.counts, counts)
        torch.testing.assert_close(found.sums, sums)
    torch.testing.assert_close(sums_sorted(latents, ids, codes), sums)
    assert code_counts(ids, codes).tolist() == counts.int().tolist()


def test_left_out_rows_may_hold_anything() -> None:
    latents = torch.tensor([[1.0, 2.0], [torch.nan, torch.inf], [3.0, 4.0]])
    ids = torch.tensor([1, -1, 1])
    for path in ("reference", "torch"):
        with using(path):
            found = code_statistics(latents, ids, 3)
        assert found.counts.tolist() == [0, 2, 0]
        assert found.sums.tolist() == [[0, 0], [4, 6], [0, 0]]
    assert sums_sorted(latents, ids, 3).tolist() == [[0, 0], [4, 6], [0, 0]]


def test_the_order_of_sums_is_fixed() -> None:
    """A hot code whose sum depends on the order: both ways add its rows as they come."""
    latents = torch.randn(4096, 3, generator=torch.Generator().manual_seed(1)) * 1e4
    ids = torch.zeros(4096, dtype=torch.int64)
    for way in (sums_torch, sums_sorted):
        assert torch.equal(way(latents, ids, 2), way(latents, ids, 2))


def test_shapes_dtypes_and_autocast() -> None:
    latents, ids = batch(24, 5, 7)
    expected = code_statistics(latents, ids, 7)
    assert expected.counts.dtype == expected.sums.dtype == torch.float32
    shaped = code_statistics(latents.view(2, 3, 4, 5), ids.view(2, 3, 4), 7)
    assert torch.equal(shaped.sums, expected.sums)
    strided = code_statistics(latents.T.contiguous().T, ids, 7)
    assert torch.equal(strided.sums, expected.sums)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(code_statistics(latents, ids, 7).sums, expected.sums)
        assert statistics_op(latents.bfloat16(), ids, 7, False)[1].dtype == torch.float32
    assert code_statistics(latents.bfloat16(), ids, 7).sums.dtype == torch.float32
    assert code_statistics(latents.double(), ids, 7).sums.dtype == torch.float64
    assert not code_statistics(latents.requires_grad_(), ids, 7).sums.requires_grad
    meta = code_statistics(torch.empty(2, 5, device="meta"), ids[:2].to("meta"), 7)
    assert meta.counts.shape == (7,) and meta.sums.shape == (7, 5)


def test_bfloat16_sums_do_not_stall() -> None:
    """512 ones added up in bfloat16 stop at 256."""
    ones = torch.ones(512, 1, dtype=torch.bfloat16)
    assert code_statistics(ones, torch.zeros(512, dtype=torch.int64), 1).sums.item() == 512


@pytest.mark.parametrize("rows", [0, 1, 33])
def test_the_operator_is_registered_rightly(rows: int) -> None:
    latents, ids = batch(rows, 4, 6)
    torch.library.opcheck(statistics_op, (latents, ids, 6, False))
    torch.library.opcheck(statistics_op, (latents.double().T.contiguous().T, ids, 6, True))


def test_compiled_equals_eager() -> None:
    latents, ids = batch(33, 4, 6)

    def run(latents: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        found = code_statistics(latents, ids, 6)
        return found.sums + found.counts[:, None]

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(latents, ids), run(latents, ids))


@pytest.mark.parametrize(
    ("latents", "ids", "codes", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), 4, "one id for each latent"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int32), 4, "ids of torch.int32"),
        (torch.zeros(3, 2).int(), torch.zeros(3, dtype=torch.int64), 4, "latents of torch.int32"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), 0, "num_codes=0"),
    ],
)
def test_misfits_are_refused(latents: torch.Tensor, ids: torch.Tensor, codes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        code_statistics(latents, ids, codes)


def test_an_id_beyond_the_codebook_fails() -> None:
    """The first bin takes the ids that are left out; a last one would have taken id K without a word."""
    with pytest.raises((IndexError, RuntimeError)):
        code_statistics(torch.zeros(1, 2), torch.tensor([4]), 4)


def one_hot_statistics(latents: torch.Tensor, ids: torch.Tensor, codes: int) -> torch.Tensor:
    """As vector-quantize-pytorch 1.32 has it in `track_cluster_size_and_embed_avg`."""
    one_hot = F.one_hot(ids, codes).to(latents.dtype)
    return torch.cat([one_hot.T @ latents, one_hot.sum(dim=0)[:, None]], dim=1)


def seconds(work: Callable[[], object]) -> float:
    def once() -> float:
        start = time.thread_time()
        work()
        return time.thread_time() - start

    return min(once() for _ in range(3))


def peak_bytes(work: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def test_a_hundred_times_faster_than_one_hot_in_the_memory_of_the_result(one_thread: None) -> None:
    """Measured 300 to 900 times; CPU time of one thread in one process, so the load does not matter much."""
    rows, dim, codes = 4096, 32, 4096
    latents, ids = batch(rows, dim, codes)
    ids = ids.clamp(min=0)
    ours = code_statistics(latents, ids, codes)
    theirs = one_hot_statistics(latents, ids, codes)
    torch.testing.assert_close(torch.cat([ours.sums, ours.counts[:, None]], dim=1), theirs)
    slow = seconds(lambda: one_hot_statistics(latents, ids, codes))
    fast = seconds(lambda: code_statistics(latents, ids, codes))
    assert slow > 100 * fast, f"{slow / fast:.0f} times"
    result = (codes + 1) * (dim + 1) * 4
    assert peak_bytes(lambda: code_statistics(latents, ids, codes)) < 2 * result + 16 * rows


def test_a_gradient_is_refused_not_lost() -> None:
    latents = torch.randn(6, 2, requires_grad=True)
    _, sums = statistics_op(latents, torch.zeros(6, dtype=torch.int64), 3, False)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        sums.sum().backward()
