"""Residual stages of any kind: agreement bit for bit, prefixes, gradients, fused search."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tokenzoo.zoo import residual_quantizer
from tokenzoo.zoo.ema_quantizer import EMAVectorQuantizer
from tokenzoo.zoo.fsq import FiniteScalarQuantizer
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.grouped_quantizer import GroupedQuantizer
from tokenzoo.zoo.projected import ProjectedQuantizer
from tokenzoo.zoo.quantizer import Quantizer
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

from .agreement import check_agreement, draw, randomized, same_bits

DIM = 4


def plain(num_stages: int = 3, num_codes: int = 11, **options: bool) -> ResidualQuantizer:
    return ResidualQuantizer([VectorQuantizer(num_codes, DIM) for _ in range(num_stages)], **options)


def factorised(num_stages: int = 3) -> ResidualQuantizer:
    """As DAC has it: each stage searches directions in few dimensions."""
    stages = [ProjectedQuantizer(VectorQuantizer(11, 2, l2=True), DIM) for _ in range(num_stages)]
    return ResidualQuantizer(stages, detached=False)


QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "plain": plain,
    "running means": lambda: ResidualQuantizer([EMAVectorQuantizer(11, DIM) for _ in range(3)]),
    "shared": lambda: ResidualQuantizer([VectorQuantizer(11, DIM)], repeats=3),
    "single": lambda: plain(1),
    "factorised": factorised,
    "unlike sizes": lambda: ResidualQuantizer([VectorQuantizer(3, DIM), VectorQuantizer(9, DIM, l2=True)]),
    "scalar": lambda: ResidualQuantizer([VectorQuantizer(5, DIM), FiniteScalarQuantizer((5, 3, 3, 2))]),
    "grouped stages": lambda: ResidualQuantizer([GroupedQuantizer([VectorQuantizer(7, 2)], repeats=2)] * 2),
    "nested": lambda: ResidualQuantizer([plain(2), VectorQuantizer(9, DIM)]),
}


@pytest.mark.parametrize("name", QUANTIZERS)
@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(), (7,), (2, 9), (2, 3, 4), (0,), (3, 0)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    autocast=st.booleans(),
)
def test_forward_is_decode_of_encode(
    name: str, seed: int, shape: tuple[int, ...], dtype: torch.dtype, scale: float, autocast: bool
) -> None:
    quantizer = randomized(QUANTIZERS[name]())
    check_agreement(quantizer, draw(*shape, DIM, seed=seed, scale=scale).to(dtype), autocast=autocast)


def test_codes_are_subtracted_one_after_the_other() -> None:
    """Two stages by hand: 1.0 leaves 0.4 of 1.4, for which 0.5 is nearest."""
    quantizer = ResidualQuantizer([VectorQuantizer(2, 1), VectorQuantizer(2, 1)])
    for stage, codes in zip(quantizer.stages, ([[-1.0], [1.0]], [[-0.5], [0.5]]), strict=True):
        stage.load_state_dict({"codebook": torch.tensor(codes)})
    quantized = quantizer(torch.tensor([[1.4], [-0.7]]))
    assert quantized.values.tolist() == [[1, 1], [0, 1]]
    assert quantized.latents.tolist() == [[1.5], [-0.5]]
    assert quantized.usage.tolist() == [[1, 1], [0, 2]]
    # (1 + 0.25) * (0.16 + 0.09) / 2 + (1 + 0.25) * (0.01 + 0.04) / 2
    torch.testing.assert_close(quantized.loss, torch.tensor(1.25 * 0.25 / 2 + 1.25 * 0.05 / 2))
    assert quantizer.decode(torch.tensor([[-1, 0], [1, -1]])).tolist() == [[-0.5], [1.0]]


@pytest.mark.parametrize("name", ["plain", "unlike sizes", "scalar"])
def test_codes_that_an_optimizer_learns_agree_in_training_too(name: str) -> None:
    quantizer = randomized(QUANTIZERS[name]()).train()
    check_agreement(quantizer, draw(4, 5, DIM), autocast=True)
    check_agreement(quantizer, draw(3, 5, DIM), autocast=True, lengths=torch.tensor([0, 1, 2]))


def test_running_means_return_the_codes_they_chose_and_move_afterwards() -> None:
    torch.manual_seed(0)
    quantizer, latents = ResidualQuantizer([EMAVectorQuantizer(11, DIM) for _ in range(3)]), draw(40, DIM)
    expected = quantizer.decode(quantizer.encode(latents))
    quantized = quantizer(latents)
    assert same_bits(quantized.latents, expected)
    assert not torch.equal(quantizer.decode(quantized.values), expected)


def test_codebooks_in_bfloat16_compute_in_float32() -> None:
    quantizer = randomized(plain()).to(torch.bfloat16)
    quantized = check_agreement(quantizer, draw(4, 5, DIM), autocast=False)
    assert quantized.latents.dtype == torch.float32
    widened = randomized(plain()).to(torch.bfloat16).float()
    assert torch.equal(quantized.latents, widened(draw(4, 5, DIM)).latents)


def test_meta_device() -> None:
    quantizer = plain().to("meta")
    values = quantizer.encode(draw(2, 5, DIM).to("meta"))
    assert values.shape == (2, 5, 3) and quantizer.decode(values).shape == (2, 5, DIM)


def test_gradient_passes_once_and_every_stage_pulls() -> None:
    quantizer, upstream = randomized(plain(4)), draw(7, DIM, seed=1)
    latents = draw(7, DIM).requires_grad_()
    quantized = quantizer(latents)
    (gradient,) = torch.autograd.grad((quantized.latents * upstream).sum(), latents, retain_graph=True)
    assert torch.equal(gradient, upstream)

    (gradient,) = torch.autograd.grad(quantized.loss, latents)
    residual, expected = latents.detach(), torch.zeros(7, DIM)
    for stage, (_, codebook) in enumerate(quantizer.named_parameters()):
        residual = residual - codebook.detach()[quantized.values[:, stage]]
        expected += 0.25 * 2 * residual / residual.numel()
    torch.testing.assert_close(gradient, expected)


def test_gradients_through_the_codes_are_those_of_dac() -> None:
    """Against the equations of descript-audio-codec, dac/nn/quantize.py, with the trick that rounds."""
    quantizer, upstream = randomized(factorised()), draw(5, DIM, seed=1)
    latents = draw(5, DIM).requires_grad_()
    quantized = quantizer(latents)
    ((quantized.latents * upstream).sum() + quantized.loss).backward()

    copies = {name: each.detach().clone().requires_grad_() for name, each in quantizer.named_parameters()}
    reference = latents.detach().clone().requires_grad_()
    residual, total, loss = reference, torch.zeros(()), torch.zeros(())
    for stage in range(3):
        weight = {name[9:]: each for name, each in copies.items() if name.startswith(f"stages.{stage}.")}
        narrow = F.linear(residual, weight["project_in.weight"], weight["project_in.bias"])
        ids = torch.cdist(F.normalize(narrow), F.normalize(weight["inner.codebook"])).argmin(dim=1)
        assert torch.equal(ids, quantized.values[:, stage])
        codes = weight["inner.codebook"][ids]
        loss = loss + 0.25 * F.mse_loss(narrow, codes.detach()) + F.mse_loss(codes, narrow.detach())
        through = narrow + (codes - narrow).detach()
        out = F.linear(through, weight["project_out.weight"], weight["project_out.bias"])
        residual, total = residual - out, total + out
    torch.testing.assert_close(quantized.loss, loss)
    ((total * upstream).sum() + loss).backward()
    torch.testing.assert_close(latents.grad, reference.grad)
    for name, parameter in quantizer.named_parameters():
        torch.testing.assert_close(parameter.grad, copies[name].grad, msg=name)


def test_a_shared_codebook_is_stored_once() -> None:
    quantizer = randomized(QUANTIZERS["shared"]())
    assert list(quantizer.state_dict()) == ["stages.0.codebook"]
    assert quantizer.codebook_sizes == (11, 11, 11)
    latents = draw(9, DIM)
    (codebook,) = quantizer.parameters()
    expected = ResidualQuantizer([VectorQuantizer(11, DIM) for _ in range(3)]).eval()
    for stage in expected.stages:
        stage.load_state_dict({"codebook": codebook})
    assert torch.equal(quantizer.encode(latents), expected.encode(latents))


@pytest.mark.parametrize("sizes", [(11, 11, 11), (11, 7, 11)])
def test_the_fused_search_finds_the_same_ids(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]) -> None:
    quantizer = randomized(ResidualQuantizer([VectorQuantizer(size, DIM) for size in sizes]))
    assert isinstance(quantizer, ResidualQuantizer)
    latents, calls = draw(2, 30, DIM), []
    fused = residual_quantizer.residual_codes
    monkeypatch.setattr(residual_quantizer, "residual_codes", lambda *each: calls.append(1) or fused(*each))
    values = quantizer(latents).values
    assert not calls and torch.equal(quantizer.encode(latents), values)
    assert torch.equal(quantizer.encode(latents, keep=2), values[..., :2])
    assert len(calls) == (2 if len(set(sizes)) == 1 else 0)


def test_stages_that_are_more_than_a_search_are_not_fused() -> None:
    stages = [VectorQuantizer(11, DIM), VectorQuantizer(11, DIM, l2=True)]
    quantizer, latents = randomized(ResidualQuantizer(stages)), draw(20, DIM)
    assert torch.equal(quantizer.encode(latents), quantizer(latents).values)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch 2.11 itself
def test_compiled_is_eager() -> None:
    quantizer, latents = randomized(plain()), draw(6, DIM)
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    eager, traced = quantizer(latents), compiled(latents)
    assert torch.equal(traced.values, eager.values) and torch.equal(traced.latents, eager.latents)
    assert torch.equal(traced.loss, eager.loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualQuantizer([]), "0 stages of widths"),
        (lambda: ResidualQuantizer([VectorQuantizer(3, 4), VectorQuantizer(3, 5)]), r"widths \[4, 5\]"),
        (lambda: ResidualQuantizer([VectorQuantizer(3, 4)], repeats=0), "walked through 0 times"),
        (lambda: ResidualQuantizer([Continuous()]), "Continuous is continuous"),
    ],
)
def test_impossible_stages_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class Continuous(GaussianPosterior):
    def __init__(self) -> None:
        super().__init__(DIM)
        self.dim_in = DIM


def test_counts_that_end_inside_a_stage_are_refused() -> None:
    quantizer = QUANTIZERS["grouped stages"]()
    for refused in (
        lambda: quantizer.decode(torch.zeros(5, 3, dtype=torch.int64)),
        lambda: quantizer.encode(draw(5, DIM), keep=1),  # pyright: ignore[reportCallIssue]
    ):
        with pytest.raises(ValueError, match=r"expected one of \(2, 4\)"):
            refused()
    with pytest.raises(ValueError, match=rf"\(\.\.\., {DIM}\)"):
        quantizer.encode(draw(5, DIM + 1))
