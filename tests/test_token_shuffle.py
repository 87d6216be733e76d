"""Token-Shuffle, arXiv 2504.17789: rearranging loses nothing, and squeezing only what is in use."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.image.token_shuffle import (
    Shuffle,
    TokenShuffle,
    TokenShuffleConfig,
    Unshuffle,
    merge_windows,
    split_windows,
)

from .toys_visual import SmallTokenShuffleConfig

pytestmark = pytest.mark.usefixtures("one_thread")

DIM, SIDE = 16, 4


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def test_windows_lie_side_by_side() -> None:
    places = torch.arange(16)[None, :, None]
    assert merge_windows(places, 4, 2)[0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]
    wide = torch.arange(8)[None, :, None]
    assert merge_windows(wide, 2, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


@pytest.mark.parametrize("window", [1, 2, 3, 6])
def test_the_rearrangement_and_its_inverse_are_the_identity(window: int) -> None:
    tokens = draw((2, 36, 5))
    merged = merge_windows(tokens, 6, window)
    assert merged.shape == (2, 36 // window**2, 5 * window**2)
    assert torch.equal(split_windows(merged, 6, window), tokens)


def test_idle_dimensions_make_room_for_the_neighbours() -> None:
    """Tokens of d dimensions that use d / s^2 of them come back whole, with the maps that say which."""
    shuffle, unshuffle = Shuffle(DIM, 2), Unshuffle(DIM, 2)
    basis = torch.linalg.qr(draw((DIM, DIM // 4), seed=1)).Q
    with torch.no_grad():
        shuffle.squeeze.weight.copy_(basis.T)
        unshuffle.widen.weight.copy_(basis)
        shuffle.squeeze.bias.zero_()
        unshuffle.widen.bias.zero_()
        tokens = draw((2, SIDE**2, DIM // 4)) @ basis.T
        fused = shuffle(tokens, SIDE)
        assert fused.shape == (2, SIDE**2 // 4, DIM)
        torch.testing.assert_close(unshuffle(fused, SIDE), tokens)


def share_lost(rank: int) -> float:
    """Of the variance of tokens that use `rank` dimensions, after learning to shuffle and unshuffle them."""
    torch.manual_seed(0)
    shuffle, unshuffle = Shuffle(DIM, 2), Unshuffle(DIM, 2)
    optimizer = torch.optim.Adam([*shuffle.parameters(), *unshuffle.parameters()], lr=1e-2)
    basis, chance = torch.linalg.qr(draw((DIM, rank), seed=1)).Q, Generator().manual_seed(2)
    error = torch.tensor(torch.nan)
    for _ in range(200):
        tokens = torch.randn(32, SIDE**2, rank, generator=chance) @ basis.T
        error = (unshuffle(shuffle(tokens, SIDE), SIDE) - tokens).square().mean() / tokens.square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return float(error.detach())


def test_it_learns_to_be_the_identity_on_redundant_tokens_only() -> None:
    """A window of s^2 tokens has d dimensions to itself: d / s^2 each, and no more."""
    assert share_lost(DIM // 4) < 0.02
    assert share_lost(DIM) > 0.7


def test_the_tokenizer_gives_its_places_back() -> None:
    torch.manual_seed(0)
    model = TokenShuffle(SmallTokenShuffleConfig()).eval()
    images = torch.rand(2, 3, 16, 16)
    tokens = model.encode(images)
    assert tokens.values.shape == (2, 4, 8)
    assert model.decode_latents(tokens).shape == (2, 16, 8) == model(images).signal.shape
    assert TokenShuffleConfig().facts().max_tokens == 144


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 3}, "window=3 on a feature map of 4 a side: expected a divisor"),
        ({"dim": 6}, "dim=6 with window=2: expected a multiple of its square"),
        ({"window": 5}, "window=5: expected 1 ... 4"),
    ],
)
def test_windows_that_do_not_fit(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmallTokenShuffleConfig(**wrong)
