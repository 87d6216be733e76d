"""The order of batches: decided by seed and epoch, shared by processes, kept across an interruption."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.zoo.batches import Batches, FirstItems, Source


class Numbers(Source):
    """Item i is (i, a random number)."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int], generator: Generator | None) -> Tensor:
        drawn = (
            torch.zeros(len(indices)) if generator is None else torch.rand(len(indices), generator=generator)
        )
        return torch.stack([torch.tensor(indices), drawn], dim=1)


def items(batches: Batches) -> list[int]:
    return [int(item) for batch in batches for item in batch[:, 0]]


def test_an_epoch_holds_every_item_once_and_the_next_is_another_order() -> None:
    batches = Batches(Numbers(12), 3, seed=0)
    first, second = items(batches), items(batches)
    assert len(batches) == 4
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second and first != list(range(12))
    assert items(Batches(Numbers(12), 3, seed=0)) == first
    assert items(Batches(Numbers(12), 3, seed=1)) != first


def test_without_a_seed_nothing_is_random_and_nothing_left_out() -> None:
    batches = Batches(Numbers(5), 2)
    assert len(batches) == 3
    next(iter(batches))
    assert items(batches) == items(batches) == [0, 1, 2, 3, 4]
    assert all((batch[:, 1] == 0).all() for batch in batches)


@pytest.mark.parametrize("taken", [0, 1, 4, 5, 8, 11])
def test_a_resume_goes_on_with_the_next_batch(taken: int) -> None:
    def stream(batches: Batches, count: int) -> list[Tensor]:
        found: list[Tensor] = []
        while len(found) < count:
            for batch in batches:
                found.append(batch)
                if len(found) == count:
                    break
        return found

    whole = stream(Batches(Numbers(13), 3, seed=7), 12)
    interrupted = Batches(Numbers(13), 3, seed=7)
    stream(interrupted, taken)
    resumed = Batches(Numbers(13), 3, seed=7)
    resumed.load_state_dict(interrupted.state_dict())
    for batch, expected in zip(stream(resumed, 12 - taken), whole[taken:], strict=True):
        assert torch.equal(batch, expected)


def test_other_data_starts_a_new_epoch_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    batches = Batches(Numbers(12), 3, seed=0)
    with caplog.at_level(logging.WARNING, "tokenzoo"):
        batches.load_state_dict({"epoch": 0, "position": 1, "length": 9})
    assert "had 9 batches when the checkpoint was saved and has 4 now" in caplog.text
    assert len(items(batches)) == 12


def test_processes_share_an_epoch() -> None:
    shares = [Batches(Numbers(13), 2, seed=3, rank=rank, world_size=3) for rank in range(3)]
    found = [items(share) for share in shares]
    assert [len(share) for share in shares] == [2, 2, 2] and [len(each) for each in found] == [4, 4, 4]
    assert len({item for each in found for item in each}) == 12


def test_a_worker_reads_what_the_process_would() -> None:
    alone = list(Batches(Numbers(6), 2, seed=0))
    state = torch.get_rng_state()
    read_ahead = list(Batches(Numbers(6), 2, seed=0, num_workers=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(alone, read_ahead, strict=True))


def test_too_few_items_for_a_batch() -> None:
    with pytest.raises(
        ValueError, match="3 items do not fill a batch of 2 on each of 2 processes; lower batch_size"
    ):
        Batches(Numbers(3), 2, seed=0, world_size=2)


def test_first_items_are_spread() -> None:
    assert items(Batches(FirstItems(Numbers(10), 3), 2)) == [0, 3, 6]
    assert items(Batches(FirstItems(Numbers(2), 3), 2)) == [0, 1]
