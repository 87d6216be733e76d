"""Index backpropagation against the full softmax by autograd: value, gradient, memory; and its quantizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from tokenzoo.kernels import ibq
from tokenzoo.kernels.bench_measure import measure
from tokenzoo.kernels.ibq import (
    SoftAssignment,
    index_backpropagation,
    index_backpropagation_op,
    index_backpropagation_reference,
)
from tokenzoo.zoo.ibq import IndexBackpropagationQuantizer

NO_ENTROPIES = {"sample_entropy_weight": 0.0, "code_entropy_weight": 0.0}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def measured(assigned: SoftAssignment) -> tuple[Tensor, Tensor]:
    assert assigned.entropies is not None and assigned.mean is not None
    return assigned.entropies, assigned.mean


def weighted(assigned: SoftAssignment, *, quantized: bool = True, entropies: bool = True) -> Tensor:
    """A sum that weighs every element of the outputs differently."""
    loss = assigned.quantized.new_zeros(())
    if quantized:
        loss = loss + (assigned.quantized * draw(*assigned.quantized.shape, seed=7)).sum()
    if entropies:
        of_rows, mean = measured(assigned)
        loss = loss + (of_rows * draw(*of_rows.shape, seed=8)).sum()
        loss = loss + (mean * (mean + 1e-5).log() * draw(*mean.shape, seed=9)).sum()
    return loss


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 12),
    codes=st.integers(1, 20),
    dim=st.integers(1, 6),
    seed=st.integers(0, 999),
    temperature=st.sampled_from([0.05, 0.7, 3.0]),
    tile=st.sampled_from([1, 30, 1 << 18]),
    parts=st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_values_and_gradients_are_those_of_the_full_softmax(
    rows: int, codes: int, dim: int, seed: int, temperature: float, tile: int, parts: tuple[bool, bool]
) -> None:
    """In float64, for any size of tile: what the official model computes, to the last bits."""
    latents, codebook = draw(rows, dim, seed=seed), draw(codes, dim, seed=seed + 1)
    inputs = latents.requires_grad_(), codebook.requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ibq, "CPU_TILE_ELEMENTS", tile)
        found = index_backpropagation(*inputs, entropy_temperature=temperature)
        options = {"quantized": parts[0], "entropies": parts[1]}
        gradients = torch.autograd.grad(weighted(found, **options), inputs)
    expected = index_backpropagation_reference(*inputs, temperature)
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.quantized, codebook[found.ids])
    for ours, theirs in zip(measured(found), measured(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    reference = torch.autograd.grad(weighted(expected, **options), inputs)
    for ours, theirs in zip(gradients, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


def test_entropies_pass_gradcheck() -> None:
    """They are smooth; the quantized latents are not, so those are held to autograd above."""
    inputs = draw(5, 3).requires_grad_(), draw(7, 3, seed=1).requires_grad_()

    def smooth(latents: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        return measured(index_backpropagation(latents, codebook, entropy_temperature=0.8))

    assert torch.autograd.gradcheck(smooth, inputs)


def test_every_code_learns() -> None:
    codebook = draw(50, 4).requires_grad_()
    index_backpropagation(draw(3, 4, seed=1), codebook).quantized.sum().backward()
    assert codebook.grad is not None and bool((codebook.grad != 0).all())


def test_float32_is_as_exact_as_the_full_softmax() -> None:
    """At the official temperature, 0.01, where the logits reach hundreds and most probabilities underflow."""
    single = draw(64, 24, dtype=torch.float32), draw(300, 24, seed=1, dtype=torch.float32)
    double = [tensor.double().requires_grad_() for tensor in single]
    truth = torch.autograd.grad(weighted(index_backpropagation_reference(*double, 0.01)), double)
    inputs = [tensor.requires_grad_() for tensor in single]
    plain = torch.autograd.grad(weighted(index_backpropagation_reference(*inputs, 0.01)), inputs)
    ours = torch.autograd.grad(weighted(index_backpropagation(*inputs, entropy_temperature=0.01)), inputs)
    for found, other, exact in zip(ours, plain, truth, strict=True):
        error, usual = float((found - exact).norm()), float((other - exact).norm())
        assert error < 2 * usual and error < 1e-3 * float(exact.norm())


def test_products_are_full_whatever_the_user_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "medium" lets CPUs multiply in bfloat16 and GPUs in TF32; it is the user's again afterwards."""
    inputs = [draw(size, 64, seed=size, dtype=torch.float32).requires_grad_() for size in (200, 2000)]
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # pyright: ignore
    seen: set[object] = set()

    def tiles(latents: Tensor, codebook: Tensor) -> list[slice]:
        """Called where the products are; not every machine has others to offer."""
        seen.update(backend.fp32_precision for backend in backends)
        return [slice(0, 100), slice(100, 200)]

    def step() -> list[Tensor]:
        assigned = index_backpropagation(*inputs, entropy_temperature=0.01)
        return [*measured(assigned), *torch.autograd.grad(weighted(assigned), inputs)]

    monkeypatch.setattr(ibq, "_tiles", tiles)
    expected = step()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        seen.clear()
        assert all(map(torch.equal, step(), expected))
        assert seen == {"ieee"}
        assert torch.get_float32_matmul_precision() == "medium"
        assert [backend.fp32_precision for backend in backends] == ["tf32", "bf16"]
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_is_the_codebook_and_a_few_tiles() -> None:
    rows, codes, dim = 2048, 4096, 16
    latents, codebook = (draw(size, dim, dtype=torch.float32).requires_grad_() for size in (rows, codes))

    def step() -> None:
        assigned = index_backpropagation(latents, codebook, entropy_temperature=0.01)
        entropies, mean = measured(assigned)
        torch.autograd.grad(
            assigned.quantized.sum() + entropies.sum() + mean.square().sum(), (latents, codebook)
        )

    peak = measure({"": step}, "cpu", repeats=0)[""].peak_mib
    linear = (4 * rows * dim + 4 * codes * dim) * 4 / 2**20
    tiles = 8 * ibq.CPU_TILE_ELEMENTS * 4 / 2**20
    assert 0 < peak < linear + tiles < rows * codes * 4 / 2**20 / 2, peak


