"""Residual stages of any kind: agreement bit for bit, dropout by item, prefixes, gradients, fused search."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tokenzoo.zoo import residual_quantizer
from tokenzoo.zoo.chance import Chance
from tokenzoo.zoo.ema_quantizer import EMAVectorQuantizer
from tokenzoo.zoo.fsq import FiniteScalarQuantizer
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.grouped_quantizer import GroupedQuantizer
from tokenzoo.zoo.length_policy import LengthPolicy
from tokenzoo.zoo.projected import ProjectedQuantizer
from tokenzoo.zoo.quantizer import Quantized, Quantizer
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

from .agreement import check_agreement, draw, randomized, same_bits

DIM = 4


def plain(num_stages: int = 3, num_codes: int = 11, **options: bool) -> ResidualQuantizer:
    return ResidualQuantizer([VectorQuantizer(num_codes, DIM) for _ in range(num_stages)], **options)


def factorised(num_stages: int = 3) -> ResidualQuantizer:
    """As DAC has it: each stage searches directions in few dimensions."""
    stages = [ProjectedQuantizer(VectorQuantizer(11, 2, l2=True), DIM) for _ in range(num_stages)]
    return ResidualQuantizer(stages, detached=False)


QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "plain": plain,
    "running means": lambda: ResidualQuantizer([EMAVectorQuantizer(11, DIM) for _ in range(3)]),
    "shared": lambda: ResidualQuantizer([VectorQuantizer(11, DIM)], repeats=3),
    "single": lambda: plain(1),
    "factorised": factorised,
    "unlike sizes": lambda: ResidualQuantizer([VectorQuantizer(3, DIM), VectorQuantizer(9, DIM, l2=True)]),
    "scalar": lambda: ResidualQuantizer([VectorQuantizer(5, DIM), FiniteScalarQuantizer((5, 3, 3, 2))]),
    "grouped stages": lambda: ResidualQuantizer([GroupedQuantizer([VectorQuantizer(7, 2)], repeats=2)] * 2),
    "nested": lambda: ResidualQuantizer([plain(2), VectorQuantizer(9, DIM)]),
}


@pytest.mark.parametrize("name", QUANTIZERS)
@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(), (7,), (2, 9), (2, 3, 4), (0,), (3, 0)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    autocast=st.booleans(),
)
def test_forward_is_decode_of_encode(
    name: str, seed: int, shape: tuple[int, ...], dtype: torch.dtype, scale: float, autocast: bool
) -> None:
    quantizer = randomized(QUANTIZERS[name]())
    check_agreement(quantizer, draw(*shape, DIM, seed=seed, scale=scale).to(dtype), autocast=autocast)


@pytest.mark.parametrize("name", QUANTIZERS)
@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(0, 5),
    rest=st.sampled_from([(), (7,), (3, 2), (0,)]),
    autocast=st.booleans(),
)
def test_items_that_drop_stages_agree_too(
    name: str, seed: int, batch: int, rest: tuple[int, ...], autocast: bool
) -> None:
    quantizer = randomized(QUANTIZERS[name]())
    count = len(quantizer.codebook_sizes)
    lengths = torch.randint(0, count + 1, (batch,), generator=torch.Generator().manual_seed(seed))
    latents = draw(batch, *rest, DIM, seed=seed)
    check_agreement(quantizer, latents, autocast=autocast, lengths=lengths)


@pytest.mark.parametrize("name", ["plain", "shared", "unlike sizes", "grouped stages", "nested"])
def test_every_item_is_what_it_would_be_alone(name: str) -> None:
    quantizer = randomized(QUANTIZERS[name]())
    assert isinstance(quantizer, ResidualQuantizer)
    latents, count = draw(count_ := len(quantizer.keeps) + 1, 6, DIM), len(quantizer.codebook_sizes)
    keeps = (0, *quantizer.keeps)
    together = quantizer(latents, lengths=torch.tensor(keeps))
    values = quantizer.encode(latents)
    for item, keep in enumerate(keeps):
        assert torch.equal(together.values[item, ..., :keep], values[item, ..., :keep])
        assert bool((together.values[item, ..., keep:] == -1).all())
        if keep:
            assert same_bits(together.latents[item], quantizer.decode(values[item, ..., :keep]))
            assert torch.equal(quantizer.encode(latents[item], keep=keep), values[item, ..., :keep])
        else:
            assert not together.latents[item].any()
    assert count_ == len(keeps) and count == keeps[-1]


@pytest.mark.parametrize("lengths", [(1, 2), (2, 0), (0, 0), (2, 2)])
def test_projections_that_round_by_batch_size_agree_too(lengths: tuple[int, int]) -> None:
    """A product with one row takes another path through BLAS than one with two."""
    stages = [ProjectedQuantizer(VectorQuantizer(32, 8, l2=True), 1024) for _ in range(2)]
    quantizer = randomized(ResidualQuantizer(stages))
    check_agreement(quantizer, draw(2, 1024), autocast=False, lengths=torch.tensor(lengths))


def test_a_stage_that_does_not_fit_in_whole_is_dropped() -> None:
    quantizer = randomized(QUANTIZERS["grouped stages"]())
    values = quantizer(draw(5, DIM), lengths=torch.arange(5)).values
    assert (values >= 0).sum(dim=1).tolist() == [0, 0, 2, 2, 4]


def test_lengths_come_from_a_policy() -> None:
    lengths = LengthPolicy(3, full=0.5).sample(64, generator=torch.Generator().manual_seed(0))
    values = randomized(plain())(draw(64, 2, DIM), lengths=lengths).values
    assert torch.equal((values >= 0).sum(dim=-1), lengths[:, None].expand(64, 2))


def test_codes_are_subtracted_one_after_the_other() -> None:
    """Two stages by hand: 1.0 leaves 0.4 of 1.4, for which 0.5 is nearest."""
    quantizer = ResidualQuantizer([VectorQuantizer(2, 1), VectorQuantizer(2, 1)])
    for stage, codes in zip(quantizer.stages, ([[-1.0], [1.0]], [[-0.5], [0.5]]), strict=True):
        stage.load_state_dict({"codebook": torch.tensor(codes)})
    quantized = quantizer(torch.tensor([[1.4], [-0.7]]))
    assert quantized.values.tolist() == [[1, 1], [0, 1]]
    assert quantized.latents.tolist() == [[1.5], [-0.5]]
    assert quantized.usage.tolist() == [[1, 1], [0, 2]]
    # (1 + 0.25) * (0.16 + 0.09) / 2 + (1 + 0.25) * (0.01 + 0.04) / 2
    torch.testing.assert_close(quantized.loss, torch.tensor(1.25 * 0.25 / 2 + 1.25 * 0.05 / 2))
    assert quantizer.decode(torch.tensor([[-1, 0], [1, -1]])).tolist() == [[-0.5], [1.0]]


def test_loss_under_dropout_is_the_one_of_dac() -> None:
    """Per stage and item the mean square error, zero where dropped, then the mean over the batch."""
    quantizer, latents, lengths = randomized(plain(4)), draw(6, 5, DIM), torch.tensor([1, 4, 2, 3, 1, 4])
    residual, expected = latents, torch.zeros(())
    values = quantizer.encode(latents)
    for stage, (_, codebook) in enumerate(quantizer.named_parameters()):
        residual = residual - codebook[values[..., stage]]
        expected = expected + (1.25 * residual.square().mean(dim=(1, 2)) * (stage < lengths)).mean()
    torch.testing.assert_close(quantizer(latents, lengths=lengths).loss, expected)


@pytest.mark.parametrize("name", ["plain", "unlike sizes", "scalar"])
def test_codes_that_an_optimizer_learns_agree_in_training_too(name: str) -> None:
    quantizer = randomized(QUANTIZERS[name]()).train()
    check_agreement(quantizer, draw(4, 5, DIM), autocast=True)
    check_agreement(quantizer, draw(3, 5, DIM), autocast=True, lengths=torch.tensor([0, 1, 2]))


def test_running_means_return_the_codes_they_chose_and_move_afterwards() -> None:
    torch.manual_seed(0)
    quantizer, latents = ResidualQuantizer([EMAVectorQuantizer(11, DIM) for _ in range(3)]), draw(40, DIM)
    expected = quantizer.decode(quantizer.encode(latents))
    quantized = quantizer(latents)
    assert same_bits(quantized.latents, expected)
    assert not torch.equal(quantizer.decode(quantized.values), expected)


def test_codebooks_in_bfloat16_compute_in_float32() -> None:
    quantizer = randomized(plain()).to(torch.bfloat16)
    quantized = check_agreement(quantizer, draw(4, 5, DIM), autocast=False)
    assert quantized.latents.dtype == torch.float32
    widened = randomized(plain()).to(torch.bfloat16).float()
    assert torch.equal(quantized.latents, widened(draw(4, 5, DIM)).latents)


def test_meta_device() -> None:
    quantizer = plain().to("meta")
    values = quantizer.encode(draw(2, 5, DIM).to("meta"))
    assert values.shape == (2, 5, 3) and quantizer.decode(values).shape == (2, 5, DIM)


class Recorder(VectorQuantizer):
    """Writes down the batches it was trained on, and the generators that came with them."""

    def __init__(self) -> None:
        super().__init__(5, DIM)
        self.batches: list[int] = []
        self.generators: list[Chance] = []

    def forward(self, latents: Tensor, *, generator: Chance = None, valid: Tensor | None = None) -> Quantized:
        self.batches.append(len(latents))
        self.generators.append(generator)
        return super().forward(latents, generator=generator, valid=valid)


def test_a_stage_without_items_is_called_all_the_same() -> None:
    """Its statistics are a collective, and DDP wants a gradient for its codes: zero, not none."""
    stages = [Recorder(), Recorder(), Recorder()]
    quantized = ResidualQuantizer(stages)(draw(4, 3, DIM), lengths=torch.tensor([1, 2, 1, 2]))
    assert [stage.batches for stage in stages] == [[4], [2], [0]]
    assert quantized.loss.isfinite()
    quantized.loss.backward()
    last = stages[2].codebook.grad
    assert last is not None and not last.any()
    assert stages[1].codebook.grad is not None and stages[1].codebook.grad.any()


def test_items_take_their_generators_along() -> None:
    stages, generators = [Recorder(), Recorder()], [torch.Generator() for _ in range(3)]
    ResidualQuantizer(stages)(draw(3, DIM), lengths=torch.tensor([1, 2, 2]), generator=generators)
    assert stages[0].generators == [generators] and stages[1].generators == [generators[1:]]


def test_statistics_see_the_kept_items_alone() -> None:
    torch.manual_seed(0)
    together = ResidualQuantizer([EMAVectorQuantizer(5, DIM) for _ in range(2)])
    alone = ResidualQuantizer([EMAVectorQuantizer(5, DIM) for _ in range(2)])
    alone.load_state_dict(together.state_dict())
    latents = draw(6, 3, DIM)
    dropped = together(latents, lengths=torch.tensor([1, 2, 2, 1, 1, 2]))
    alone.stages[1](latents[[1, 2, 5]] - alone.stages[0](latents).latents[[1, 2, 5]])
    for name, buffer in together.state_dict().items():
        assert torch.equal(buffer, alone.state_dict()[name]), name
    assert dropped.usage.sum(dim=1).tolist() == [18, 9]


def test_gradient_passes_once_and_every_stage_pulls() -> None:
    quantizer, upstream = randomized(plain(4)), draw(7, DIM, seed=1)
    latents = draw(7, DIM).requires_grad_()
    quantized = quantizer(latents)
    (gradient,) = torch.autograd.grad((quantized.latents * upstream).sum(), latents, retain_graph=True)
    assert torch.equal(gradient, upstream)

    (gradient,) = torch.autograd.grad(quantized.loss, latents)
    residual, expected = latents.detach(), torch.zeros(7, DIM)
    for stage, (_, codebook) in enumerate(quantizer.named_parameters()):
        residual = residual - codebook.detach()[quantized.values[:, stage]]
        expected += 0.25 * 2 * residual / residual.numel()
    torch.testing.assert_close(gradient, expected)


def test_gradients_through_the_codes_are_those_of_dac() -> None:
    """Against the equations of descript-audio-codec, dac/nn/quantize.py, with the trick that rounds."""
    quantizer, upstream = randomized(factorised()), draw(5, DIM, seed=1)
    latents = draw(5, DIM).requires_grad_()
    quantized = quantizer(latents)
    ((quantized.latents * upstream).sum() + quantized.loss).backward()

    copies = {name: each.detach().clone().requires_grad_() for name, each in quantizer.named_parameters()}
    reference = latents.detach().clone().requires_grad_()
    residual, total, loss = reference, torch.zeros(()), torch.zeros(())
    for stage in range(3):
        weight = {name[9:]: each for name, each in copies.items() if name.startswith(f"stages.{stage}.")}
        narrow = F.linear(residual, weight["project_in.weight"], weight["project_in.bias"])
        ids = torch.cdist(F.normalize(narrow), F.normalize(weight["inner.codebook"])).argmin(dim=1)
        assert torch.equal(ids, quantized.values[:, stage])
        codes = weight["inner.codebook"][ids]
        loss = loss + 0.25 * F.mse_loss(narrow, codes.detach()) + F.mse_loss(codes, narrow.detach())
        through = narrow + (codes - narrow).detach()
        out = F.linear(through, weight["project_out.weight"], weight["project_out.bias"])
        residual, total = residual - out, total + out
    torch.testing.assert_close(quantized.loss, loss)
    ((total * upstream).sum() + loss).backward()
    torch.testing.assert_close(latents.grad, reference.grad)
    for name, parameter in quantizer.named_parameters():
        torch.testing.assert_close(parameter.grad, copies[name].grad, msg=name)


def test_a_shared_codebook_is_stored_once() -> None:
    quantizer = randomized(QUANTIZERS["shared"]())
    assert list(quantizer.state_dict()) == ["stages.0.codebook"]
    assert quantizer.codebook_sizes == (11, 11, 11)
    latents = draw(9, DIM)
    (codebook,) = quantizer.parameters()
    expected = ResidualQuantizer([VectorQuantizer(11, DIM) for _ in range(3)]).eval()
    for stage in expected.stages:
        stage.load_state_dict({"codebook": codebook})
    assert torch.equal(quantizer.encode(latents), expected.encode(latents))


@pytest.mark.parametrize("sizes", [(11, 11, 11), (11, 7, 11)])
def test_the_fused_search_finds_the_same_ids(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]) -> None:
    quantizer = randomized(ResidualQuantizer([VectorQuantizer(size, DIM) for size in sizes]))
    assert isinstance(quantizer, ResidualQuantizer)
    latents, calls = draw(2, 30, DIM), []
    fused = residual_quantizer.residual_codes
    monkeypatch.setattr(residual_quantizer, "residual_codes", lambda *each: calls.append(1) or fused(*each))
    values = quantizer(latents).values
    assert not calls and torch.equal(quantizer.encode(latents), values)
    assert torch.equal(quantizer.encode(latents, keep=2), values[..., :2])
    assert len(calls) == (2 if len(set(sizes)) == 1 else 0)


def test_stages_that_are_more_than_a_search_are_not_fused() -> None:
    stages = [VectorQuantizer(11, DIM), VectorQuantizer(11, DIM, l2=True)]
    quantizer, latents = randomized(ResidualQuantizer(stages)), draw(20, DIM)
    assert torch.equal(quantizer.encode(latents), quantizer(latents).values)


def test_compiled_is_eager() -> None:
    quantizer, latents = randomized(plain()), draw(6, DIM)
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    eager, traced = quantizer(latents), compiled(latents)
    assert torch.equal(traced.values, eager.values) and torch.equal(traced.latents, eager.latents)
    assert torch.equal(traced.loss, eager.loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualQuantizer([]), "0 stages of widths"),
        (lambda: ResidualQuantizer([VectorQuantizer(3, 4), VectorQuantizer(3, 5)]), r"widths \[4, 5\]"),
        (lambda: ResidualQuantizer([VectorQuantizer(3, 4)], repeats=0), "walked through 0 times"),
        (lambda: ResidualQuantizer([Continuous()]), "Continuous is continuous"),
    ],
)
def test_impossible_stages_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class Continuous(GaussianPosterior):
    def __init__(self) -> None:
        super().__init__(DIM)
        self.dim_in = DIM


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([1, 2, 3]), r"shape \(3,\).*one count per item"),
        (torch.tensor([1.0, 2.0]), "torch.float32"),
        (torch.tensor([1, 4]), r"\[1, 4\]: expected 0 \.\.\. 3"),
        (torch.tensor([-1, 2]), r"expected 0 \.\.\. 3"),
        (torch.tensor([1, 2], device="meta"), "lengths on meta"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain()(draw(2, 5, DIM), lengths=lengths)


def test_counts_that_end_inside_a_stage_are_refused() -> None:
    quantizer = QUANTIZERS["grouped stages"]()
    for refused in (
        lambda: quantizer.decode(torch.zeros(5, 3, dtype=torch.int64)),
        lambda: quantizer.encode(draw(5, DIM), keep=1),  # pyright: ignore[reportCallIssue]
    ):
        with pytest.raises(ValueError, match=r"expected one of \(2, 4\)"):
            refused()
    with pytest.raises(ValueError, match=rf"\(\.\.\., {DIM}\)"):
        quantizer.encode(draw(5, DIM + 1))
