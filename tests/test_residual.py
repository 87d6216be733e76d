"""Residual codes in one call against a plain loop: ids, sums, errors, gradients, dropped stages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.kernels.paths import using
from tokenzoo.kernels.residual import ResidualCodes, residual_codes, residual_op


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def draw_stages(rows: int, num_stages: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, num_stages + 1, (rows,), generator=torch.Generator().manual_seed(seed))


def by_hand(latent: torch.Tensor, codebooks: torch.Tensor, kept: int) -> tuple[list[int], list[float]]:
    """Ids and squared errors of one latent (D,), by the definition."""
    ids, errors = [], []
    for stage, codebook in enumerate(codebooks):
        if stage >= kept:
            ids.append(-1)
            errors.append(0.0)
            continue
        distances = ((latent - codebook) ** 2).sum(dim=1)
        ids.append(int(distances.argmin()))
        errors.append(float(distances.min()))
        latent = latent - codebook[ids[-1]]
    return ids, errors


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(0, 9),
    num_stages=st.integers(1, 5),
    codes=st.integers(1, 17),
    dim=st.integers(1, 8),
    dropping=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_stage_takes_the_nearest_code(
    rows: int, num_stages: int, codes: int, dim: int, dropping: bool, seed: int
) -> None:
    latents = draw(rows, dim, seed=seed, dtype=torch.float64)
    codebooks = draw(num_stages, codes, dim, seed=seed + 1, dtype=torch.float64)
    stages = draw_stages(rows, num_stages, seed) if dropping else None
    found = residual_codes(latents, codebooks, stages)
    kept = stages.tolist() if stages is not None else [num_stages] * rows
    expected = [by_hand(latent, codebooks, count) for latent, count in zip(latents, kept, strict=True)]
    assert found.ids.shape == found.errors.shape == (rows, num_stages)
    assert found.ids.tolist() == [ids for ids, _ in expected]
    errors = torch.tensor([each for _, each in expected], dtype=torch.float64).reshape(rows, num_stages)
    torch.testing.assert_close(found.errors, errors)
    torch.testing.assert_close(found.losses, errors.sum(dim=0) / max(1, rows * dim))


@pytest.mark.parametrize("dropping", [False, True])
def test_the_sum_is_that_of_the_looked_up_codes_bit_for_bit(dropping: bool) -> None:
    codebooks = draw(6, 50, 7) * 0.5 ** torch.arange(6)[:, None, None]
    stages = draw_stages(300, 6) if dropping else None
    found = residual_codes(draw(300, 7, seed=1), codebooks, stages)
    total = torch.zeros(300, 7)
    for codebook, ids in zip(codebooks, found.ids.T, strict=True):
        total += torch.where(ids[:, None] < 0, 0, codebook[ids.clamp(min=0)])
    assert torch.equal(found.quantized.view(torch.int32), total.view(torch.int32))
    if stages is not None:
        assert torch.equal((found.ids >= 0).sum(dim=1), stages)


def test_a_dropped_stage_does_not_touch_the_ones_before() -> None:
    latents, codebooks = draw(40, 5), draw(4, 16, 5, seed=1)
    full = residual_codes(latents, codebooks)
    for kept in range(5):
        cut = residual_codes(latents, codebooks, torch.full((40,), kept))
        assert torch.equal(cut.ids[:, :kept], full.ids[:, :kept]) and bool((cut.ids[:, kept:] == -1).all())
        assert torch.equal(cut.errors[:, :kept], full.errors[:, :kept])
        if kept:
            assert torch.equal(cut.quantized, residual_codes(latents, codebooks[:kept]).quantized)
        else:
            assert not cut.quantized.any()


def test_counts_of_stages_end_at_none_and_all() -> None:
    """The operators check no values: that would make the host wait for the device."""
    latents, codebooks = draw(4, 5), draw(3, 16, 5, seed=1)
    found = residual_codes(latents, codebooks, torch.tensor([-(2**63), -1, 4, 2**63 - 1]))
    expected = residual_codes(latents, codebooks, torch.tensor([0, 0, 3, 3]))
    for ours, theirs in zip(vars(found).values(), vars(expected).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_ties_go_to_the_lowest_index() -> None:
    codebooks = torch.tensor([[[1.0], [-1.0], [1.0]], [[0.5], [-0.5], [0.5]]])
    found = residual_codes(torch.tensor([[0.0], [2.0]]), codebooks)
    assert found.ids.tolist() == [[0, 1], [0, 0]]
    assert found.quantized.tolist() == [[0.5], [1.5]]
    assert found.errors.tolist() == [[1.0, 0.25], [1.0, 0.25]]


def test_a_latent_with_nan_gets_index_0() -> None:
    found = residual_codes(torch.tensor([[torch.nan, 0.0], [0.0, 9.0]]), draw(3, 5, 2))
    assert found.ids[0].tolist() == [0, 0, 0]
    assert not found.quantized[1].isnan().any()


def test_reference_path_agrees() -> None:
    latents, codebooks, stages = draw(500, 12), draw(3, 200, 12, seed=1), draw_stages(500, 3)
    with using("reference"):
        expected = residual_codes(latents, codebooks, stages)
    found = residual_codes(latents, codebooks, stages)
    assert torch.equal(found.ids, expected.ids) and torch.equal(found.quantized, expected.quantized)


def test_gradients_are_straight_through_once_and_twice_the_residuals() -> None:
    """Against autograd over the equations, the chosen codes held fixed."""
    latents = draw(20, 6, dtype=torch.float64).requires_grad_()
    codebooks = draw(4, 9, 6, seed=1, dtype=torch.float64).requires_grad_()
    stages, weights = draw_stages(20, 4), draw(4, seed=2, dtype=torch.float64)
    found = residual_codes(latents, codebooks, stages)
    assert not found.ids.requires_grad
    (
        (found.quantized * draw(20, 6, seed=3, dtype=torch.float64)).sum() + (found.losses * weights).sum()
    ).backward()
    assert codebooks.grad is None

    reference = latents.detach().clone().requires_grad_()
    residual, loss = reference, (reference * draw(20, 6, seed=3, dtype=torch.float64)).sum()
    for stage in range(4):
        kept = stage < stages
        residual = residual - torch.where(kept[:, None], codebooks.detach()[stage][found.ids[:, stage]], 0)
        loss = loss + weights[stage] * residual[kept].square().sum() / reference.numel()
    loss.backward()
    torch.testing.assert_close(latents.grad, reference.grad)


def test_errors_have_the_gradient_of_finite_differences() -> None:
    latents = draw(7, 3, dtype=torch.float64).requires_grad_()
    codebooks, stages = draw(3, 5, 3, seed=1, dtype=torch.float64), draw_stages(7, 3)
    assert torch.autograd.gradcheck(lambda z: residual_codes(z, codebooks, stages).errors, (latents,))
    assert torch.autograd.gradgradcheck(lambda z: residual_codes(z, codebooks, stages).losses, (latents,))


# What opcheck copies is no leaf, and it looks for its gradient.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(
    ("latents", "codebooks", "stages"),
    [
        (draw(8, 4), draw(3, 5, 4), None),
        (draw(8, 4), draw(3, 5, 4), draw_stages(8, 3)),
        (draw(4, 8).T, draw(3, 4, 5).transpose(1, 2), draw_stages(16, 3)[::2]),
        (draw(0, 4), draw(2, 5, 4), None),
        (
            draw(1, 4, dtype=torch.float64),
            draw(1, 1, 4, dtype=torch.float64),
            torch.zeros(1, dtype=torch.int64),
        ),
    ],
    ids=["plain", "dropping", "strided", "empty", "one"],
)
def test_operator(
    latents: torch.Tensor, codebooks: torch.Tensor, stages: torch.Tensor | None, graded: bool
) -> None:
    latents = latents.detach().requires_grad_(graded)
    torch.library.opcheck(residual_op, (latents, list(codebooks), stages))


def test_compiled_is_eager() -> None:
    codebooks, stages = draw(3, 5, 4), draw_stages(8, 3)

    def step(latents: torch.Tensor) -> torch.Tensor:
        found = residual_codes(latents, codebooks, stages)
        return (found.quantized.square() + found.ids.sum()).sum() + found.losses.sum()

    eager, compiled = draw(8, 4, seed=1).requires_grad_(), draw(8, 4, seed=1).requires_grad_()
    loss = torch.compile(step, fullgraph=True, backend="aot_eager")(compiled)
    assert torch.equal(loss, step(eager))
    loss.backward()
    step(eager).backward()
    assert compiled.grad is not None and eager.grad is not None and torch.equal(compiled.grad, eager.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_float32_under_autocast_and_for_narrow_inputs(dtype: torch.dtype) -> None:
    latents, codebooks = draw(200, 16).to(dtype), draw(4, 64, 16, seed=1)
    plain = residual_codes(latents.float(), codebooks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        face = residual_codes(latents, codebooks)
        operator = residual_op(latents, list(codebooks), None)
    assert torch.equal(face.ids, plain.ids) and torch.equal(operator[1], plain.ids)
    assert torch.equal(face.quantized, plain.quantized) and face.quantized.dtype == torch.float32
    assert torch.equal(operator[0], plain.quantized)


def test_shapes_and_meta_device() -> None:
    codebooks = draw(3, 5, 8)
    for shape in [(), (4,), (2, 5), (0, 5)]:
        found = residual_codes(draw(*shape, 8), codebooks, torch.full(shape, 2))
        assert found.ids.shape == found.errors.shape == (*shape, 3)
        assert found.quantized.shape == (*shape, 8) and found.losses.shape == (3,)
        assert found.losses.isfinite().all()
    meta = residual_codes(draw(2, 8).to("meta"), codebooks.to("meta"))
    assert meta.ids.shape == (2, 3) and meta.ids.dtype == torch.int64 and meta.quantized.shape == (2, 8)


def test_outputs_are_new_tensors() -> None:
    latents, codebooks = draw(3, 4), torch.zeros(1, 2, 4)
    found: ResidualCodes = residual_codes(latents, codebooks)
    before = latents.clone()
    found.quantized.fill_(7.0)
    assert torch.equal(latents, before) and not codebooks.any()


@pytest.mark.parametrize(
    ("latents", "codebooks", "stages", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(1, 4, 5), None, r"\(2, 3\).*\(4, 5\).*last axis"),
        (torch.zeros(2, 3), torch.zeros(4, 3), None, r"shapes \[\(3,\)\]; expected .*\(K, D\)"),
        (torch.zeros(2, 3), torch.zeros(0, 4, 3), None, "0 codebooks"),
        (torch.zeros(2, 3), torch.zeros(1, 0, 3), None, "K >= 1"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(1, 4, 3), None, "latents of dtype torch.int64"),
        (torch.zeros(2, 3), torch.zeros(1, 4, 3), torch.ones(3, dtype=torch.int64), r"shape \(2,\)"),
        (torch.zeros(2, 3), torch.zeros(1, 4, 3), torch.ones(2), "expected int64"),
    ],
)
def test_misfits_are_refused(
    latents: torch.Tensor, codebooks: torch.Tensor, stages: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        residual_codes(latents, codebooks, stages)