def test_extremes_are_finite() -> None:
    latents = torch.tensor([[300.0, 0.0], [0.0, 0.0], [-1e4, 1e-30]], requires_grad=True)
    codebook = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 1.0]], requires_grad=True)
    assigned = index_backpropagation(latents, codebook, entropy_temperature=0.01)
    assert assigned.ids.tolist() == [0, 0, 2], "ties go to the lowest index"
    entropies, mean = measured(assigned)
    torch.testing.assert_close(entropies, torch.tensor([2.0, 3.0, 1.0]).log(), rtol=0, atol=1e-5)
    torch.testing.assert_close(mean.sum(), torch.tensor(1.0))
    (assigned.quantized.sum() + entropies.sum() + (mean + 1e-5).log().sum()).backward()
    for gradient in (latents.grad, codebook.grad):
        assert gradient is not None and bool(gradient.isfinite().all())


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (4, 0, 3), (2, 5, 3)])
@pytest.mark.parametrize("codes", [1, 9])
def test_shapes(shape: tuple[int, ...], codes: int) -> None:
    latents = draw(*shape, dtype=torch.float32).requires_grad_()
    codebook = draw(codes, 3, dtype=torch.float32).requires_grad_()
    assigned = index_backpropagation(latents, codebook, entropy_temperature=1.0)
    entropies, mean = measured(assigned)
    assert assigned.quantized.shape == shape and assigned.ids.shape == entropies.shape == shape[:-1]
    assert mean.shape == (codes,) and bool(mean.isfinite().all())
    (assigned.quantized.sum() + entropies.sum() + mean.sum()).backward()
    assert latents.grad is not None and latents.grad.shape == shape
    bare = index_backpropagation(latents.to("meta"), codebook.to("meta"))
    assert bare.entropies is None and bare.mean is None and bare.quantized.shape == shape


# opcheck copies inputs with strides of their own, and then looks for the gradient of the copy.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_operator_is_well_registered() -> None:
    for latents in (draw(6, 4), draw(4, 6).T, draw(9, 8)[::2, ::2], draw(0, 4)):
        for temperature in (0.3, None):
            inputs = latents.detach().requires_grad_(), draw(5, 4, seed=1).requires_grad_(), temperature
            torch.library.opcheck(index_backpropagation_op, inputs)
    torch.library.opcheck(
        ibq.index_backpropagation_backward_op,
        (draw(6, 4), draw(5, 4, seed=1), torch.zeros(6, dtype=torch.int64), 0.5, draw(6, 4), None, draw(5)),
    )


