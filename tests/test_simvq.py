"""SimVQ: the codes are an image of a frozen base; the gradient, the folding, DDP."""

import copy

import pytest
import torch
from torch.nn import functional as F

from tokenzoo.zoo.simvq import SimVQ

from .two_ranks import results


def make(**options: object) -> SimVQ:
    torch.manual_seed(0)
    return SimVQ(23, 5, **options)  # pyright: ignore[reportArgumentType]


def latents(rows: int = 40) -> torch.Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_the_published_ones(bias: bool) -> None:
    quantizer = make(bias=bias, dim_base=7, commitment_weight=0.3)
    z, upstream = latents().requires_grad_(), latents().flip(0)
    quantized = quantizer(z)
    ((quantized.latents * upstream).sum() + quantized.loss).backward()

    copied = copy.deepcopy(quantizer.projection)
    reference = z.detach().clone().requires_grad_()
    codebook = copied(quantizer.base)
    ids = torch.cdist(reference, codebook).argmin(dim=1)
    q = codebook[ids]
    loss = 0.3 * F.mse_loss(reference, q.detach()) + F.mse_loss(q, reference.detach())
    copied.zero_grad()
    (((reference + (q - reference).detach()) * upstream).sum() + loss).backward()
    assert torch.equal(quantized.values, ids)
    torch.testing.assert_close(quantized.loss, loss)
    torch.testing.assert_close(z.grad, reference.grad)
    torch.testing.assert_close(quantizer.projection.weight.grad, copied.weight.grad)
    assert set(quantizer.state_dict()) == {"base", "projection.weight"} | (
        {"projection.bias"} if bias else set()
    )


def test_one_step_moves_codes_that_nobody_used() -> None:
    quantizer = make()
    before = quantizer.decode(torch.arange(23)).detach()
    quantizer(latents(1)).loss.backward()
    torch.optim.SGD(quantizer.parameters(), lr=1.0).step()
    after = quantizer.decode(torch.arange(23)).detach()
    assert ((after - before).norm(dim=1) > 0).all()


def test_forward_is_decode_with_and_without_gradients() -> None:
    """The codebook folded once and the one made in each training step are equal bit for bit."""
    quantizer = make()
    quantized = quantizer(latents())
    quantizer.eval()
    with torch.no_grad():
        assert torch.equal(quantizer.decode(quantized.values), quantized.latents)
        assert torch.equal(quantizer.encode(latents()), quantized.values)


def test_the_map_is_folded_once_until_a_weight_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = make().eval()
    calls = []
    project = quantizer._project
    monkeypatch.setattr(quantizer, "_project", lambda: calls.append(1) or project())
    ids = torch.arange(23)
    with torch.inference_mode():
        for _ in range(3):
            first = quantizer.decode(quantizer.encode(latents()))
        assert len(calls) == 1
    with torch.no_grad():
        quantizer.projection.bias.add_(1)
        torch.testing.assert_close(quantizer.decode(quantizer.encode(latents()))[:0], first[:0])
        moved = quantizer.decode(ids)
        assert len(calls) == 2
        quantizer.load_state_dict({name: each * 2 for name, each in quantizer.state_dict().items()})
        assert not torch.equal(quantizer.decode(ids), moved)
        assert quantizer.double().decode(ids).dtype == torch.float64
    assert quantizer.decode(ids).requires_grad


def test_weights_made_in_inference_mode_work() -> None:
    with torch.inference_mode():
        quantizer = make().eval()
        assert quantizer.decode(quantizer.encode(latents())).shape == (40, 5)


def test_the_base_is_spread_as_the_paper_has_it() -> None:
    torch.manual_seed(0)
    base = SimVQ(4096, 64).base
    torch.testing.assert_close(base.std(), torch.tensor(64**-0.5), rtol=0.01, atol=0)
    with pytest.raises(ValueError, match="dim_base=0"):
        SimVQ(4, 4, dim_base=0)


def test_ranks_stay_equal_after_a_step_on_different_rows() -> None:
    first, second = results()["training"]
    assert {name.split()[0] for name in first} == {"SimVQ", "VectorQuantizer"}
    assert all(torch.equal(first[name], second[name]) for name in first)
