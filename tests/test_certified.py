"""The bfloat16 search with a certificate finds what float32 finds, and knows when it cannot."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenzoo.kernels import certified, vq
from tokenzoo.kernels.certified import CertifiedSearch
from tokenzoo.kernels.vq import nearest_code


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def search(latents: Tensor, codebook: Tensor, bias: Tensor | None = None) -> Tensor | None:
    bias = codebook.square().sum(dim=1) / -2 if bias is None else bias
    return CertifiedSearch(codebook, bias, (256, 256))(latents)


def assert_best(found: Tensor | None, latents: Tensor, codebook: Tensor) -> None:
    assert found is not None, "no certificate"
    exact = latents.double() @ codebook.double().T - codebook.double().square().sum(dim=1) / 2
    gap = exact.max(dim=1).values - exact.gather(1, found[:, None]).squeeze(1)
    lengths = latents.double().norm(dim=1) * codebook.double().norm(dim=1).max()
    assert bool((gap <= 1e-6 * lengths).all())


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 300),
    blocks=st.integers(1, 9),
    dim=st.sampled_from([1, 7, 33, 128, 200]),
    spread=st.sampled_from([0.02, 1.0, 30.0]),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    seed=st.integers(0, 1000),
)
def test_what_is_certified_is_the_best(
    rows: int, blocks: int, dim: int, spread: float, scale: float, seed: int
) -> None:
    """Codes of all lengths; latents near codes, between them and far from them."""
    codebook = seeded(64 * blocks, dim, seed=seed) * seeded(64 * blocks, 1, seed=seed + 1).exp() * scale
    latents = codebook[torch.arange(rows) % (64 * blocks)] + spread * scale * seeded(rows, dim, seed=seed + 2)
    found = search(latents, codebook)
    if found is not None:
        assert_best(found, latents, codebook)


def test_typical_data_is_certified_and_equals_the_plain_search() -> None:
    latents, codebook = seeded(800, 160), seeded(2048, 160, seed=1)
    bias = codebook.square().sum(dim=1) / -2
    found = search(latents, codebook)
    assert_best(found, latents, codebook)
    assert found is not None and torch.equal(found, vq.nearest_reference(latents, codebook, bias))


def test_rounding_alone_would_have_been_wrong() -> None:
    """The certificate is needed: bfloat16 scores by themselves name other codes."""
    latents, codebook = seeded(800, 160), seeded(2048, 160, seed=1)
    bias = codebook.square().sum(dim=1) / -2
    rounded = (latents.bfloat16() @ codebook.bfloat16().T).float() + bias
    found = search(latents, codebook)
    assert found is not None
    assert 0.8 < float((rounded.argmax(dim=1) == found).float().mean()) < 1


def test_ties_go_to_the_lowest_index() -> None:
    codebook = seeded(640, 100)
    twice = torch.cat([codebook, codebook])
    found = search(seeded(600, 100, seed=1), twice)
    assert found is not None and torch.equal(found, nearest_code(seeded(600, 100, seed=1), codebook))
    generator = torch.Generator().manual_seed(3)
    lattice = torch.randint(-1, 2, (256, 12), generator=generator).float()
    latents = torch.randint(-1, 2, (200, 12), generator=generator).float()
    found = search(latents, lattice)
    exact = latents @ lattice.T - lattice.square().sum(dim=1) / 2
    assert found is not None and torch.equal(found, exact.argmax(dim=1))


@pytest.mark.parametrize("rows", [3, 17, 300])
@pytest.mark.parametrize("dim", [12, 33, 256])
def test_copies_in_other_groups_tie(rows: int, dim: int) -> None:
    """Candidate groups are scored in products of other shapes, which round differently."""
    codebook, latents = seeded(2560, dim), seeded(rows, dim, seed=1)
    found = CertifiedSearch(
        codebook.repeat(2, 1), codebook.square().sum(dim=1).repeat(2) / -2, vq.tile_shape(5120)
    )(latents)
    assert found is not None and int(found.max()) < 2560
    assert_best(found, latents, codebook)


def test_codes_out_of_the_race_never_win() -> None:
    latents, codebook = seeded(300, 100), seeded(192, 100, seed=1)
    bias = codebook.square().sum(dim=1) / -2
    bias[130:] = -torch.inf
    found = search(latents, codebook, bias)
    assert found is not None and torch.equal(found, vq.nearest_reference(latents, codebook, bias))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.4e38])
def test_no_certificate_for_what_is_not_finite(value: float) -> None:
    latents = seeded(4, 100)
    latents[2, 1] = value
    assert search(latents, seeded(128, 100, seed=1)) is None


def test_no_certificate_for_crowds() -> None:
    """All codes within a rounding of each other: scoring every group again would cost more than it saves."""
    codebook = 1 + seeded(640, 100) * 1e-4
    assert search(seeded(50, 100, seed=1), codebook) is None


@pytest.mark.parametrize("tile", [(256, 64), (256, 128), (1, 640)])
def test_products_without_a_distance(tile: tuple[int, int]) -> None:
    latents, codebook = seeded(300, 64), seeded(640, 64, seed=1)
    found = CertifiedSearch(codebook, torch.zeros(640), tile)(latents)
    assert found is not None and torch.equal(found, (latents @ codebook.T).argmax(dim=1))


def test_the_largest_product_among_a_number_of_codes_that_is_no_multiple() -> None:
    """The codes that fill the last group are out of the race, and do not make products distances."""
    latents, codebook = 0.1 * seeded(600, 32), 5 * seeded(4100, 32, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certified, "_multiplies_bfloat16", lambda: True)
        found = nearest_code(latents, codebook, metric="dot")
    exact = latents.double() @ codebook.double().T
    assert torch.equal(found, exact.argmax(dim=1))


def test_a_latent_on_its_code_is_found() -> None:
    """The distance is all error there, and of either sign."""
    codebook = seeded(640, 96)
    found = search(codebook[::3].contiguous(), codebook)
    assert found is not None and torch.equal(found, torch.arange(640)[::3])


def test_the_public_search_uses_it_where_it_pays_and_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    run = CertifiedSearch.__call__

    def recorded(self: CertifiedSearch, latents: Tensor) -> Tensor | None:
        found = run(self, latents)
        calls.append(found is not None)
        return found

    monkeypatch.setattr(CertifiedSearch, "__call__", recorded)
    monkeypatch.setattr(certified, "_multiplies_bfloat16", lambda: True)
    latents, codebook = seeded(512, 128), seeded(4100, 128, seed=1)
    bias = codebook.square().sum(dim=1) / -2
    assert torch.equal(nearest_code(latents, codebook), vq.nearest_reference(latents, codebook, bias))
    crowd = 1 + codebook * 1e-4
    assert_best(nearest_code(latents, crowd), latents, crowd)
    assert calls == [True, False]
    nearest_code(latents[:100], codebook)
    nearest_code(latents.double(), codebook.double())
    monkeypatch.setattr(certified, "_multiplies_bfloat16", lambda: False)
    nearest_code(latents, codebook)
    assert calls == [True, False]