def test_compiled_equals_eager() -> None:
    def step(latents: Tensor, codebook: Tensor) -> Tensor:
        assigned = index_backpropagation(latents, codebook, entropy_temperature=0.4)
        entropies, mean = measured(assigned)
        return assigned.quantized.square().sum() + entropies.square().sum() + mean.log().sum()

    inputs = draw(6, 3).requires_grad_(), draw(8, 3, seed=1).requires_grad_()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs), step(*inputs))
    for ours, theirs in zip(
        torch.autograd.grad(compiled(*inputs), inputs),
        torch.autograd.grad(step(*inputs), inputs),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_the_gradient_has_no_gradient() -> None:
    latents = draw(3, 2).requires_grad_()
    assigned = index_backpropagation(latents, draw(4, 2, seed=1).requires_grad_())
    (gradient,) = torch.autograd.grad(assigned.quantized.square().sum(), latents, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        gradient.sum().backward()


def test_misfits_are_refused() -> None:
    for latents, codebook, temperature, message in (
        (torch.zeros(2, 3), torch.zeros(4, 5), None, r"expected floats of shape \(\.\.\., 5\)"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(4, 3), None, "int64"),
        (torch.zeros(2, 3), torch.zeros(0, 3), None, "K >= 1"),
        (torch.zeros(2, 3), torch.zeros(4, 3), 0.0, "entropy_temperature=0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            index_backpropagation(latents, codebook, entropy_temperature=temperature)
    with pytest.raises(ValueError, match="at least 1 of each"):
        IndexBackpropagationQuantizer(0, 3)
    with pytest.raises(ValueError, match="entropy_floor=0"):
        IndexBackpropagationQuantizer(4, 3, entropy_floor=0)


def test_ids_are_the_official_ones() -> None:
    """Recorded from TencentARC/SEED-Voken by its own code, with the latents its encoder made."""
    fixture = load_file(Path(__file__).parent / "golden" / "quantizers" / "ibq.safetensors")
    quantizer = IndexBackpropagationQuantizer(*fixture["codebook"].shape)
    quantizer.load_state_dict({"codebook": fixture["codebook"].float()})
    quantized = quantizer(fixture["latents"])
    assert torch.equal(quantized.values, fixture["tokens"])
    assert torch.equal(quantizer.encode(fixture["latents"]), fixture["tokens"])
    assert torch.equal(quantized.latents, fixture["quantized"].float())


@pytest.mark.parametrize("l2", [False, True])
def test_loss_is_the_official_one(l2: bool) -> None:
    """The equations of SEED-Voken written out, entropies weighted as in its configurations."""
    torch.manual_seed(0)
    quantizer = IndexBackpropagationQuantizer(11, 4, l2=l2, entropy_temperature=0.1).double()
    latents = draw(2, 5, 4).requires_grad_()
    quantized = quantizer(latents)
    inputs = latents, quantizer.codebook
    found = torch.autograd.grad(quantized.loss + weighted_latents(quantized.latents), inputs)

    z, codebook = inputs
    if l2:
        z, codebook = F.normalize(z, dim=-1), F.normalize(codebook, dim=-1)
    logits = z @ codebook.T
    hard = F.one_hot(logits.argmax(-1), 11).double()
    soft = logits.softmax(-1)
    q, code = (hard - soft.detach() + soft) @ codebook, hard @ codebook
    loss = (
        ((q - z) ** 2).mean() + ((code.detach() - z) ** 2).mean() + 0.25 * ((code - z.detach()) ** 2).mean()
    )
    p, logs = (logits / 0.1).softmax(-1), (logits / 0.1).log_softmax(-1)
    mean = p.mean((0, 1))
    loss = loss - 0.05 * (p * logs).sum(-1).mean() + 0.05 * (mean * (mean + 1e-5).log()).sum()
    torch.testing.assert_close(quantized.loss, loss)
    for ours, theirs in zip(found, torch.autograd.grad(loss + weighted_latents(q), inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def weighted_latents(latents: Tensor) -> Tensor:
    return (latents * draw(*latents.shape, seed=3)).sum()


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [{}, {"l2": True}, NO_ENTROPIES])
def test_decode_is_what_training_saw(given: torch.dtype, dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Bit for bit, under autocast too, for latents and codebooks of any dtype."""
    torch.manual_seed(0)
    quantizer = IndexBackpropagationQuantizer(37, 6, **options).to(dtype)
    latents = draw(3, 50, 6).to(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized = quantizer(latents)
        values = quantizer.encode(latents)
        decoded = quantizer.decode(values)
    assert torch.equal(quantized.values, values) and torch.equal(quantized.latents, decoded)
    assert torch.equal(values, quantizer.encode(latents))
    assert quantized.latents.dtype == decoded.dtype == torch.promote_types(dtype, torch.float32)
    assert quantized.loss.dtype == torch.promote_types(decoded.dtype, given)
    assert torch.equal(quantized.usage, torch.bincount(values.flatten(), minlength=37))
    assert torch.equal(quantizer.decode(torch.tensor([-1])), torch.zeros(1, 6, dtype=decoded.dtype))


def test_the_mean_is_taken_over_ranks_before_its_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training only, and also by a rank without rows: the others would wait for it."""
    calls: list[int] = []

    def other_rank(mean: Tensor, rows: int) -> Tensor:
        calls.append(rows)
        return torch.full_like(mean, 1 / len(mean))

    monkeypatch.setattr("tokenzoo.zoo.ibq.mean_over_ranks", other_rank)
    quantizer = IndexBackpropagationQuantizer(
        8, 3, sample_entropy_weight=0.0, code_entropy_weight=1.0, commitment_weight=0.0
    )
    training = quantizer(torch.zeros(0, 3)).loss
    quantizer(torch.zeros(5, 3))
    assert calls == [0, 5]
    torch.testing.assert_close(training, -torch.tensor(8.0).log(), rtol=0, atol=2e-4)
    assert quantizer.eval()(torch.zeros(0, 3)).loss.item() == 0 and len(calls) == 2


def test_a_rank_without_rows_has_no_loss() -> None:
    quantized = IndexBackpropagationQuantizer(5, 3)(torch.zeros(0, 3, requires_grad=True))
    quantized.loss.backward()
    assert quantized.loss.item() == 0
