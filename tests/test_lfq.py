"""Lookup-free quantization: bits, both orders of them, and the loss of the official codes in float64."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import vector_quantize_pytorch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tokenzoo.zoo import lfq
from tokenzoo.zoo.lfq import LookupFreeQuantizer

from .agreement import check_agreement, draw, same_bits
from .two_ranks import DIM, entropy_quantizer, results, rows

MAKERS: dict[str, Callable[[], LookupFreeQuantizer]] = {
    "plain": lambda: LookupFreeQuantizer(10),
    "low first": lambda: LookupFreeQuantizer(10, high_first=False, scale=0.5),
    "spherical": lambda: LookupFreeQuantizer(10, spherical=True, group_size=4),
    "one bit": lambda: LookupFreeQuantizer(1),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_forward_is_decode_of_encode(name: str, dtype: torch.dtype, autocast: bool) -> None:
    quantizer = MAKERS[name]()
    for shape in ((7,), (2, 9), (0,), ()):
        latents = draw(*shape, quantizer.dim_in).to(dtype)
        quantized = check_agreement(quantizer, latents, autocast=autocast)
        assert bool(quantized.loss.isfinite()) and quantized.loss.dtype == torch.promote_types(
            dtype, torch.float32
        )
        assert quantized.usage is not None and int(quantized.usage.sum()) == quantized.values.numel()


@pytest.mark.parametrize("name", MAKERS)
def test_every_code_comes_back(name: str) -> None:
    quantizer = MAKERS[name]()
    ids = torch.arange(quantizer.codebook_sizes[0])
    assert torch.equal(quantizer.encode(quantizer.decode(ids)), ids)


def test_bits_of_an_id() -> None:
    latents = torch.tensor([[0.3, 0.0, -2.0, 5.0]])
    assert LookupFreeQuantizer(4).encode(latents).item() == 0b1001
    assert LookupFreeQuantizer(4, high_first=False).encode(torch.tensor([[1.0, 1, -1, -1]])).item() == 0b0011
    assert LookupFreeQuantizer(4, scale=2.0).decode(torch.tensor(0b1001)).tolist() == [2, -2, -2, 2]
    lengths = LookupFreeQuantizer(4, spherical=True).decode(torch.arange(16)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(16))
    assert LookupFreeQuantizer(62, group_size=8).encode(torch.ones(62)).item() == 2**62 - 1


def full_loss(latents: Tensor, quantizer: LookupFreeQuantizer, temperature: float) -> Tensor:
    """The loss as papers and codes write it, with the whole codebook: softmax of 2 z.c / temperature."""
    z = F.normalize(latents, dim=-1) * quantizer.scale if quantizer.spherical else latents
    codebook = quantizer.decode(torch.arange(quantizer.codebook_sizes[0])).double()
    logs = torch.log_softmax(2 * z @ codebook.T / temperature, dim=-1)
    sure = -(logs.exp() * logs).sum(dim=-1).mean()
    used = torch.special.entr(logs.exp().mean(dim=0)).sum()
    codes = quantizer.decode(quantizer.encode(latents)).double()
    return 0.25 * F.mse_loss(z, codes) + 0.1 * sure - 0.2 * used


@pytest.mark.parametrize("options", [{}, {"scale": 0.5}, {"spherical": True}, {"high_first": False}])
def test_loss_and_gradient_against_the_whole_codebook(options: dict[str, float]) -> None:
    quantizer = LookupFreeQuantizer(9, code_entropy_weight=0.2, **options)  # pyright: ignore
    latents = (draw(50, 9).double() * 0.05).requires_grad_()
    expected = full_loss(latents, quantizer, 0.01)
    found = quantizer(latents).loss
    # Codes are float32: 1 / sqrt(9) is not a third.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    ours, theirs = (torch.autograd.grad(loss, latents)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spherical", [False, True])
def test_against_lucidrains(spherical: bool) -> None:
    """Ids are equal; the loss is as far away as its logarithm, cut at 1e-5, allows."""
    theirs = vector_quantize_pytorch.LFQ(
        codebook_size=1 << 8, dim=8, commitment_loss_weight=0.25, diversity_gamma=2.0, spherical=spherical
    ).train()
    ours = LookupFreeQuantizer(8, code_entropy_weight=0.2, spherical=spherical)
    latents = draw(1, 600, 8, scale=0.02)
    codes, ids, loss = theirs(latents)
    found = ours(latents)
    assert torch.equal(found.values, ids.long())
    torch.testing.assert_close(found.latents, codes, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.loss, loss, rtol=0, atol=3e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(latents).values, ids.long())
        assert torch.equal(ours(latents).loss, found.loss)


def test_open_magvit2_as_recorded() -> None:
    """From TencentARC/SEED-Voken by its own code, with the latents its encoder made."""
    fixture = load_file(Path(__file__).parent / "golden" / "quantizers" / "open_magvit2.safetensors")
    quantized = LookupFreeQuantizer(10, high_first=False)(fixture["latents"])
    assert torch.equal(quantized.values, fixture["ids"].long())
    assert torch.equal(quantized.latents, fixture["values"])


def test_gradient_passes_the_signs() -> None:
    latents, weights = draw(5, 4).requires_grad_(), draw(5, 4, seed=1)
    (LookupFreeQuantizer(4)(latents).latents * weights).sum().backward()
    assert latents.grad is not None and torch.equal(latents.grad, weights)


def test_spherical_gradient_meets_the_normalisation() -> None:
    latents, weights = draw(5, 4).requires_grad_(), draw(5, 4, seed=1)
    (LookupFreeQuantizer(4, spherical=True)(latents).latents * weights).sum().backward()
    other = latents.detach().clone().requires_grad_()
    (F.normalize(other, dim=-1) * weights).sum().backward()
    assert other.grad is not None
    torch.testing.assert_close(latents.grad, other.grad)


def test_groups_are_an_upper_bound() -> None:
    latents = draw(40, 8, scale=0.02)
    options = {"commitment_weight": 0.0, "sample_entropy_weight": 0.0, "code_entropy_weight": 1.0}
    used = [-LookupFreeQuantizer(8, group_size=size, **options)(latents).loss for size in (8, 4, 3, 1)]  # pyright: ignore
    assert used[0] < used[1] < used[3] and used[0] < used[2] < used[3]
    assert torch.equal(used[0], -LookupFreeQuantizer(8, **options)(latents).loss)  # pyright: ignore


def test_each_weight_weighs_its_term() -> None:
    latents = draw(30, 6, scale=0.02)
    names = ("commitment_weight", "sample_entropy_weight", "code_entropy_weight")
    alone = [
        LookupFreeQuantizer(6, **({name: 0.0 for name in names} | {each: 1.0}))(latents).loss  # pyright: ignore
        for each in names
    ]
    together = LookupFreeQuantizer(6, **dict(zip(names, (0.3, 0.5, 0.7), strict=True)))(latents).loss  # pyright: ignore
    torch.testing.assert_close(together, 0.3 * alone[0] + 0.5 * alone[1] + 0.7 * alone[2])
    assert alone[0] > 0 and alone[1] > 0 and alone[2] < 0


def test_ranks_share_the_mean_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every group asks for it, with or without rows; an eval pass of one rank waits for nobody."""
    asked: list[tuple[int, int]] = []

    def record(mean: Tensor, rows: int) -> Tensor:
        asked.append((mean.numel(), rows))
        return mean

    monkeypatch.setattr(lfq, "mean_over_ranks", record)
    quantizer = LookupFreeQuantizer(6, group_size=4)
    quantizer.train()(draw(2, 5, 6)), quantizer(draw(0, 6))
    assert asked == [(16, 10), (4, 10), (16, 0), (4, 0)]
    quantizer.eval()(draw(2, 5, 6)), quantizer.encode(draw(2, 6))
    assert len(asked) == 4


