"""Groups of features, each with a quantizer of its own."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.zoo.fsq import FiniteScalarQuantizer
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.grouped_quantizer import GroupedQuantizer
from tokenzoo.zoo.projected import ProjectedQuantizer
from tokenzoo.zoo.quantizer import Quantizer
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

from .agreement import check_agreement, draw, randomized

QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "unlike": lambda: GroupedQuantizer([VectorQuantizer(7, 2), VectorQuantizer(5, 3, l2=True)]),
    "shared": lambda: GroupedQuantizer([VectorQuantizer(7, 2)], repeats=3),
    "single": lambda: GroupedQuantizer([VectorQuantizer(7, 2)]),
    "scalar": lambda: GroupedQuantizer([FiniteScalarQuantizer((5, 3)), VectorQuantizer(5, 2)]),
    "wider out": lambda: GroupedQuantizer([ProjectedQuantizer(VectorQuantizer(7, 2), 3, dim_out=5)] * 2),
    "residual": lambda: GroupedQuantizer(
        [ResidualQuantizer([VectorQuantizer(7, 2)], repeats=3), VectorQuantizer(5, 2)]
    ),
}


@pytest.mark.parametrize("name", QUANTIZERS)
@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(), (7,), (2, 3, 4), (0,), (3, 0)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    autocast=st.booleans(),
)
def test_forward_is_decode_of_encode(
    name: str, seed: int, shape: tuple[int, ...], dtype: torch.dtype, autocast: bool
) -> None:
    quantizer = randomized(QUANTIZERS[name]())
    check_agreement(quantizer, draw(*shape, quantizer.dim_in, seed=seed).to(dtype), autocast=autocast)


def test_every_group_is_its_quantizer_alone() -> None:
    quantizer = randomized(QUANTIZERS["residual"]())
    assert isinstance(quantizer, GroupedQuantizer)
    latents = draw(6, 4).requires_grad_()
    whole, (left, right) = quantizer(latents), (group(part) for group, part in quantizer._share_out(latents))
    assert quantizer.codebook_sizes == (7, 7, 7, 5)
    assert torch.equal(whole.values, torch.cat([left.values, right.values[:, None]], dim=1))
    assert torch.equal(whole.latents, torch.cat([left.latents, right.latents], dim=1))
    assert whole.usage.shape == (4, 7) and torch.equal(whole.usage[:3], left.usage)
    assert torch.equal(whole.usage[3, :5], right.usage) and not whole.usage[3, 5:].any()
    (gradient,) = torch.autograd.grad(whole.latents.sum(), latents)
    assert torch.equal(gradient, torch.ones_like(latents))


def test_loss_is_a_mean_over_all_elements() -> None:
    quantizer = randomized(QUANTIZERS["unlike"]())
    latents = draw(9, 5)
    quantized = quantizer(latents)
    # The second group compares directions, but its loss is that of the raw codes.
    torch.testing.assert_close(quantized.loss, 1.25 * (latents - quantized.latents).square().mean())


def test_residual_stages_of_groups_are_groups_of_residual_stages() -> None:
    """The same codes; only the order of the ids differs, stage by stage or group by group."""
    by_group = randomized(
        GroupedQuantizer([ResidualQuantizer([VectorQuantizer(7, 2) for _ in range(3)]) for _ in range(2)])
    )
    by_stage = ResidualQuantizer(
        [GroupedQuantizer([VectorQuantizer(7, 2) for _ in range(2)]) for _ in range(3)]
    ).eval()
    codebooks = by_group.state_dict()
    by_stage.load_state_dict(
        {
            f"stages.{stage}.groups.{group}.codebook": codebooks[f"groups.{group}.stages.{stage}.codebook"]
            for stage in range(3)
            for group in range(2)
        }
    )
    latents = draw(20, 4)
    values = by_group.encode(latents)
    assert torch.equal(by_stage.encode(latents), values.unflatten(1, (2, 3)).transpose(1, 2).flatten(1))
    assert torch.equal(by_stage.decode(by_stage.encode(latents)), by_group.decode(values))


def test_a_shared_quantizer_is_stored_once() -> None:
    quantizer = randomized(QUANTIZERS["shared"]())
    assert list(quantizer.state_dict()) == ["groups.0.codebook"]
    assert quantizer.codebook_sizes == (7, 7, 7) and quantizer.dim_in == 6
    part = draw(8, 2)
    values = quantizer.encode(torch.cat([part, part, part], dim=1))
    assert torch.equal(values, values[:, :1].expand(8, 3)) and len(values[:, 0].unique()) > 1


def test_usage_of_codebooks_too_large_to_count_is_none() -> None:
    quantizer = GroupedQuantizer([FiniteScalarQuantizer((8,) * 9), VectorQuantizer(5, 2)])
    assert quantizer(draw(3, 11)).usage is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupedQuantizer([]), "0 groups"),
        (lambda: GroupedQuantizer([VectorQuantizer(3, 4)], repeats=0), "laid out 0 times"),
        (lambda: GroupedQuantizer([GaussianPosterior(4)]), "GaussianPosterior is continuous"),
        (lambda: QUANTIZERS["unlike"]().encode(draw(3, 4)), r"\(\.\.\., 5\)"),
    ],
)
def test_misfits_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
