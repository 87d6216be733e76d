"""The rules of chance: without a generator repeatable, with one as the official models draw."""

import pytest
import torch
from torch import Generator

from tokenzoo.zoo.chance import (
    check_generators,
    draw_noise,
    item_generators,
    one_generator,
    seed_of,
    select_generators,
)
from tokenzoo.zoo.chance import seeded as torch_seeded


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


def test_what_an_item_draws_depends_on_seed_step_and_place_alone() -> None:
    whole = draw_noise((4, 3), item_generators(7, 2, range(4)))
    dealt = [draw_noise((2, 3), item_generators(7, 2, range(rank, 4, 2))) for rank in range(2)]
    assert torch.equal(torch.stack(dealt, dim=1).flatten(0, 1), whole) and len(whole.unique()) == 12
    for others in (item_generators(8, 2, range(4)), item_generators(7, 3, range(4))):
        assert not (draw_noise((4, 3), others) == whole).any()


def test_every_word_of_a_seed_counts() -> None:
    """Torch takes the lower 32 bits of a seed on a CPU and drops the others."""
    assert torch.equal(torch.rand(2, generator=seeded(1 << 40)), torch.rand(2, generator=seeded(0)))
    seeds = {seed_of(a, b, c) for a in range(9) for b in range(9) for c in ("x", "y")}
    assert len(seeds) == 162 and all(0 <= seed < 2**32 for seed in seeds)


def test_one_generator_of_many() -> None:
    first, second = seeded(0), seeded(1)
    assert one_generator([first, second]) is first and one_generator(second) is second
    assert one_generator(None) is torch.default_generator is one_generator([])


def test_torchs_own_draws_are_seeded_inside_and_go_on_outside() -> None:
    torch.manual_seed(5)
    without = torch.rand(2), torch.rand(2)
    torch.manual_seed(5)
    before = torch.rand(2)
    with torch_seeded(9, torch.device("cpu")):
        inside = torch.rand(2)
    assert torch.equal(torch.stack([before, torch.rand(2)]), torch.stack(without))
    with torch_seeded(9, torch.device("cpu")):
        assert torch.equal(torch.rand(2), inside)
