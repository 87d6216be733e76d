"""The nearest-code search against a plain loop, on ties, dtypes, blocks and under autocast."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.kernels import vq
from tokenzoo.kernels.vq import nearest_code


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(0, 9),
    codes=st.integers(1, 17),
    dim=st.integers(1, 8),
    seed=st.integers(0, 1000),
    block=st.sampled_from([1, 3, 16, 1 << 24]),
)
def test_nearest_is_nearest(rows: int, codes: int, dim: int, seed: int, block: int) -> None:
    """In float64 and for any size of block the answer is the least distance."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    codebook = torch.randn(codes, dim, generator=generator, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vq, "MAX_BLOCK_ELEMENTS", block)
        found = nearest_code(latents, codebook)
    expected = [int(((row - codebook) ** 2).sum(dim=1).argmin()) for row in latents]
    assert found.tolist() == expected


@pytest.mark.parametrize("block", [1, 2, 5, 1 << 24])
def test_ties_go_to_the_lowest_index(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(vq, "MAX_BLOCK_ELEMENTS", block)
    codebook = torch.tensor([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    latents = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -5.0], [2.0, 0.0]])
    assert nearest_code(latents, codebook).tolist() == [1, 1, 1, 0]
    assert nearest_code(torch.zeros(4, 3, 2), torch.zeros(6, 2)).tolist() == [[0] * 3] * 4


def test_no_block_holds_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vq, "MAX_BLOCK_ELEMENTS", 64)
    sizes: list[int] = []
    matmul = torch.Tensor.__matmul__

    def recorded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = matmul(left, right)
        sizes.append(product.numel())
        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", recorded)
    nearest_code(torch.randn(50, 4), torch.randn(20, 4))
    assert max(sizes) <= 64 and sum(sizes) == 50 * 20


def test_float32_under_autocast() -> None:
    """Two codes that bfloat16 cannot tell apart."""
    codebook = torch.tensor([[1.0, 1.0], [1.01, 1.0]])
    latents = torch.tensor([[1.01, 1.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest_code(latents, codebook).item() == 1


def test_float64_stays_float64() -> None:
    codebook = torch.tensor([[1.0], [1.0 + 1e-6]], dtype=torch.float64)
    assert nearest_code(torch.tensor([[1.0 + 1e-6]], dtype=torch.float64), codebook).item() == 1


def test_low_precision_inputs_are_widened() -> None:
    latents = torch.randn(64, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    codebook = torch.randn(40, 12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(nearest_code(latents, codebook), nearest_code(latents.float(), codebook))


def test_shapes_and_meta_device() -> None:
    assert nearest_code(torch.randn(2, 5, 3, 8), torch.randn(4, 8)).shape == (2, 5, 3)
    assert nearest_code(torch.randn(8), torch.randn(4, 8)).shape == ()
    meta = nearest_code(torch.randn(2, 8, device="meta"), torch.randn(4, 8, device="meta"))
    assert meta.shape == (2,) and meta.dtype == torch.int64


@pytest.mark.parametrize(
    ("latents", "codebook", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 5), r"\(2, 3\).*\(4, 5\).*last axis"),
        (torch.zeros(2, 3), torch.zeros(0, 3), "K >= 1"),
        (torch.zeros(2, 3), torch.zeros(3), r"expected \(K, D\)"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(4, 3), "latents of dtype torch.int64"),
    ],
)
def test_misfits_are_refused(latents: torch.Tensor, codebook: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_code(latents, codebook)
