"""Operators are called as such wherever something follows what is done, and only there."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from tokenzoo.kernels.paths import Path, using
from tokenzoo.kernels.recording import is_recorded
from tokenzoo.kernels.residual import residual_codes
from tokenzoo.kernels.statistics import code_statistics
from tokenzoo.kernels.vq import nearest, nearest_code


def test_who_listens() -> None:
    rows = torch.zeros(2, 3)
    assert not is_recorded(rows, torch.nn.Parameter(rows, requires_grad=False))
    learning = torch.zeros(2, 3, requires_grad=True)
    assert is_recorded(rows, learning)
    with torch.no_grad():
        assert not is_recorded(rows, learning)
    assert is_recorded(torch.zeros(2, device="meta"))
    with FlopCounterMode(display=False):
        assert is_recorded(rows)
    assert is_recorded(rows.as_subclass(type("Special", (Tensor,), {})))
    with torch.device("cpu"):  # a mode, too
        assert is_recorded(rows)
    with forward_ad.dual_level():
        assert is_recorded(rows)
    seen: list[bool] = []
    torch.vmap(lambda row: seen.append(is_recorded(row)) or row)(rows)
    assert seen == [True]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("path", ["reference", "torch"])
def test_transforms_see_the_operators(path: Path) -> None:
    latents, codebook = torch.randn(3, 5, 4), torch.randn(7, 4)
    with using(path):
        ids = torch.vmap(lambda rows: nearest_code(rows, codebook))(latents)
        assert torch.equal(ids, nearest_code(latents, codebook))
        sums = torch.vmap(lambda rows, ids: code_statistics(rows, ids, 7).sums)(latents, ids)
        expected = [code_statistics(rows, found, 7).sums for rows, found in zip(latents, ids, strict=True)]
        assert torch.equal(sums, torch.stack(expected))


def test_another_default_device_does_not_matter() -> None:
    """Enough codes for the search that is certified in bfloat16, where the processor has it."""
    latents, codebook = torch.randn(600, 8), torch.randn(4096, 8)
    expected = nearest_code(latents, codebook)
    with torch.device("meta"):
        assert torch.equal(nearest_code(latents, codebook), expected)
        assert torch.equal(nearest(latents, codebook, "euclidean"), expected)


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_a_traced_graph_holds_the_operators(mode: str) -> None:
    latents, codebook = torch.randn(5, 4), torch.randn(7, 4)

    def run(latents: Tensor, codebook: Tensor) -> Tensor:
        ids = nearest_code(latents, codebook)
        sums = code_statistics(latents, ids, 7).sums
        return sums.sum() + residual_codes(latents, codebook[None]).quantized.sum()

    graph = make_fx(run, tracing_mode=mode)(latents, codebook)
    called = {str(node.target) for node in graph.graph.nodes if "tokenzoo" in str(node.target)}
    assert called == {
        "tokenzoo.nearest_code.default",
        "tokenzoo.code_statistics.default",
        "tokenzoo.residual_codes.default",
    }
    assert torch.equal(graph(latents, codebook), run(latents, codebook))


def test_a_gradient_still_comes_through_the_operator() -> None:
    latents = torch.randn(5, 4, requires_grad=True)
    residual_codes(latents, torch.randn(2, 7, 4)).quantized.sum().backward()
    assert torch.equal(latents.grad, torch.ones(5, 4))
