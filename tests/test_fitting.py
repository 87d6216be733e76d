"""Principal axes and k-means against known answers."""

import pytest
import torch

from tokenzoo.zoo.fitting import kmeans, principal_axes


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
