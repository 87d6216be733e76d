"""The rules of chance: without a generator repeatable, with one as the official models draw."""

import pytest
import torch
from torch import Generator

from tokenzoo.zoo.chance import check_generators, draw_noise, select_generators


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def test_without_a_generator_every_item_gets_the_noise_of_seed_zero() -> None:
    noise = draw_noise((3, 2, 5), None)
    expected = torch.randn(2, 5, generator=seeded(0))
    assert noise.dtype == torch.float32 and noise.device.type == "cpu"
    for item in noise:
        assert torch.equal(item, expected)
    noise[0, 0, 0] = 7  # items do not share memory
    assert noise[1, 0, 0] != 7
    assert torch.equal(draw_noise((1, 2, 5), None)[0], expected)


def test_torchs_own_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw_noise((2, 3), None)
    draw_noise((2, 3), seeded(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_generator_draws_the_whole_batch_at_once() -> None:
    generator = seeded(4)
    first, second = draw_noise((3, 2), generator), draw_noise((3, 2), generator)
    again = seeded(4)
    assert torch.equal(first, torch.randn(3, 2, generator=again))
    assert torch.equal(second, torch.randn(3, 2, generator=again))


def test_a_list_draws_item_by_item() -> None:
    noise = draw_noise((2, 3, 4), [seeded(8), seeded(9)])
    assert torch.equal(noise[0], torch.randn(3, 4, generator=seeded(8)))
    assert torch.equal(noise[1:], draw_noise((1, 3, 4), [seeded(9)]))
    shared = seeded(8)
    both = draw_noise((2, 3), (shared, shared))
    assert not torch.equal(both[0], both[1])
    assert draw_noise((0, 3), []).shape == (0, 3)


def test_a_list_has_one_per_item() -> None:
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"{count} generators for 2 items: give one, or one per item"):
            draw_noise((2, 3), [seeded(0)] * count)
    for fine in (None, seeded(0), [seeded(0)] * 2):
        check_generators(fine, 2)


def test_the_generators_of_some_items() -> None:
    each = [seeded(seed) for seed in range(4)]
    assert select_generators(each, [2, 0]) == [each[2], each[0]]
    assert select_generators(None, [1]) is None
    assert select_generators(each[0], [1, 2]) is each[0]
