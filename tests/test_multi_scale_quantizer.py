"""Residual levels of different rates, as SNAC has them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tokenzoo.zoo.fsq import FiniteScalarQuantizer
from tokenzoo.zoo.multi_scale_quantizer import MultiScaleQuantizer
from tokenzoo.zoo.projected import ProjectedQuantizer
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

from .agreement import check_agreement, draw, randomized, same_bits

DIM = 6


def snac(strides: tuple[int, ...] = (4, 2, 1)) -> MultiScaleQuantizer:
    levels = [ProjectedQuantizer(VectorQuantizer(13, 2, l2=True), DIM) for _ in strides]
    return MultiScaleQuantizer(levels, strides)


def made(strides: tuple[int, ...] = (4, 2, 1)) -> MultiScaleQuantizer:
    quantizer = randomized(snac(strides))
    assert isinstance(quantizer, MultiScaleQuantizer)
    return quantizer


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    strides=st.sampled_from([(4, 2, 1), (8, 4, 2, 1), (1,), (2, 2), (3, 1), (4, 1, 2)]),
    batch=st.sampled_from([(), (2,), (2, 3), (0,)]),
    tokens=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    autocast=st.booleans(),
    dropping=st.booleans(),
)
def test_forward_is_decode_of_encode(
    seed: int,
    strides: tuple[int, ...],
    batch: tuple[int, ...],
    tokens: int,
    dtype: torch.dtype,
    autocast: bool,
    dropping: bool,
) -> None:
    quantizer = made(strides)
    latents = draw(*batch, tokens * strides[0], DIM, seed=seed).to(dtype)
    keywords: dict[str, Tensor] = {}
    if dropping and batch:
        draws = torch.Generator().manual_seed(seed)
        keywords = {"lengths": torch.randint(0, quantizer.keeps[-1] + 1, batch[:1], generator=draws)}
    quantized = check_agreement(quantizer, latents, autocast=autocast, **keywords)
    several = (len(quantizer.codebook_sizes),) if len(quantizer.codebook_sizes) > 1 else ()
    assert quantized.values.shape == (*batch, tokens, *several)


def by_hand(quantizer: MultiScaleQuantizer, latents: Tensor) -> tuple[list[Tensor], Tensor]:
    """snac, vq.py: average pool, factorised search, repeat. Ids (B, T / stride) by level, and the sum."""
    weights, residual, total, ids = quantizer.state_dict(), latents, torch.zeros_like(latents), []
    for level, stride in enumerate((4, 2, 1)):
        prefix = f"residual.stages.{level}.inner."
        pooled = F.avg_pool1d(residual.transpose(1, 2), stride).transpose(1, 2)
        narrow = F.linear(pooled, weights[prefix + "project_in.weight"], weights[prefix + "project_in.bias"])
        codebook = weights[prefix + "inner.codebook"]
        ids.append(
            torch.cdist(F.normalize(narrow, dim=-1), F.normalize(codebook, dim=-1)[None]).argmin(dim=-1)
        )
        out = F.linear(
            codebook[ids[-1]], weights[prefix + "project_out.weight"], weights[prefix + "project_out.bias"]
        ).repeat_interleave(stride, dim=1)
        residual, total = residual - out, total + out
    return ids, total


def test_against_the_equations_of_snac() -> None:
    quantizer, latents = made(), draw(2, 12, DIM)
    (coarse, middle, fine), total = by_hand(quantizer, latents)
    expected = torch.cat(
        [coarse[..., None], middle.unflatten(1, (-1, 2)), fine.unflatten(1, (-1, 4))], dim=-1
    )
    values = quantizer.encode(latents)
    assert values.shape == (2, 3, 7) and torch.equal(values, expected)
    torch.testing.assert_close(quantizer.decode(values), total)


def test_codebooks_and_keeps() -> None:
    quantizer = made()
    assert quantizer.codebook_sizes == (13,) * 7 and quantizer.keeps == (1, 3, 7)
    assert made((8, 4, 2, 1)).keeps == (1, 3, 7, 15)
    usage = quantizer(draw(2, 8, DIM)).usage
    assert usage.shape == (3, 13) and usage.sum(dim=1).tolist() == [4, 8, 16]


def test_prefixes_decode_and_items_drop_levels() -> None:
    quantizer, latents = made(), draw(5, 8, DIM)
    together = quantizer(latents, lengths=torch.tensor([7, 3, 1, 0, 6]))
    values = quantizer.encode(latents)
    assert (together.values >= 0).sum(dim=-1).tolist() == [[7, 7], [3, 3], [1, 1], [0, 0], [3, 3]]
    for item, keep in enumerate((7, 3, 1)):
        assert same_bits(together.latents[item], quantizer.decode(values[item, :, :keep]))
        assert torch.equal(quantizer.encode(latents[item], keep=keep), values[item, :, :keep])
    assert not together.latents[3].any()
    with pytest.raises(ValueError, match=r"2 codebooks: expected one of \(1, 3, 7\)"):
        quantizer.decode(values[..., :2])


def test_gradients_reach_latents_and_projections() -> None:
    """Through the codes, as in SNAC: the equations with the trick that rounds."""
    quantizer, latents, upstream = made(), draw(1, 4, DIM).requires_grad_(), draw(1, 4, DIM, seed=1)
    values = quantizer(latents).values
    (quantizer(latents).latents * upstream).sum().backward()
    copies = {name: each.detach().clone().requires_grad_() for name, each in quantizer.named_parameters()}
    reference = latents.detach().clone().requires_grad_()
    residual, total, column = reference, torch.zeros(()), 0
    for level, stride in enumerate((4, 2, 1)):
        weight = {
            name.split("inner.", 1)[1]: each for name, each in copies.items() if f"stages.{level}." in name
        }
        pooled = residual.unflatten(1, (-1, stride)).mean(dim=2)
        narrow = F.linear(pooled, weight["project_in.weight"], weight["project_in.bias"])
        codes = weight["inner.codebook"][values[:, 0, column : column + 4 // stride]]
        through = narrow + (codes - narrow).detach()
        out = F.linear(through, weight["project_out.weight"], weight["project_out.bias"])
        out = out.repeat_interleave(stride, dim=1)
        residual, total, column = residual - out, total + out, column + 4 // stride
    (total * upstream).sum().backward()
    torch.testing.assert_close(latents.grad, reference.grad)
    for name, parameter in quantizer.named_parameters():
        if "project" in name:
            torch.testing.assert_close(parameter.grad, copies[name].grad, msg=name)


def test_stride_one_alone_is_a_residual_quantizer() -> None:
    levels = [VectorQuantizer(7, DIM) for _ in range(3)]
    quantizer, expected = MultiScaleQuantizer(levels, (1, 1, 1)), ResidualQuantizer(levels)
    latents = draw(2, 5, DIM)
    assert torch.equal(quantizer.encode(latents), expected.encode(latents))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiScaleQuantizer([VectorQuantizer(3, 4)], (2, 1)), r"1 levels with strides \(2, 1\)"),
        (lambda: MultiScaleQuantizer([VectorQuantizer(3, 4)] * 2, (3, 2)), "divisor of the first"),
        (lambda: MultiScaleQuantizer([VectorQuantizer(3, 4)] * 2, (1, 2)), "divisor of the first"),
        (lambda: MultiScaleQuantizer([VectorQuantizer(3, 4)] * 2, (1, 0)), "divisor of the first"),
        (lambda: MultiScaleQuantizer([], ()), "0 levels"),
        (lambda: MultiScaleQuantizer([ResidualQuantizer([VectorQuantizer(3, 4)] * 2)], (1,)), "expected one"),
        (
            lambda: MultiScaleQuantizer([VectorQuantizer(3, 4), FiniteScalarQuantizer((3, 3))], (1, 1)),
            "widths",
        ),
        (lambda: snac().encode(draw(2, 6, DIM)), r"T a multiple of 4: pad the signal"),
        (lambda: snac().encode(draw(DIM)), r"T a multiple of 4"),
        (lambda: snac().encode(draw(4, DIM + 1)), r"\(\.\.\., 6\)"),
    ],
)
def test_misfits_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
