"""Finite scalar quantization against the official formulas and recordings, and where lucidrains' is wrong."""

import math
from pathlib import Path

import pytest
import torch
import vector_quantize_pytorch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from tokenzoo.zoo.fsq import FiniteScalarQuantizer

from .agreement import check_agreement, draw, same_bits

RULES = [{}, {"epsilon": -1e-3}, {"symmetric": True}, {"clamp": True}, {"symmetric": True, "clamp": True}]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_forward_is_decode_of_encode(rule: dict[str, bool], dtype: torch.dtype, autocast: bool) -> None:
    quantizer = FiniteScalarQuantizer((8, 5, 4, 2), **rule)
    for shape in ((7,), (2, 9), (0,), (16,), ()):
        check_agreement(quantizer, draw(*shape, 4, scale=2).to(dtype), autocast=autocast)


@pytest.mark.parametrize("rule", RULES)
def test_every_level_is_reached(rule: dict[str, bool]) -> None:
    quantizer = FiniteScalarQuantizer((8, 5, 4), **rule)
    codes = quantizer.decode(torch.arange(160))
    assert len(codes.unique(dim=0)) == 160
    latents = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)) * 1.5
    ids = quantizer.encode(latents)
    assert len(ids.unique()) == 160
    for axis in range(3):
        order = latents[:, axis].argsort()
        assert bool((quantizer.decode(ids)[order, axis].diff() >= 0).all()), "monotone in each feature"


def test_symmetric_levels_are_symmetric() -> None:
    assert (
        FiniteScalarQuantizer((4,), symmetric=True).decode(torch.arange(4)).flatten().tolist()
        == (torch.tensor([-3.0, -1, 1, 3]) / 3).tolist()
    )
    assert FiniteScalarQuantizer((4,)).decode(torch.arange(4)).flatten().tolist() == [-1, -0.5, 0, 0.5]
    quantizer = FiniteScalarQuantizer((6, 5), symmetric=True)
    latents = draw(500, 2)
    assert torch.equal(quantizer(latents).latents, -quantizer(-latents).latents)


def test_s3_tokenizer_v2_as_published() -> None:
    """round(tanh(z) * 0.9990000128746033) + 1 in base 3, the first feature lowest."""
    quantizer = FiniteScalarQuantizer((3,) * 8, epsilon=-1e-3)
    latents = draw(1000, 8, scale=3)
    digits = (latents.tanh() * 0.9990000128746033).round() + 1
    assert torch.equal(quantizer.encode(latents), (digits.long() * 3 ** torch.arange(8)).sum(dim=1))
    # Halfway between two levels, where tanh alone would have decided otherwise.
    edge = torch.full((1, 8), math.atanh(0.5003))
    assert quantizer.encode(edge).item() != FiniteScalarQuantizer((3,) * 8).encode(edge).item()


def test_s3_tokenizer_v2_as_recorded() -> None:
    """From s3tokenizer 0.3.0 by its own code, with the latents its encoder made."""
    fixture = load_file(Path(__file__).parent / "golden" / "quantizers" / "s3_v2.safetensors")
    latents = F.linear(fixture["latents"], fixture["weight"], fixture["bias"])
    found = FiniteScalarQuantizer((3,) * 8, epsilon=-1e-3).encode(latents)
    assert torch.equal(found, fixture["ids"].long())


def official(latents: Tensor, levels: list[int], **keywords: bool) -> tuple[Tensor, Tensor]:
    """Ids and codes of vector-quantize-pytorch."""
    codes, ids = vector_quantize_pytorch.FSQ(levels, return_indices=True, **keywords)(latents[None])
    return ids[0].long(), codes[0]


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [8, 8, 8, 5, 5, 5], [4] * 8, [3] * 5])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_against_lucidrains(levels: list[int], symmetric: bool, clamp: bool) -> None:
    latents = draw(4096, len(levels), scale=2)
    ids, codes = official(latents, levels, preserve_symmetry=symmetric, bound_hard_clamp=clamp)
    found = FiniteScalarQuantizer(levels, symmetric=symmetric, clamp=clamp)(latents)
    assert torch.equal(found.values, ids)
    if symmetric:  # there the codes are a product and a difference, here one quotient
        torch.testing.assert_close(found.latents, codes, rtol=0, atol=1e-6)
    else:
        assert same_bits(found.latents, codes + 0.0)


@pytest.mark.filterwarnings("ignore")
def test_ids_of_eight_to_the_nine_levels() -> None:
    """134 million codes, against Python's integers; lucidrains adds in float32, and most ids are wrong."""
    levels = [8] * 9
    latents = draw(2000, 9, scale=2)
    found = FiniteScalarQuantizer(levels)(latents)
    digits = (found.latents * 4 + 4).long().tolist()
    expected = torch.tensor([sum(digit * 8**place for place, digit in enumerate(row)) for row in digits])
    assert torch.equal(found.values, expected)
    # Without the codebook of 4.5 GiB that it would build at once.
    reference = vector_quantize_pytorch.FSQ(levels, return_indices=False)
    theirs = reference.codes_to_indices(reference.quantize(latents)).long()
    assert float((theirs != expected).float().mean()) > 0.5


@pytest.mark.filterwarnings("ignore")
def test_autocast_and_bfloat16_do_not_move_ids() -> None:
    """lucidrains switches off the autocast of CUDA only, and in bfloat16 counts what bfloat16 can hold."""
    levels = [8, 8, 8, 5, 5, 5]
    quantizer = FiniteScalarQuantizer(levels)
    latents = draw(4000, 6, scale=2)
    narrow = latents.bfloat16()
    expected, rounded = quantizer.encode(latents), quantizer.encode(narrow.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer.encode(latents), expected)
        assert torch.equal(quantizer(narrow).values, rounded)
        assert same_bits(quantizer(narrow).latents, quantizer.decode(rounded))
    assert torch.equal(quantizer.encode(narrow), rounded)


def test_gradient_of_the_official_formula() -> None:
    """Written with the usual trick, z + (q - z).detach(), whose gradient is right where its value rounds."""
    levels = torch.tensor([8, 5, 3, 2])
    latents, weights = draw(6, 4).requires_grad_(), draw(6, 4, seed=1)
    half_range, offset = (levels - 1) * 1.001 / 2, (levels % 2 == 0) / 2
    bounded = (latents + torch.atanh(offset / half_range)).tanh() * half_range - offset
    rounded = bounded + (bounded.round() - bounded).detach()
    expected = torch.autograd.grad((rounded / (levels // 2) * weights).sum(), latents)[0]
    found = FiniteScalarQuantizer(levels.tolist())(latents).latents
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), latents)[0], expected)


def test_large_codebooks_are_not_counted_and_hold_no_memory() -> None:
    quantizer = FiniteScalarQuantizer((4,) * 16)
    assert quantizer(torch.zeros(3, 16)).usage is None and not quantizer.state_dict()
    assert not list(quantizer.buffers())


def test_compiled_whole() -> None:
    quantizer = FiniteScalarQuantizer((8, 5, 4))
    eager, compiled = (draw(6, 3).requires_grad_() for _ in range(2))
    found = torch.compile(quantizer, backend="aot_eager", fullgraph=True)(compiled)
    expected = quantizer(eager)
    assert torch.equal(found.values, expected.values) and same_bits(found.latents, expected.latents)
    found.latents.sum().backward()
    expected.latents.sum().backward()
    assert torch.equal(compiled.grad, eager.grad)
