"""The codebook axis comes and goes with the number of codebooks."""

import pytest
import torch

from tokenzoo.zoo.codebook_axis import add_axis, check_discrete, drop_axis, stack_usage
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer


def test_one_codebook_has_no_axis_several_have() -> None:
    single, several = VectorQuantizer(5, 2), ResidualQuantizer([VectorQuantizer(5, 2)], repeats=3)
    for quantizer, shape in ((single, (4, 1)), (several, (4, 3))):
        values = quantizer.encode(torch.zeros(4, 2))
        assert add_axis(values, quantizer).shape == shape
        assert torch.equal(drop_axis(add_axis(values, quantizer), quantizer), values)
    # The first codebook of several keeps its axis.
    assert drop_axis(torch.zeros(4, 1), several).shape == (4, 1)


def test_usage_is_padded_to_the_largest_codebook() -> None:
    one, two = torch.tensor([1, 2]), torch.tensor([[3, 4, 5], [6, 7, 8]])
    stacked = stack_usage([one, two])
    assert stacked is not None and stacked.tolist() == [[1, 2, 0], [3, 4, 5], [6, 7, 8]]
    alone = stack_usage([one])
    assert alone is not None and torch.equal(alone, one)
    assert stack_usage([one, None]) is None


def test_continuous_quantizers_are_refused() -> None:
    check_discrete(VectorQuantizer(5, 2))
    with pytest.raises(
        ValueError, match="GaussianPosterior is continuous: expected a quantizer with codebooks"
    ):
        check_discrete(GaussianPosterior(2))
