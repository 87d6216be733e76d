"""Nested dropout draws what it says: measured against the exact probabilities."""

from typing import Any

import pytest
import torch
from torch import Generator

from tokenzoo.zoo.length_policy import LengthPolicy

DRAWS = 40_000


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def shares(policy: LengthPolicy) -> dict[int, float]:
    lengths = policy.sample(DRAWS, generator=seeded())
    assert lengths.dtype == torch.int64 and lengths.shape == (DRAWS,) and lengths.device.type == "cpu"
    values, counts = lengths.unique(return_counts=True)
    return dict(zip(values.tolist(), (counts / DRAWS).tolist(), strict=True))


def assert_distributed(policy: LengthPolicy, expected: dict[int, float]) -> None:
    """Every share within five standard deviations, and nothing outside the support."""
    measured = shares(policy)
    assert sum(expected.values()) == pytest.approx(1)
    assert set(measured) <= set(expected)
    for length, share in expected.items():
        deviation = (share * (1 - share) / DRAWS) ** 0.5
        assert measured.get(length, 0) == pytest.approx(share, abs=5 * deviation), length


def test_uniform() -> None:
    assert_distributed(LengthPolicy(10), dict.fromkeys(range(1, 11), 0.1))
    assert_distributed(LengthPolicy(1), {1: 1})


def test_power_of_two() -> None:
    powers = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert_distributed(LengthPolicy(256, "power_of_two"), dict.fromkeys(powers, 1 / 9))
    # The full length is there even if it is no power of two.
    assert_distributed(LengthPolicy(100, "power_of_two"), dict.fromkeys((1, 2, 4, 8, 16, 32, 64, 100), 1 / 8))
    assert_distributed(LengthPolicy(1, "power_of_two"), {1: 1})


def test_uniform_power_of_two_is_the_table_of_flextok() -> None:
    table = {
        1: 1 / 256,
        2: 1 / 256,
        4: 1 / 128,
        8: 1 / 64,
        16: 1 / 32,
        32: 1 / 16,
        64: 1 / 8,
        128: 1 / 4,
        256: 1 / 2,
    }
    assert_distributed(LengthPolicy(256, "uniform_power_of_two"), table)
    # facts/image.md, measured on the official code
    measured = [0.0039, 0.0039, 0.0078, 0.0156, 0.031, 0.0625, 0.125, 0.25, 0.5]
    assert list(table.values()) == pytest.approx(measured, rel=0.01)
    assert_distributed(LengthPolicy(5, "uniform_power_of_two"), {1: 0.2, 2: 0.2, 4: 0.4, 5: 0.2})


def test_fixed() -> None:
    assert_distributed(LengthPolicy(8, "fixed", counts=(1, 3, 7)), dict.fromkeys((1, 3, 7), 1 / 3))


def test_a_share_keeps_everything() -> None:
    policy = LengthPolicy(4, full=0.5)
    assert_distributed(policy, {1: 0.125, 2: 0.125, 3: 0.125, 4: 0.625})
    assert LengthPolicy(9, full=1.0).sample(50).tolist() == [9] * 50


def test_one_draw_a_batch_or_a_sample() -> None:
    together = LengthPolicy(64, per="batch")
    rows = torch.stack([together.sample(7, generator=seeded(seed)) for seed in range(20)])
    assert bool((rows == rows[:, :1]).all())
    assert len(rows[:, 0].unique()) > 10
    apart = LengthPolicy(64, per="sample").sample(50, generator=seeded())
    assert len(apart.unique()) > 20
    together.sample(3)[0] = 99  # not a view of one number
    half = LengthPolicy(64, per="batch", full=0.5)
    assert {len(half.sample(5, generator=seeded(seed)).unique()) for seed in range(20)} == {1}


@pytest.mark.parametrize("distribution", ["uniform", "power_of_two", "uniform_power_of_two", "fixed"])
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_seeds_repeat(distribution: Any, per: Any) -> None:
    policy = LengthPolicy(
        32, distribution, counts=(1, 2) if distribution == "fixed" else (), per=per, full=0.1
    )
    assert torch.equal(policy.sample(20, generator=seeded(5)), policy.sample(20, generator=seeded(5)))
    torch.manual_seed(3)
    first = policy.sample(20)
    torch.manual_seed(3)
    assert torch.equal(policy.sample(20), first)
    before = torch.get_rng_state()
    policy.sample(20, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    empty = policy.sample(0, generator=seeded())
    assert empty.shape == (0,) and empty.dtype == torch.int64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"longest": 0}, "longest=0: expected at least 1"),
        ({"distribution": "normal"}, "distribution 'normal': expected uniform, power_of_two"),
        ({"per": "epoch"}, "per='epoch': expected 'batch' or 'sample'"),
        ({"presentation": "hide"}, "presentation 'hide': expected drop, mask_token, attention_mask"),
        ({"distribution": "fixed"}, "counts go with distribution='fixed', and only with it"),
        ({"counts": (1,)}, "counts go with distribution='fixed', and only with it"),
        ({"distribution": "fixed", "counts": (1, 9)}, r"counts \(1, 9\): expected 1 \.\.\. 8"),
        ({"full": 1.5}, r"full=1\.5: expected 0 \.\.\. 1"),
        ({"full": float("nan")}, "full=nan"),
    ],
)
def test_wrong_settings_say_what_is_expected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LengthPolicy(**dict[str, Any](longest=8) | wrong)


def test_a_generator_an_item_makes_its_length_its_own() -> None:
    policy = LengthPolicy(64, full=0.2)
    whole = policy.sample(6, generator=[seeded(seed) for seed in range(6)])
    dealt = [policy.sample(3, generator=[seeded(seed) for seed in range(rank, 6, 2)]) for rank in range(2)]
    assert torch.equal(torch.stack(dealt, dim=1).flatten(), whole) and len(set(whole.tolist())) > 2
    assert policy.sample(0, generator=[]).tolist() == []
    with pytest.raises(ValueError, match="2 generators for 3 items"):
        policy.sample(3, generator=[seeded(0), seeded(1)])
    with pytest.raises(ValueError, match="per='batch': all items share one draw"):
        LengthPolicy(64, per="batch").sample(1, generator=[seeded()])
