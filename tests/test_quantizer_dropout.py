"""Quantizer dropout by item: agreement bit for bit, losses, statistics, gradients, generators."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenzoo.zoo.chance import Chance
from tokenzoo.zoo.ema_quantizer import EMAVectorQuantizer
from tokenzoo.zoo.length_policy import LengthPolicy
from tokenzoo.zoo.projected import ProjectedQuantizer
from tokenzoo.zoo.quantizer import Quantized
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

from .agreement import check_agreement, draw, randomized, same_bits
from .test_residual_quantizer import DIM, QUANTIZERS, plain


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


def test_loss_under_dropout_is_the_one_of_dac() -> None:
    """Per stage and item the mean square error, zero where dropped, then the mean over the batch."""
    quantizer, latents, lengths = randomized(plain(4)), draw(6, 5, DIM), torch.tensor([1, 4, 2, 3, 1, 4])
    residual, expected = latents, torch.zeros(())
    values = quantizer.encode(latents)
    for stage, (_, codebook) in enumerate(quantizer.named_parameters()):
        residual = residual - codebook[values[..., stage]]
        expected = expected + (1.25 * residual.square().mean(dim=(1, 2)) * (stage < lengths)).mean()
    torch.testing.assert_close(quantizer(latents, lengths=lengths).loss, expected)


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
