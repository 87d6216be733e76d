"""M3: the equations of arXiv 2405.17430, and what training on all sets at once gives."""

from __future__ import annotations

import pytest
import torch
from torch import Generator
from torch.nn import functional as F

from tokenzoo.image.matryoshka import Matryoshka, MatryoshkaConfig, pool_windows

from .picture_reader import PictureReader, draw_cells
from .toys_visual import SmallMatryoshkaConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def make(seed: int = 0) -> Matryoshka:
    torch.manual_seed(seed)
    return Matryoshka(SmallMatryoshkaConfig())


def test_a_window_becomes_its_mean() -> None:
    grid = torch.tensor([[1.0, 3.0, 5.0, 7.0], [1.0, 3.0, 9.0, 11.0]])[None, :, :, None]
    assert pool_windows(grid, 1).flatten().tolist() == [5.0]
    two_rows = torch.cat([grid, grid + 10], dim=1)
    assert pool_windows(two_rows, 2).flatten().tolist() == [2.0, 8.0, 12.0, 18.0]
    assert pool_windows(two_rows, 4).flatten().tolist() == two_rows.flatten().tolist()


def test_coarse_sets_are_means_of_the_next_finer() -> None:
    """X_{i-1} = AvgPool(X_i), on the sides of the paper."""
    finest = torch.randn(2, 24, 24, 3, generator=Generator().manual_seed(0), dtype=torch.float64)
    expected = finest.permute(0, 3, 1, 2)
    for side, window in ((12, 2), (6, 2), (3, 2), (1, 3)):
        expected = F.avg_pool2d(expected, window)
        torch.testing.assert_close(pool_windows(finest, side), expected.flatten(2).mT)


def test_the_default_is_the_model_of_the_paper() -> None:
    facts = MatryoshkaConfig().facts()
    assert facts.keeps == (1, 9, 36, 144, 576) and facts.max_tokens == 576 and facts.latent_dim == 4096
    assert not facts.has_decoder and facts.nested is None and facts.makes_fewer


def test_all_sets_come_of_one_look() -> None:
    model, (images, _) = make(), draw_cells(Generator().manual_seed(0), batch=3)
    looks = []
    model.encoder.register_forward_pre_hook(lambda module, given: looks.append(given))
    sets = model.nested_sets(images)
    assert len(looks) == 1
    assert [tokens.values.shape for tokens in sets] == [(3, 1, 8), (3, 4, 8), (3, 16, 8)]
    for tokens in sets:
        assert tokens.values.requires_grad
        count = tokens.values.shape[1]
        torch.testing.assert_close(model.encode(images, keep=count).values, tokens.values.detach())


def test_quality_grows_with_length() -> None:
    """One model, trained on the mean loss over its sets, reads out of each what means can tell.

    Of 16 tosses with variance 1/4, the mean of a window of n leaves (1 - 1/n) / 4 unknown.
    """
    model, chance = make(), Generator().manual_seed(1)
    reader = PictureReader(8)
    optimizer = torch.optim.Adam([*model.parameters(), *reader.parameters()], lr=3e-3)
    for _ in range(150):
        images, tosses = draw_cells(chance)
        losses = [F.mse_loss(reader(tokens.values), tosses) for tokens in model.nested_sets(images)]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    images, tosses = draw_cells(Generator().manual_seed(2), batch=512)
    with torch.no_grad():
        errors = [
            float(F.mse_loss(reader(model.encode(images, keep=count).values), tosses)) for count in (1, 4, 16)
        ]
    assert errors == pytest.approx([0.25 * 15 / 16, 0.25 * 3 / 4, 0.0], abs=0.01)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((3, 4), "3 does not divide 4"),
        ((2, 3), "2 does not divide 3"),
        ((4, 2), "expected rising numbers from 1"),
        ((), "expected rising numbers from 1"),
        ((0, 2), "expected rising numbers from 1"),
        ((8,), "on a feature map of 4 a side: expected no more"),
    ],
)
def test_sets_that_do_not_nest(sides: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmallMatryoshkaConfig(sides=sides)
