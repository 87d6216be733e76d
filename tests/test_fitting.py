"""Principal axes and k-means against known answers."""

import pytest
import torch

from tokenzoo.zoo.fitting import distant_rows, kmeans, principal_axes


def test_principal_axes_are_those_of_a_known_covariance():
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
    rows = torch.randn(20_000, 4, generator=generator) * torch.tensor([4.0, 2.0, 1.0, 0.5]) @ basis.T
    axes = principal_axes(rows, 3)
    assert torch.allclose(axes.T @ axes, torch.eye(3), atol=1e-5)
    assert torch.allclose((axes * basis[:, :3]).sum(0).abs(), torch.ones(3), atol=0.01)
    assert (axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all()


def test_all_axes_rebuild_the_rows():
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    axes = principal_axes(rows, 6)
    assert torch.allclose(rows @ axes @ axes.T, rows, atol=1e-5)
    with pytest.raises(ValueError, match=r"dim=7: expected 1 \.\.\. 6"):
        principal_axes(rows, 7)


def test_kmeans_finds_separated_clusters_whatever_the_start():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    noise = 0.1 * torch.randn(300, 2, generator=torch.Generator().manual_seed(2))
    rows = centres.repeat(100, 1) + noise
    codes = kmeans(rows, 3, generator=torch.Generator().manual_seed(3), rounds=20)
    found = torch.cdist(centres, codes).min(1)
    assert (found.values < 0.1).all()
    assert sorted(found.indices.tolist()) == [0, 1, 2]


def test_kmeans_is_repeatable_and_takes_fewer_rows_than_codes():
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    first, again = (kmeans(rows, 8, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.cdist(rows, first).min(1).values.max() < 1e-5
    with pytest.raises(ValueError, match="k-means of no rows"):
        kmeans(rows[:0], 2, generator=torch.Generator())


def test_a_spread_start_finds_clusters_that_a_random_one_misses():
    """Sixteen far clusters of very unequal size, in 10 draws: random rows leave small ones without a code."""
    generator = torch.Generator().manual_seed(6)
    centres = 100 * torch.randn(16, 3, generator=generator)
    rows = centres.repeat_interleave(torch.tensor([500] * 4 + [10] * 12), dim=0)
    rows = rows + 0.1 * torch.randn(rows.shape, generator=generator)

    def missed(spread):
        codes = kmeans(rows, 16, generator=generator, spread=spread)
        return int((torch.cdist(centres, codes).min(1).values > 1).sum())

    assert [missed(True) for _ in range(10)] == [0] * 10
    assert min(missed(False) for _ in range(10)) > 0


def test_distant_rows_are_rows_and_differ():
    rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(7))
    for count in (1, 5, 100, 200):
        drawn = distant_rows(rows, count, torch.Generator().manual_seed(8))
        assert len(drawn.unique(dim=0)) == count
        assert (drawn[:, None] == rows).all(2).any(1).all()


def test_spherical_kmeans_gives_codes_of_length_one():
    rows = torch.nn.functional.normalize(
        torch.randn(60, 3, generator=torch.Generator().manual_seed(9)), dim=1
    )
    codes = kmeans(rows, 5, generator=torch.Generator().manual_seed(10), spherical=True)
    assert torch.allclose(codes.norm(dim=1), torch.ones(5))