def test_no_state_and_no_count_of_a_huge_codebook() -> None:
    quantizer = LookupFreeQuantizer(36, group_size=9)
    quantized = quantizer(draw(3, 36))
    assert quantized.usage is None and not quantizer.state_dict()
    assert same_bits(quantized.latents, quantizer.decode(quantized.values))


@pytest.mark.parametrize(("dim", "message"), [(0, "at least one"), (63, r"2\*\*63")])
def test_impossible_widths_are_refused(dim: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LookupFreeQuantizer(dim)


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(\.\.\., 4\)"):
        LookupFreeQuantizer(4)(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="group_size=0: expected 1"):
        LookupFreeQuantizer(4, group_size=0)
    with pytest.raises(ValueError, match=r"2\*\*30 codes is too much: set group_size"):
        LookupFreeQuantizer(30)
    assert LookupFreeQuantizer(30, code_entropy_weight=0.0)(torch.zeros(2, 30)).values.tolist() == [0, 0]


def test_compiled_whole() -> None:
    quantizer = LookupFreeQuantizer(6)
    eager, compiled = (draw(8, 6, scale=0.02).requires_grad_() for _ in range(2))
    found = torch.compile(quantizer, backend="aot_eager", fullgraph=True)(compiled)
    expected = quantizer(eager)
    assert torch.equal(found.values, expected.values) and torch.equal(found.latents, expected.latents)
    (found.latents.sum() + found.loss).backward()
    (expected.latents.sum() + expected.loss).backward()
    torch.testing.assert_close(compiled.grad, eager.grad)


def test_two_ranks_have_the_entropy_of_one_process() -> None:
    torch.manual_seed(0)
    model, quantizer = nn.Linear(DIM, 6), entropy_quantizer()
    loss = quantizer(model(rows(0))).loss
    loss.backward()
    for found in results()["lookup_free"]:
        torch.testing.assert_close(found["loss"], loss.detach())
        torch.testing.assert_close(found["gradient"], model.weight.grad)
        torch.testing.assert_close(found["of one"], quantizer(model(rows(1))).loss.detach())
