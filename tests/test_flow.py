"""The sampler of rectified flows: exact on straight paths, and guided as the papers say."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenzoo.image.flow import sample_flow

NOISE = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
DATA = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(1))


class Field:
    """A velocity that knows where the data is, wrong by `bias` without a condition; remembers its calls."""

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = bias
        self.calls: list[tuple[int, float]] = []

    def __call__(self, points: Tensor, times: Tensor) -> Tensor:
        self.calls.append((len(points), float(times[0])))
        assert times.shape == (len(points),) and bool((times == times[0]).all())
        data = DATA.repeat(len(points) // len(DATA), 1, 1, 1)
        velocity = (points - data) / times.view(-1, 1, 1, 1)
        velocity[len(DATA) :] += self.bias * torch.sin(points[len(DATA) :])
        return velocity


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_a_straight_flow_arrives_in_any_number_of_steps(steps: int) -> None:
    field = Field()
    torch.testing.assert_close(sample_flow(field, NOISE, steps=steps), DATA, atol=1e-5, rtol=0)
    assert field.calls == [(3, pytest.approx(step / steps)) for step in range(steps, 0, -1)]


def test_guidance_asks_for_both_in_one_pass() -> None:
    field = Field()
    sample_flow(field, NOISE, steps=2, guidance=3.0)
    assert [count for count, _ in field.calls] == [6, 6]


def test_classifier_free_guidance() -> None:
    conditional, unconditional = Field(0.5)(NOISE.repeat(2, 1, 1, 1), torch.ones(6)).chunk(2)
    expected = NOISE - (unconditional + 3.0 * (conditional - unconditional))
    torch.testing.assert_close(sample_flow(Field(0.5), NOISE, steps=1, guidance=3.0), expected)


def test_adaptive_projected_guidance() -> None:
    """Two steps of arXiv 2410.02416, algorithm 1, one item at a time: momentum -0.5, threshold 2.5, eta 0."""
    field, points = Field(2.0), NOISE.double()
    average = torch.zeros_like(points)
    for time in (1.0, 0.5):
        both = field(points.repeat(2, 1, 1, 1).float(), torch.full((6,), time)).double()
        conditional, unconditional = both.chunk(2)
        average = conditional - unconditional - 0.5 * average
        moved = []
        for point, told, update in zip(points, conditional, average, strict=True):
            update = update * min(1.0, 2.5 / float(update.norm()))
            along = F.normalize(told.flatten(), dim=0).view_as(told)
            update = update - (update * along).sum() * along
            moved.append(point - (told + 6.5 * update) / 2)
        points = torch.stack(moved)
    sampled = sample_flow(Field(2.0), NOISE, steps=2, guidance=7.5, norm_guidance=True)
    torch.testing.assert_close(sampled.double(), points, atol=1e-4, rtol=1e-4)


def test_a_prediction_that_needs_no_condition_is_not_guided() -> None:
    """The update is zero: no division by its length, in the gradient neither."""
    noise = NOISE.clone().requires_grad_()
    sampled = sample_flow(Field(0.0), noise, steps=3, guidance=7.5, norm_guidance=True)
    torch.testing.assert_close(sampled, DATA, atol=1e-5, rtol=0)
    sampled.sum().backward()
    assert noise.grad is not None and bool(torch.isfinite(noise.grad).all())


def test_the_noise_decides_the_dtype() -> None:
    assert sample_flow(lambda x, t: x.bfloat16(), NOISE, steps=2, guidance=2.0).dtype == torch.float32
    assert sample_flow(lambda x, t: x.float(), NOISE.double(), steps=2).dtype == torch.float64


@pytest.mark.parametrize(("keywords", "message"), [
    ({"steps": 0}, r"steps=0: expected 1 \.\.\. 1000"),
    ({"steps": 1001}, "steps=1001"),
    ({"steps": 2, "guidance": float("nan")}, "guidance=nan"),
])  # fmt: skip
def test_out_of_range(keywords: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_flow(Field(), NOISE, **keywords)  # pyright: ignore[reportArgumentType]
