"""Scalar quantize-and-pack against its reference: ties, huge codebooks, odd numbers, dtypes, compilers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenzoo.kernels import scalar
from tokenzoo.kernels.digits import pack_digits, unpack_digits
from tokenzoo.kernels.paths import using
from tokenzoo.kernels.scalar import (
    bound_levels,
    level_values,
    quantize_bins,
    quantize_levels,
    quantize_signs,
    sign_values,
)

RULES = [(symmetric, clamp) for symmetric in (False, True) for clamp in (False, True)]


def draw(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


@settings(deadline=None, max_examples=40)
@given(
    levels=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    rows=st.sampled_from([0, 1, 5, 16, 48]),
    seed=st.integers(0, 999),
    rule=st.sampled_from(RULES),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    epsilon=st.sampled_from([1e-3, -1e-3, 0.3]),
)
def test_levels_are_those_of_the_reference(
    levels: list[int], rows: int, seed: int, rule: tuple[bool, bool], dtype: torch.dtype, epsilon: float
) -> None:
    symmetric, clamp = rule
    latents = draw(rows, len(levels), seed=seed, scale=2).to(dtype)
    found = quantize_levels(latents, levels, epsilon=epsilon, symmetric=symmetric, clamp=clamp)
    with using("reference"):
        expected = quantize_levels(latents, levels, epsilon=epsilon, symmetric=symmetric, clamp=clamp)
    assert torch.equal(found.ids, expected.ids)
    assert same_bits(found.values, expected.values), "bits: there is no negative zero"
    assert same_bits(found.values, level_values(found.ids, levels, symmetric=symmetric))
    assert bool(((found.ids >= 0) & (found.ids < math.prod(levels))).all())
    assert found.values.dtype == torch.float32 and bool((found.values.abs() <= 1).all())
    ids = torch.randint(math.prod(levels), (50,), generator=torch.Generator().manual_seed(seed))
    assert bool((level_values(ids, levels, symmetric=symmetric).abs() <= 1).all())


@pytest.mark.parametrize("sizes", [(8,) * 9, (8,) * 20 + (4,), (2,) * 62, (5,) * 26, (2**24, 2**24, 2**14)])
@pytest.mark.parametrize("high_first", [False, True])
def test_packing_is_exact_in_int64(sizes: tuple[int, ...], high_first: bool) -> None:
    """Against Python's integers."""
    limit = torch.tensor(sizes)
    digits = (torch.rand(64, len(sizes), generator=torch.Generator().manual_seed(0)) * limit).floor()
    digits = torch.cat([digits.minimum((limit - 1).float() // 2), (limit - 1).clamp(max=2**24)[None].float()])
    order = list(sizes)[::-1] if high_first else list(sizes)
    expected = []
    for row in digits.tolist():
        place, total = 1, 0
        for digit, size in zip(row[::-1] if high_first else row, order, strict=True):
            total, place = total + int(digit) * place, place * size
        expected.append(total)
    ids = pack_digits(digits, sizes, high_first=high_first)
    assert ids.tolist() == expected
    assert torch.equal(unpack_digits(ids, sizes, high_first=high_first), digits.long())


@pytest.mark.parametrize("levels", [(8,) * 9, (8,) * 20 + (4,), (3,) * 39, (7, 2) * 8])
def test_ids_beyond_the_integers_of_float32_come_back(levels: tuple[int, ...]) -> None:
    """What `x -> id -> values -> x` gives; a float32 sum of digits gets 3 of 4 ids of 8**9 wrong."""
    latents = draw(500, len(levels), scale=2)
    codes = quantize_levels(latents, levels)
    centre = torch.tensor(levels) // 2
    digits = (codes.values.double() * centre).round().long() + centre
    rebuilt = [
        sum(digit * math.prod(levels[:place]) for place, digit in enumerate(row)) for row in digits.tolist()
    ]
    assert codes.ids.tolist() == rebuilt
    assert int(codes.ids.max()) > 2**24


@pytest.mark.parametrize("rule", RULES)
def test_level_gradient_is_that_of_the_squashing(rule: tuple[bool, bool]) -> None:
    """Against autograd through the bound, over the centre: the rounding is skipped."""
    symmetric, clamp = rule
    levels = (8, 5, 3, 2)
    latents = draw(7, 4, dtype=torch.float64).requires_grad_()
    weights = draw(7, 4, seed=1)
    values = quantize_levels(latents, levels, symmetric=symmetric, clamp=clamp).values
    found = torch.autograd.grad((values * weights).sum(), latents)[0]
    sizes = torch.tensor(levels)
    centre = ((sizes - 1) / 2 if symmetric else sizes // 2).double()
    smooth = bound_levels(latents, levels, symmetric=symmetric, clamp=clamp) / centre
    expected = torch.autograd.grad((smooth * weights).sum(), latents)[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert not clamp or bool((found == 0).any())


def test_gradient_keeps_the_dtype_of_the_latents_and_ids_have_none() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        latents = draw(3, 2).to(dtype).requires_grad_()
        for codes in (quantize_levels(latents, (5, 4)), quantize_signs(latents)):
            assert not codes.ids.requires_grad and codes.values.dtype == torch.float32
            (gradient,) = torch.autograd.grad(codes.values.sum(), latents)
            assert gradient.dtype == dtype


def test_ties_and_odd_numbers() -> None:
    column = torch.tensor([-torch.inf, -1e30, -0.0, 0.0, 1e30, torch.inf, torch.nan])[:, None]
    for path in ("torch", "reference"):
        with using(path):
            assert quantize_levels(column, (5,)).ids.tolist() == [0, 0, 2, 2, 4, 4, 0]
            # Halfway between the two middle levels: up.
            assert quantize_levels(column, (4,), symmetric=True).ids.tolist() == [0, 0, 2, 2, 3, 3, 0]
            assert quantize_levels(column, (5000,)).ids.tolist()[::4] == [0, 4999]
            # 0 is not positive.
            assert quantize_signs(column).ids.tolist() == [0, 0, 0, 0, 1, 1, 0]
            edges = torch.tensor([-1.0, 0.0, 0.0, 2.0])
            assert quantize_bins(column, edges).flatten().tolist() == [0, 0, 1, 1, 4, 4, 0]
            assert quantize_bins(torch.tensor([2.0, 2.0000002]), edges).tolist() == [3, 4]
    # Rounding is half to even: with clamp and levels of 5 and no epsilon, 0.25 lies halfway between 2 and 3.
    ties = torch.tensor([[-0.75], [-0.25], [0.25], [0.75]])
    assert quantize_levels(ties, (5,), clamp=True, epsilon=0).ids.tolist() == [0, 2, 2, 4]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [2, 999, 2**22 + 2, 2**23 - 2, 2**24])
def test_no_level_lies_outside(size: int, rule: tuple[bool, bool]) -> None:
    """Half a level is not exact beyond 2**23, nor are steps that overshoot by nearly half a step."""
    symmetric, clamp = rule
    latents = torch.tensor([[9.0, 9.0], [-9.0, -9.0]]) * 9
    for epsilon in (0.0, 0.999 / size, 1 / size, 1e-3, 3.0, 1 / size - 1):
        for path in ("torch", "reference"):
            with using(path):
                ids = quantize_levels(
                    latents, (size, 2), epsilon=epsilon, symmetric=symmetric, clamp=clamp
                ).ids
            assert int(ids.min()) >= 0 and int(ids.max()) < 2 * size
            if epsilon >= 0 and symmetric:
                assert ids.tolist() == [2 * size - 1, 0]


@pytest.mark.parametrize("epsilon", [math.nan, math.inf, -math.inf, -1.0])
def test_an_impossible_epsilon_is_refused(epsilon: float) -> None:
    for face in (quantize_levels, bound_levels):
        with pytest.raises(ValueError, match=rf"epsilon={epsilon}; expected a finite number above -1"):
            face(torch.zeros(1, 2), (8, 5), epsilon=epsilon)


@pytest.mark.parametrize("high_first", [False, True])
@pytest.mark.parametrize("dim", [1, 7, 24, 25, 49, 63])
def test_signs(dim: int, high_first: bool) -> None:
    latents = draw(6, 3, dim)
    latents[0, 0] = 1
    codes = quantize_signs(latents, scale=0.3, high_first=high_first)
    bits = (latents > 0).tolist()
    for item, row in zip(codes.ids.flatten().tolist(), [row for rows in bits for row in rows], strict=True):
        text = "".join(str(int(bit)) for bit in (row if high_first else row[::-1]))
        assert item == int(text, 2)
    assert codes.ids[0, 0] == 2**dim - 1
    assert torch.equal(codes.values, torch.where(latents > 0, 0.3, -0.3))
    assert same_bits(codes.values, sign_values(codes.ids, dim, scale=0.3, high_first=high_first))
    with using("reference"):
        assert torch.equal(quantize_signs(latents, high_first=high_first).ids, codes.ids)


def test_sign_gradient_passes_unchanged() -> None:
    latents, weights = draw(4, 3).requires_grad_(), draw(4, 3, seed=1)
    (quantize_signs(latents, scale=7.0).values * weights).sum().backward()
    assert latents.grad is not None and torch.equal(latents.grad, weights)


@settings(deadline=None, max_examples=25)
@given(size=st.integers(0, 9), seed=st.integers(0, 99))
def test_bins_are_those_of_the_reference(size: int, seed: int) -> None:
    edges = draw(size, seed=seed).sort().values
    latents = torch.cat([draw(20, seed=seed + 1), edges])
    found = quantize_bins(latents.view(1, -1), edges)
    with using("reference"):
        assert torch.equal(quantize_bins(latents.view(1, -1), edges), found)
    assert found[0].tolist() == [sum(edge < number for edge in edges.tolist()) for number in latents.tolist()]


def test_autocast_and_bfloat16_move_nothing() -> None:
    latents = draw(300, 6, scale=2)
    plain = quantize_levels(latents, (8, 8, 8, 5, 5, 5)), quantize_signs(latents)
    narrow = latents.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantize_levels(latents, (8, 8, 8, 5, 5, 5)).ids, plain[0].ids)
        assert torch.equal(quantize_signs(latents).ids, plain[1].ids)
        found = quantize_levels(narrow, (8, 8, 8, 5, 5, 5))
    expected = quantize_levels(narrow.float(), (8, 8, 8, 5, 5, 5))
    assert torch.equal(found.ids, expected.ids) and same_bits(found.values, expected.values)


class TestOperators:
    # What opcheck copies is no leaf, and it looks for its gradient.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    @pytest.mark.parametrize(
        "latents", [draw(16, 4), draw(0, 4), draw(1, 4).double(), draw(4, 5).T, draw(5, 8)[:, ::2]]
    )
    def test_opcheck(self, latents: Tensor) -> None:
        latents = latents.detach().requires_grad_()
        for symmetric, clamp in RULES[:2]:
            torch.library.opcheck(scalar.level_codes_op, (latents, [8, 5, 3, 2], 1e-3, symmetric, clamp))
        torch.library.opcheck(scalar.sign_codes_op, (latents, 0.5, True))
        torch.library.opcheck(scalar.bin_ids_op, (latents.detach(), draw(3).sort().values.to(latents.dtype)))

    def test_compiled_whole(self) -> None:
        edges = torch.tensor([-0.5, 0.1])

        def whole(latents: Tensor) -> tuple[Tensor, Tensor]:
            levels, signs = quantize_levels(latents, (8, 5, 4)), quantize_signs(latents)
            ids = torch.stack([levels.ids, signs.ids, quantize_bins(latents, edges)[..., 0]])
            back = level_values(levels.ids, (8, 5, 4)) + sign_values(signs.ids, 3)
            return ids, levels.values * signs.values + back

        eager, compiled = (draw(2, 6, 3).requires_grad_() for _ in range(2))
        ids, values = torch.compile(whole, backend="aot_eager", fullgraph=True)(compiled)
        expected_ids, expected = whole(eager)
        assert torch.equal(ids, expected_ids) and torch.equal(values, expected)
        values.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(compiled.grad, eager.grad)

    def test_meta_device(self) -> None:
        latents = torch.zeros(2, 5, 3, device="meta")
        for codes in (quantize_levels(latents, (8, 5, 4)), quantize_signs(latents)):
            assert codes.ids.shape == (2, 5) and codes.values.shape == (2, 5, 3)
            assert codes.ids.dtype == torch.int64 and codes.values.dtype == torch.float32
        assert quantize_bins(latents, torch.zeros(4, device="meta")).shape == (2, 5, 3)

    def test_outputs_are_fresh(self) -> None:
        latents = draw(4, 2)
        before = latents.clone()
        (
            quantize_levels(latents, (5, 4), clamp=True),
            quantize_signs(latents),
            quantize_bins(latents, before[0]),
        )
        assert torch.equal(latents, before)


@pytest.mark.parametrize(
    ("latents", "levels", "message"),
    [
        (torch.zeros(2, 3), (8, 5), r"\(2, 3\).*\(\.\.\., 2\).*last axis"),
        (torch.zeros(()), (8,), "last axis"),
        (torch.zeros(2, 1, dtype=torch.int64), (8,), "expected floats"),
        (torch.zeros(2, 2), (8, 1), r"levels \(8, 1\): .* each 2 or more"),
        (torch.zeros(2, 2), (2**25, 2), r"up to 2\*\*24"),
        (torch.zeros(2, 3), (2**24,) * 3, r"product below 2\*\*63"),
        (torch.zeros(2, 0), (), "at least one"),
    ],
)
def test_misfits_are_refused(latents: Tensor, levels: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize_levels(latents, levels)


def test_misfits_of_signs_and_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="64 signs; expected 1"):
        quantize_signs(torch.zeros(1, 64))
    with pytest.raises(ValueError, match=r"edges of shape \(1, 2\)"):
        quantize_bins(torch.zeros(3), torch.zeros(1, 2))
