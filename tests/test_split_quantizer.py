"""Two quantizers on the same latents, as Mimi has them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.projected import ProjectedQuantizer
from tokenzoo.zoo.quantizer import Quantizer
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.split_quantizer import SplitQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

from .agreement import check_agreement, draw, randomized, same_bits

DIM = 5


def residual(num_stages: int, dim: int = DIM) -> ResidualQuantizer:
    return ResidualQuantizer([VectorQuantizer(9, dim) for _ in range(num_stages)])


def mimi() -> SplitQuantizer:
    """Both parts in few dimensions, by maps of their own without bias."""
    return SplitQuantizer(
        ProjectedQuantizer(residual(1, 3), DIM, bias=False),
        ProjectedQuantizer(residual(3, 3), DIM, bias=False),
    )


QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "plain": lambda: SplitQuantizer(VectorQuantizer(7, DIM), residual(3)),
    "two leading": lambda: SplitQuantizer(residual(2), residual(2)),
    "one and one": lambda: SplitQuantizer(VectorQuantizer(7, DIM), residual(1)),
    "mimi": mimi,
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
    check_agreement(quantizer, draw(*shape, DIM, seed=seed).to(dtype), autocast=autocast)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_prefixes_and_dropped_codebooks_agree(name: str) -> None:
    quantizer = randomized(QUANTIZERS[name]())
    assert isinstance(quantizer, SplitQuantizer)
    count = len(quantizer.codebook_sizes)
    keeps = range(len(quantizer.first.codebook_sizes), count + 1)
    latents = draw(len(keeps), 6, DIM)
    together = check_agreement(quantizer, latents, autocast=False, lengths=torch.tensor(keeps))
    values = quantizer.encode(latents)
    for item, keep in enumerate(keeps):
        assert bool((together.values[item, :, keep:] == -1).all())
        assert same_bits(quantizer.decode(values[item, :, :keep]), together.latents[item])


@pytest.mark.parametrize("name", ["plain", "two leading", "one and one"])
def test_fewer_codebooks_can_be_computed(name: str) -> None:
    quantizer, latents = randomized(QUANTIZERS[name]()), draw(6, DIM)
    assert isinstance(quantizer, SplitQuantizer)
    values = quantizer.encode(latents)
    for keep in range(len(quantizer.first.codebook_sizes), values.shape[1] + 1):
        assert torch.equal(quantizer.encode(latents, keep=keep), values[:, :keep])


def test_both_parts_see_the_whole_latent() -> None:
    quantizer = randomized(QUANTIZERS["plain"]())
    assert isinstance(quantizer, SplitQuantizer)
    latents = draw(4, 6, DIM)
    quantized, first, rest = quantizer(latents), quantizer.first(latents), quantizer.rest(latents)
    assert torch.equal(quantized.values[..., 0], first.values)
    assert torch.equal(quantized.values[..., 1:], rest.values)
    assert torch.equal(quantized.latents, first.latents + rest.latents)
    torch.testing.assert_close(quantized.loss, first.loss + rest.loss)
    assert quantized.usage.shape == (4, 9)
    assert torch.equal(quantized.usage[0, :7], first.usage) and torch.equal(quantized.usage[1:], rest.usage)


def test_mimi_against_its_equations() -> None:
    """moshi, quantization/vq.py: input_proj, residual stages, output_proj for each part; a sum of both."""
    quantizer, latents, expected = randomized(mimi()), draw(8, DIM), torch.zeros(8, DIM)
    values = quantizer.encode(latents)
    assert quantizer.codebook_sizes == (9, 9, 9, 9) and values.shape == (8, 4)
    weights, column = quantizer.state_dict(), 0
    for part, num_stages in (("first", 1), ("rest", 3)):
        narrow = latents @ weights[f"{part}.project_in.weight"].T
        total = torch.zeros_like(narrow)
        for stage in range(num_stages):
            codebook = weights[f"{part}.inner.stages.{stage}.codebook"]
            ids = torch.cdist(narrow - total, codebook).argmin(dim=1)
            assert torch.equal(values[:, column], ids)
            total, column = total + codebook[ids], column + 1
        expected += total @ weights[f"{part}.project_out.weight"].T
    torch.testing.assert_close(quantizer.decode(values), expected)


def test_every_codebook_has_a_role() -> None:
    assert mimi().roles == ("semantic", "acoustic", "acoustic", "acoustic")
    quantizer = SplitQuantizer(residual(2), residual(1), roles=("content", "timbre"))
    assert quantizer.roles == ("content", "content", "timbre")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SplitQuantizer(VectorQuantizer(3, 4), VectorQuantizer(3, 5)),
            "first of width 4 -> 4, rest of",
        ),
        (
            lambda: SplitQuantizer(GaussianPosterior(4), GaussianPosterior(4)),
            "GaussianPosterior is continuous",
        ),
        (
            lambda: QUANTIZERS["two leading"]().decode(torch.zeros(3, 1, dtype=torch.int64)),
            r"1 codebooks: .* 2",
        ),
        (lambda: mimi().decode(torch.zeros(3, 5, dtype=torch.int64)), r"5 codebooks: expected 1 \.\.\. 4"),
        (lambda: QUANTIZERS["plain"]()(draw(2, DIM), lengths=torch.tensor([0, 2])), r"expected 1 \.\.\. 4"),
        (lambda: mimi().encode(draw(3, 4)), r"\(\.\.\., 5\)"),
    ],
)
def test_misfits_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
