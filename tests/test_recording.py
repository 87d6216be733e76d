"""Operators are called as such wherever something follows what is done, and only there."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from tokenzoo.kernels.recording import is_recorded
from tokenzoo.kernels.residual import residual_codes
from tokenzoo.kernels.statistics import code_statistics
from tokenzoo.kernels.vq import nearest_code


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
