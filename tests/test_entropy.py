"""Entropies of factorised codebooks against a full softmax in float64: value, gradient, ranks, precision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenzoo.kernels import entropy
from tokenzoo.kernels.entropy import (
    binary_code_entropy,
    bit_entropy,
    code_entropy,
    joint_mean,
    joint_mean_op,
)
from tokenzoo.kernels.paths import using
from tokenzoo.kernels.precision import full_products


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


def all_signs(dim: int) -> Tensor:
    """Every corner of {-1, 1}^dim, float64 (2**dim, dim)."""
    codes = torch.arange(2**dim)[:, None] >> torch.arange(dim - 1, -1, -1) & 1
    return codes.double() * 2 - 1


def full_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean entropy of the rows and entropy of the mean, over all 2**d codes at once, from logits of bits."""
    logs = torch.log_softmax(logits @ all_signs(logits.shape[1]).T / 2, dim=1)
    mean = logs.exp().mean(dim=0)
    return -(logs.exp() * logs).sum(dim=1).mean(), torch.special.entr(mean).sum()


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 9),
    bits=st.integers(1, 9),
    seed=st.integers(0, 999),
    scale=st.sampled_from([0.1, 2, 9]),
)
def test_value_and_gradient_of_the_full_softmax(rows: int, bits: int, seed: int, scale: float) -> None:
    logits = draw(rows, bits, seed=seed, scale=scale).requires_grad_()
    sure, used = full_softmax(logits)
    expected = torch.autograd.grad(sure - 0.7 * used, logits)[0]
    torch.testing.assert_close(bit_entropy(logits).mean(), sure, rtol=0, atol=1e-13)
    torch.testing.assert_close(binary_code_entropy(logits), used, rtol=0, atol=1e-13)
    found = torch.autograd.grad(bit_entropy(logits).mean() - 0.7 * binary_code_entropy(logits), logits)[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bits", [14, 16])
def test_large_codebooks(bits: int) -> None:
    """What VQP's LFQ spreads over 2**14 and 2**16 codes, here in float32 against float64."""
    logits = draw(24, bits, scale=4).requires_grad_()
    sure, used = full_softmax(logits)
    expected = torch.autograd.grad(sure - used, logits)[0]
    single = logits.detach().float().requires_grad_()
    found = bit_entropy(single).mean() - binary_code_entropy(single)
    torch.testing.assert_close(found.double(), sure - used, rtol=0, atol=5e-6)
    gradient = torch.autograd.grad(found, single)[0].double()
    assert float((gradient - expected).norm() / expected.norm()) < 3e-5


@pytest.mark.parametrize("sizes", [(5,), (8, 5), (2, 3, 4), (3, 1, 2, 7), (8, 8, 8, 5, 5)])
def test_any_levels(sizes: tuple[int, ...]) -> None:
    logits = [draw(6, size, seed=size + place).requires_grad_() for place, size in enumerate(sizes)]
    joint = torch.ones(6, 1, dtype=torch.float64)
    for digit in logits:
        joint = (joint[:, :, None] * digit.softmax(dim=1)[:, None, :]).flatten(1)
    expected = torch.special.entr(joint.mean(dim=0)).sum()
    found = code_entropy([digit.softmax(dim=1) for digit in logits])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(joint_mean([digit.log_softmax(dim=1) for digit in logits]), joint.mean(dim=0))
    for ours, theirs in zip(
        torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_leading_axes_are_rows() -> None:
    digits = [draw(2, 3, size).softmax(dim=-1) for size in (4, 3)]
    assert torch.equal(code_entropy(digits), code_entropy([digit.flatten(0, 1) for digit in digits]))
    logits = draw(2, 3, 5)
    assert torch.equal(binary_code_entropy(logits), binary_code_entropy(logits.flatten(0, 1)))
    assert bit_entropy(logits).shape == (2, 3)


def test_joint_is_below_the_groups_and_they_below_the_bits() -> None:
    """They are different numbers: rows that agree on pairs of bits use few codes, but every single bit."""
    logits = torch.tensor([[9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, -9.0]], dtype=torch.float64)
    joint = binary_code_entropy(logits)
    pairs = sum(binary_code_entropy(pair) for pair in logits.split(2, dim=1))
    bits = sum(binary_code_entropy(bit) for bit in logits.split(1, dim=1))
    torch.testing.assert_close(
        torch.stack([joint, pairs, bits]) / math.log(2),
        torch.tensor([1.0, 2, 4], dtype=torch.float64),
        rtol=0,
        atol=0.02,
    )


def test_extremes_are_finite() -> None:
    """Logits of LFQ reach hundreds: probabilities underflow, and no gradient may be NaN."""
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor([[800.0, -800, 0], [-90, 3e4, 1e-30]], dtype=dtype).requires_grad_()
        (bit_entropy(logits).mean() - binary_code_entropy(logits)).backward()
        assert logits.grad is not None and bool(logits.grad.isfinite().all())
    assert bit_entropy(torch.tensor([[1e4, -1e4]])).item() == 0
    torch.testing.assert_close(bit_entropy(torch.zeros(1, 3)), torch.tensor([3 * math.log(2)]))
    hard = torch.eye(4, dtype=torch.float64)[[0, 1, 1, 3]].requires_grad_()
    value = code_entropy([hard, hard])
    torch.testing.assert_close(value.item(), 1.5 * math.log(2))
    assert bool(torch.autograd.grad(value, hard)[0].isfinite().all())


def test_more_codes_used_is_more_entropy() -> None:
    """The sign of the diversity term, by perturbation: moving one of two equal rows away must raise it."""
    alike = torch.tensor([[2.0, 2.0], [2.0, 2.0]])
    assert binary_code_entropy(alike + torch.tensor([[0.0, 0], [-1, -1]])) > binary_code_entropy(alike)


def test_without_rows() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    value = binary_code_entropy(logits)
    assert value.item() == 0
    value.backward()
    assert logits.grad is not None and logits.grad.shape == (0, 5)
    assert bit_entropy(logits).shape == (0,)


def test_ranks_average_before_the_logarithm() -> None:
    """Two ranks in one process: each hands over its mean, and gets that of both."""
    logits = draw(6, 4)
    halves = logits.chunk(2)
    means: list[Tensor] = []

    def record(mean: Tensor) -> Tensor:
        means.append(mean)
        return mean

    for half in halves:
        binary_code_entropy(half, reduce=record)
    found = binary_code_entropy(halves[0], reduce=lambda mean: (mean + means[1]) / 2)
    torch.testing.assert_close(found, binary_code_entropy(logits))
    assert [mean.shape for mean in means] == [(16,), (16,)]


def test_float32_under_autocast_and_from_bfloat16() -> None:
    logits = draw(40, 6, dtype=torch.float32).bfloat16()
    expected = binary_code_entropy(logits.float())
    assert binary_code_entropy(logits).dtype == torch.float32
    assert torch.equal(binary_code_entropy(logits), expected)
    wide = logits.float().requires_grad_()
    plain = torch.autograd.grad(binary_code_entropy(wide), wide)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(binary_code_entropy(logits), expected)
        assert torch.equal(bit_entropy(logits), bit_entropy(logits.float()))
        digits = [logits.float().softmax(dim=1)] * 2
        assert code_entropy(digits).dtype == torch.float32
        assert torch.equal(torch.autograd.grad(binary_code_entropy(wide), wide)[0], plain)


def test_products_are_full_whatever_the_user_allows() -> None:
    """TF32 would leave a log-probability three digits. The setting is the user's again afterwards."""
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    try:
        backend.fp32_precision = "tf32"
        with full_products():
            assert backend.fp32_precision == "ieee"
        binary_code_entropy(draw(4, 3))
        assert backend.fp32_precision == "tf32"
    finally:
        backend.fp32_precision = before


def test_no_matrix_of_rows_by_codes() -> None:
    """2**18 codes and 256 rows would be 256 MiB; the largest tensor of both passes has 2**18 elements."""
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(result):
                largest = max(largest, tensor.numel() if isinstance(tensor, Tensor) else 0)
            return result

    logits = draw(256, 18, dtype=torch.float32).requires_grad_()
    with Sizes():
        binary_code_entropy(logits).backward()
    assert 2**18 <= largest <= 2**18 + 1


class TestOperator:
    # What opcheck copies is no leaf, and it looks for its gradient.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_opcheck(self) -> None:
        for rows, sizes in ((5, [2, 3, 2]), (0, [2, 2]), (1, [1]), (4, [6])):
            digits = torch.cat([draw(rows, size).log_softmax(dim=1) for size in sizes], dim=1)
            torch.library.opcheck(joint_mean_op, (digits.requires_grad_(), sizes))
        slices = draw(4, 20)[:, ::2].log_softmax(dim=1).T.contiguous().T
        torch.library.opcheck(joint_mean_op, (slices.requires_grad_(), [4, 6]))
        gradient, digits = draw(12), draw(5, 7).log_softmax(dim=1)
        torch.library.opcheck(entropy.joint_mean_backward_op, (gradient, digits, [4, 3]))

    def test_gradcheck(self) -> None:
        logits = draw(3, 5, scale=2).requires_grad_()
        assert torch.autograd.gradcheck(binary_code_entropy, logits)
        assert torch.autograd.gradcheck(bit_entropy, logits)
        digits = [draw(3, size, seed=size).softmax(dim=1).requires_grad_() for size in (2, 4, 3)]
        assert torch.autograd.gradcheck(lambda *digits: code_entropy(digits), digits)

    def test_reference_path(self) -> None:
        digits = [draw(4, size).log_softmax(dim=1) for size in (3, 2, 5)]
        with using("reference"):
            expected = joint_mean(digits)
        torch.testing.assert_close(joint_mean(digits), expected, rtol=1e-12, atol=1e-14)

    def test_compiled_whole(self) -> None:
        def loss(logits: Tensor) -> Tensor:
            return bit_entropy(logits).mean() - binary_code_entropy(logits)

        eager, compiled = (draw(6, 7).requires_grad_() for _ in range(2))
        torch.compile(loss, backend="aot_eager", fullgraph=True)(compiled).backward()
        loss(eager).backward()
        torch.testing.assert_close(compiled.grad, eager.grad, rtol=1e-12, atol=1e-14)

    def test_meta_device(self) -> None:
        assert binary_code_entropy(torch.zeros(3, 4, device="meta")).shape == ()
        assert joint_mean([torch.zeros(3, 4, device="meta")] * 2).shape == (16,)


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        ([], "at least one digit"),
        ([torch.zeros(2, 3, dtype=torch.int64)], "floats"),
        ([torch.zeros(2, 3), torch.zeros(3, 3)], r"\(2, 3\), \(3, 3\).*same rows"),
        (
            [torch.zeros(1, 2)] * 27,
            "134217728 joint codes; expected 1 ... 67108864: sum the entropies of groups",
        ),
        ([torch.zeros(1, 0)], "0 joint codes"),
    ],
)
def test_misfits_are_refused(digits: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        code_entropy(digits)
    with pytest.raises(ValueError, match=message):
        joint_mean(digits)


def test_too_many_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of digits"):
        binary_code_entropy(torch.zeros(1, 27))
