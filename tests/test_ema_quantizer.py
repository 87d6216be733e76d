"""EMA codebooks: the published equations, padding, what training moves and what it must not, two ranks."""

import pytest
import torch
from torch.nn import functional as F

from tokenzoo.zoo.codebook_care import KMeansStart, Revival
from tokenzoo.zoo.ema_quantizer import EMAVectorQuantizer, centroids

from .two_ranks import ema, results, rows, state


def make(**options: object) -> EMAVectorQuantizer:
    torch.manual_seed(0)
    return EMAVectorQuantizer(11, 4, **options)  # pyright: ignore[reportArgumentType]


def latents(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("l2", [False, True])
def test_three_steps_are_the_published_equations(l2: bool) -> None:
    """VQ-VAE, equations 6 to 8, with the smoothing of EnCodec, written out with one-hot products."""
    quantizer = make(decay=0.7, epsilon=1e-3, l2=l2, normalise_lookup=l2)
    codebook, sums, counts = quantizer.codebook.clone(), quantizer.sums.clone(), torch.ones(11)
    for step in range(3):
        z = latents(2, 9, seed=step)
        flat = F.normalize(z, dim=-1).flatten(0, 1) if l2 else z.flatten(0, 1)
        codes = F.normalize(codebook, dim=-1) if l2 else codebook
        one_hot = F.one_hot(torch.cdist(flat, codes).argmin(dim=1), 11).float()
        quantized = quantizer(z)
        assert torch.equal(quantized.latents.flatten(0, 1), codes[quantized.values.flatten()])
        torch.testing.assert_close(quantized.loss, F.mse_loss(flat, one_hot @ codes))
        counts = 0.7 * counts + 0.3 * one_hot.sum(dim=0)
        sums = 0.7 * sums + 0.3 * one_hot.T @ flat
        total = counts.sum()
        codebook = sums / ((counts + 1e-3) / (total + 11e-3) * total)[:, None]
        torch.testing.assert_close(quantizer.counts, counts)
        torch.testing.assert_close(quantizer.sums, sums)
        torch.testing.assert_close(quantizer.codebook, codebook)
        codebook = quantizer.codebook.clone()  # without the differences in the last bit


def test_the_two_smoothings() -> None:
    counts, sums = torch.tensor([0.0, 2.0]), torch.tensor([[1.0], [4.0]])
    floor = centroids(counts, sums, epsilon=0.5, smoothing="floor")
    assert floor.tolist() == [[2], [2]]
    laplace = centroids(counts, sums, epsilon=0.5)
    torch.testing.assert_close(laplace, torch.tensor([[1 / (0.5 / 3 * 2)], [4 / (2.5 / 3 * 2)]]))


def test_only_a_training_forward_moves_statistics() -> None:
    quantizer = make(start=KMeansStart(), revival=Revival(every=1))
    before = state(quantizer)
    quantizer.encode(latents(9))
    quantizer.eval()
    quantizer(latents(9))
    quantizer.encode(latents(9))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(quantizer).items())
    quantizer.train()(latents(9))
    assert not torch.equal(quantizer.codebook, before["codebook"])
    assert {name for name, _ in quantizer.named_parameters()} == set()
    assert set(before) == {"codebook", "sums", "counts", "started"} and before["started"].shape == (1,)


def test_the_gradient_goes_straight_through_and_the_loss_pulls_latents() -> None:
    quantizer = make(commitment_weight=0.5)
    z, upstream = latents(6).requires_grad_(), latents(6, seed=2)
    quantized = quantizer(z)
    ((quantized.latents * upstream).sum() + quantized.loss).backward()
    pull = 0.5 * 2 * (z.detach() - quantized.latents.detach()) / z.numel()
    torch.testing.assert_close(z.grad, upstream + pull)


@pytest.mark.parametrize("valid", [None, torch.zeros(0, dtype=torch.bool)])
def test_a_step_without_latents_moves_nothing(valid: torch.Tensor | None) -> None:
    quantizer = make()
    before = state(quantizer)
    for _ in range(3):
        quantized = quantizer(latents(0), valid=valid)
        assert quantized.loss.item() == 0
        quantizer(latents(4), valid=torch.zeros(4, dtype=torch.bool))
    assert torch.equal(quantizer.counts, before["counts"]) and torch.equal(quantizer.sums, before["sums"])
    torch.testing.assert_close(quantizer.codebook, before["codebook"])


def test_a_latent_that_overflowed_spoils_no_code() -> None:
    quantizer, plain = make(start=KMeansStart()), make(start=KMeansStart())
    for seed in range(2):
        batch = latents(20, seed=seed)
        broken = torch.cat([batch, torch.tensor([[torch.nan, 0, 0, 0], [torch.inf, 0, 0, 0]])])
        quantizer(broken, generator=torch.Generator().manual_seed(0))
        plain(batch, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(tensor, quantizer.get_buffer(name)) for name, tensor in state(plain).items())


def test_training_in_bfloat16_is_refused_and_autocast_changes_nothing() -> None:
    """With decay 0.99 a step of a bfloat16 average rounds to nothing: |update| < 2**-8 |value|."""
    with pytest.raises(ValueError, match=r"statistics in torch\.bfloat16.*quantizer\.float\(\)"):
        make().bfloat16()(latents(5))
    plain, mixed = make(), make()
    expected = plain(latents(9).bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mixed(latents(9).bfloat16())
    assert torch.equal(found.values, expected.values) and torch.equal(found.loss, expected.loss)
    assert torch.equal(mixed.sums, plain.sums)
    half = make().eval().bfloat16()
    assert torch.equal(half(latents(9)).latents, half.decode(half.encode(latents(9))))


def test_the_codebook_learns_the_clusters_of_its_data() -> None:
    """Eight far clusters, a start and a revival: every code finds one, and the error is that of the noise."""
    quantizer = EMAVectorQuantizer(8, 2, decay=0.9, start=KMeansStart(batches=2), revival=Revival())
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 2, generator=generator) * 20
    for _ in range(60):
        batch = centres[torch.randint(8, (128,), generator=generator)]
        quantized = quantizer(batch + 0.1 * torch.randn(128, 2, generator=generator), generator=generator)
    assert torch.cdist(centres, quantizer.codebook).min(dim=1).values.max() < 0.1
    assert quantized.loss < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, "0 < decay < 1"),
        ({"epsilon": 0.0}, "0 < epsilon"),
        ({"smoothing": "none"}, "'laplace' or 'floor'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_two_ranks_have_the_statistics_of_one_process() -> None:
    """Unequal halves of each batch, against the whole batch."""
    whole = ema()
    for seed in range(3):
        whole(rows(seed))
    first, second = results()["statistics"]
    for name, tensor in state(whole).items():
        torch.testing.assert_close(first[name], tensor)
        assert torch.equal(first[name], second[name]), "bit for bit on all ranks"


def test_a_rank_without_rows_hangs_nobody() -> None:
    first, second = results()["empty_rank"]
    assert all(torch.equal(first[name], second[name]) and first[name].isfinite().all() for name in first)
    assert first["started"].item() == 1
