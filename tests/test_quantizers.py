"""Every quantizer keeps the contract: forward, encode and decode agree bit for bit, gradients are right."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tokenzoo.zoo.bsq import BinarySphericalQuantizer
from tokenzoo.zoo.ema_quantizer import EMAVectorQuantizer
from tokenzoo.zoo.fsq import FiniteScalarQuantizer
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.grouped_quantizer import GroupedQuantizer
from tokenzoo.zoo.ibq import IndexBackpropagationQuantizer
from tokenzoo.zoo.lfq import LookupFreeQuantizer
from tokenzoo.zoo.post_training import PostTrainingQuantizer
from tokenzoo.zoo.projected import ProjectedQuantizer
from tokenzoo.zoo.quantizer import Quantizer, straight_through
from tokenzoo.zoo.random_projection import RandomProjectionQuantizer
from tokenzoo.zoo.residual_fsq import ResidualFiniteScalarQuantizer
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.simvq import SimVQ
from tokenzoo.zoo.split_quantizer import SplitQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "vq": lambda: VectorQuantizer(37, 6),
    "vq-l2": lambda: VectorQuantizer(37, 6, l2=True, normalise_lookup=True),
    "vq-l2-raw-lookup": lambda: VectorQuantizer(37, 6, l2=True),
    "vq-rotation": lambda: VectorQuantizer(37, 6, rotation=True),
    "ema": lambda: EMAVectorQuantizer(37, 6),
    "ema-l2": lambda: EMAVectorQuantizer(37, 6, l2=True, normalise_lookup=True),
    "simvq": lambda: SimVQ(37, 6),
    "ibq": lambda: IndexBackpropagationQuantizer(37, 6),
    "ibq-l2": lambda: IndexBackpropagationQuantizer(37, 6, l2=True),
    "projected": lambda: ProjectedQuantizer(VectorQuantizer(37, 3, l2=True), 6),
    "lfq": lambda: LookupFreeQuantizer(5),
    "bsq": lambda: BinarySphericalQuantizer(6),
    "residual": lambda: ResidualQuantizer([VectorQuantizer(11, 6), EMAVectorQuantizer(7, 6)]),
    "residual-shared": lambda: ResidualQuantizer([VectorQuantizer(11, 6)], repeats=3),
    "residual-fsq": lambda: ResidualFiniteScalarQuantizer((5, 4, 3), 2),
    "grouped": lambda: GroupedQuantizer([VectorQuantizer(11, 2), FiniteScalarQuantizer((5, 3))]),
    "split": lambda: SplitQuantizer(
        VectorQuantizer(11, 6), ResidualQuantizer([VectorQuantizer(7, 6) for _ in range(2)])
    ),
    "post-training": lambda: PostTrainingQuantizer(4, 16),
    "random-projection": lambda: RandomProjectionQuantizer(37, 6, code_dim=4),
    "fsq": lambda: FiniteScalarQuantizer((8, 5, 3, 2)),
    "gaussian": lambda: GaussianPosterior(5),
}
# Where a code that is given comes back as itself.
STABLE = [
    "vq",
    "vq-l2",
    "vq-l2-raw-lookup",
    "vq-rotation",
    "ema",
    "ema-l2",
    "simvq",
    "ibq-l2",
    "lfq",
    "bsq",
    "fsq",
]


def make(name: str) -> Quantizer:
    torch.manual_seed(0)
    return QUANTIZERS[name]().eval()


@pytest.mark.parametrize("name", QUANTIZERS)
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(), (7,), (2, 9), (2, 3, 4), (0,), (3, 0)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    autocast=st.booleans(),
)
def test_forward_is_decode_of_encode(
    name: str, seed: int, shape: tuple[int, ...], dtype: torch.dtype, scale: float, autocast: bool
) -> None:
    quantizer = make(name)
    generator = torch.Generator().manual_seed(seed)
    latents = (torch.randn(*shape, quantizer.dim_in, generator=generator) * scale).to(dtype)
    plain = quantizer.encode(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        quantized = quantizer(latents)
        values = quantizer.encode(latents)
        decoded = quantizer.decode(values)
    assert torch.equal(plain, values), "autocast moved the values"
    assert torch.equal(quantized.values, values)
    assert quantized.latents.dtype == decoded.dtype
    # Bits, not numbers: the sign of a zero counts.
    bits = torch.int64 if decoded.dtype == torch.float64 else torch.int32
    assert torch.equal(quantized.latents.detach().view(bits), decoded.detach().view(bits))
    assert decoded.shape == (*shape, quantizer.dim_out)
    assert decoded.dtype in (torch.float32, torch.float64) and quantized.loss.dtype in (
        torch.float32,
        torch.float64,
    )
    if quantizer.codebook_sizes:
        sizes = quantizer.codebook_sizes
        assert values.dtype == torch.int64 and values.shape == (
            shape if len(sizes) == 1 else (*shape, len(sizes))
        )
        columns = values.reshape(-1, len(sizes)).T
        assert all(bool(((ids >= 0) & (ids < size)).all()) for ids, size in zip(columns, sizes, strict=True))
        assert quantized.usage is not None
        counts = quantized.usage.reshape(-1, quantized.usage.shape[-1])
        # One stage that is repeated counts all its visits in one row.
        assert int(counts.sum()) == values.numel()
        if len(counts) == len(sizes):
            for row, ids in zip(counts, columns, strict=True):
                assert torch.equal(row, torch.bincount(ids, minlength=len(row)))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_misfits_are_refused(name: str) -> None:
    quantizer = make(name)
    for latents in (
        torch.zeros(2, quantizer.dim_in + 1),
        torch.zeros(2, quantizer.dim_in, dtype=torch.int64),
    ):
        for verb in (quantizer, quantizer.encode):
            with pytest.raises(ValueError, match=rf"\(\.\.\., {quantizer.dim_in}\)"):
                verb(latents)


@pytest.mark.parametrize("name", STABLE)
def test_decode_is_stable(name: str) -> None:
    """Every code that is a code of its own comes back to itself."""
    quantizer = make(name)
    ids = torch.arange(quantizer.codebook_sizes[0])
    codes = quantizer.decode(ids)
    if name != "fsq":
        assert torch.equal(quantizer.encode(codes), ids)
        return
    # FSQ squashes with tanh, so a decoded value is no latent; undo the squashing first.
    assert isinstance(quantizer, FiniteScalarQuantizer)
    levels = torch.tensor(quantizer.levels)
    half_range, offset = (levels - 1) * 1.001 / 2, (levels % 2 == 0) / 2
    latents = torch.atanh((codes * (levels // 2) + offset) / half_range) - torch.atanh(offset / half_range)
    assert torch.equal(quantizer.encode(latents), ids)


def test_straight_through_is_exact_where_the_usual_trick_rounds() -> None:
    latents = torch.tensor([1.0, 1e8, -3.0], requires_grad=True)
    quantized = torch.tensor([0.1, 0.3, -0.0], requires_grad=True)
    result = straight_through(latents, quantized)
    assert torch.equal(result.detach().view(torch.int32), quantized.detach().view(torch.int32))
    trick = latents + (quantized - latents).detach()
    assert not torch.equal(trick, quantized)
    result.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert latents.grad is not None and latents.grad.tolist() == [1.0, 2.0, 3.0]
    assert quantized.grad is None


@pytest.mark.parametrize("l2", [False, True])
def test_vq_gradients_are_the_official_ones(l2: bool) -> None:
    """Against the equations of bytedance/1d-tokenizer, written out with the rounding trick."""
    torch.manual_seed(1)
    quantizer = VectorQuantizer(11, 4, l2=l2, normalise_lookup=l2, commitment_weight=0.3)
    latents = torch.randn(2, 5, 4, requires_grad=True)
    weights = torch.randn(2, 5, 4)
    quantized = quantizer(latents)
    ((quantized.latents * weights).sum() + quantized.loss).backward()

    codebook = quantizer.codebook.detach().clone().requires_grad_()
    reference = latents.detach().clone().requires_grad_()
    z = F.normalize(reference, dim=-1) if l2 else reference
    q = codebook[quantized.values]
    q = F.normalize(q, dim=-1) if l2 else q
    loss = 0.3 * ((q.detach() - z) ** 2).mean() + ((q - z.detach()) ** 2).mean()
    (((z + (q - z).detach()) * weights).sum() + loss).backward()
    torch.testing.assert_close(quantized.loss, loss)
    torch.testing.assert_close(latents.grad, reference.grad)
    torch.testing.assert_close(quantizer.codebook.grad, codebook.grad)


def test_vq_gradient_keeps_the_dtype_of_the_latents() -> None:
    quantizer = VectorQuantizer(11, 4)
    latents = torch.randn(3, 4).bfloat16().requires_grad_()
    quantizer(latents).latents.sum().backward()
    assert latents.grad is not None and latents.grad.dtype == torch.bfloat16
    assert torch.equal(latents.grad, torch.ones_like(latents))


def test_vq_of_a_codebook_in_bfloat16_computes_in_float32() -> None:
    quantizer = VectorQuantizer(64, 8, l2=True, normalise_lookup=True).to(torch.bfloat16)
    latents = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    codebook = F.normalize(quantizer.codebook.float(), dim=-1)
    expected = (F.normalize(latents.float(), dim=-1) @ codebook.T).argmax(dim=1)
    assert torch.equal(quantizer.encode(latents), expected)
    assert torch.equal(quantizer.decode(expected), codebook[expected])


def test_l2_lookup_has_length_one_only_when_asked() -> None:
    ids = torch.arange(37)
    raw, normal = make("vq-l2-raw-lookup"), make("vq-l2")
    assert torch.equal(raw.decode(ids), dict(raw.named_parameters())["codebook"])
    torch.testing.assert_close(normal.decode(ids).norm(dim=-1), torch.ones(37))


def test_vq_of_an_empty_codebook_is_refused() -> None:
    with pytest.raises(ValueError, match="0 codes of width 4"):
        VectorQuantizer(0, 4)


class TestFiniteScalar:
    def test_against_the_published_formula(self) -> None:
        """lucidrains' vector-quantize-pytorch: bound, round, scale; first level fastest."""
        levels = [8, 8, 8, 5, 5, 5]
        quantizer = FiniteScalarQuantizer(levels)
        assert quantizer.codebook_sizes == (64000,) and quantizer.dim_in == quantizer.dim_out == 6
        latents = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * 3
        sizes = torch.tensor(levels)
        half_range = (sizes - 1) * (1 + 1e-3) / 2
        offset = torch.where(sizes % 2 == 0, 0.5, 0.0)
        bounded = (latents + torch.atanh(offset / half_range)).tanh() * half_range - offset
        codes = bounded.round() / (sizes // 2)
        basis = torch.tensor([1, 8, 64, 512, 2560, 12800])
        ids = ((codes * (sizes // 2) + sizes // 2).round().long() * basis).sum(dim=-1)
        quantized = quantizer(latents)
        assert torch.equal(quantized.values, ids)
        assert torch.equal(quantized.latents, codes + 0.0)
        assert quantized.loss.item() == 0

    def test_ids_are_exact_beyond_the_integers_of_float32(self) -> None:
        quantizer = FiniteScalarQuantizer((8,) * 10)
        ids = torch.tensor([0, 2**24 + 1, 2**29 + 3, 8**10 - 1])
        levels = quantizer.decode(ids)
        digits = ((levels * 4).round() + 4).long()
        assert torch.equal((digits * 8 ** torch.arange(10)).sum(dim=-1), ids)
        assert quantizer(torch.zeros(1, 10)).usage is None

    def test_gradient_passes_the_rounding_and_meets_tanh(self) -> None:
        quantizer = FiniteScalarQuantizer((5,))
        latents = torch.tensor([[0.3]], requires_grad=True)
        quantizer(latents).latents.backward()
        slope = (1 - torch.tensor(0.3).tanh() ** 2) * 2.002 / 2
        torch.testing.assert_close(latents.grad, slope.reshape(1, 1))

    @pytest.mark.parametrize("levels", [(5000,), (2,), (3, 2), (1001, 2)])
    def test_extreme_latents_stay_in_range(self, levels: tuple[int, ...]) -> None:
        quantizer = FiniteScalarQuantizer(levels)
        latents = torch.tensor([-1e30, -50.0, 0.0, 50.0, 1e30, torch.nan])[:, None].expand(-1, len(levels))
        ids = quantizer.encode(latents)
        assert int(ids.min()) == 0 and int(ids.max()) == quantizer.codebook_sizes[0] - 1

    @pytest.mark.parametrize("levels", [(), (1, 8), (0,), (2**31, 2**32)])
    def test_impossible_levels_are_refused(self, levels: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="each 2 or more"):
            FiniteScalarQuantizer(levels)


class TestGaussian:
    def test_moments_are_clamped(self) -> None:
        latents = torch.tensor([[1.0, 2.0, -50.0, 50.0]])
        mean, logvar = GaussianPosterior(2).moments(latents)
        assert mean.tolist() == [[1.0, 2.0]] and logvar.tolist() == [[-30.0, 20.0]]

    def test_mean_without_a_generator_sample_with_one(self) -> None:
        posterior = make("gaussian")
        latents = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0))
        mean, logvar = latents.chunk(2, dim=-1)
        assert torch.equal(posterior.encode(latents), mean)
        # The official code draws torch.randn of (B, D, 1, N).
        noise = torch.randn(2, 5, 1, 3, generator=torch.Generator().manual_seed(7)).squeeze(2).transpose(1, 2)
        sample = posterior.encode(latents, generator=torch.Generator().manual_seed(7))
        assert torch.equal(sample, mean + torch.exp(0.5 * logvar) * noise)

    def test_a_generator_per_item_is_the_item_alone(self) -> None:
        posterior = make("gaussian")
        latents = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0))
        together = posterior.encode(
            latents, generator=[torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
        )
        for item, seed in enumerate((5, 6, 7)):
            alone = posterior.encode(latents[item : item + 1], generator=torch.Generator().manual_seed(seed))
            assert torch.equal(together[item : item + 1], alone)
        with pytest.raises(ValueError, match="2 generators for 3 items"):
            posterior.encode(latents, generator=[torch.Generator(), torch.Generator()])

    def test_loss_is_the_divergence_per_item(self) -> None:
        posterior = GaussianPosterior(5).eval()
        latents = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0))
        mean, logvar = latents.chunk(2, dim=-1)
        normal = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
        expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
        torch.testing.assert_close(posterior.kl(latents), expected.sum(dim=-1))
        torch.testing.assert_close(posterior(latents).loss, expected.sum() / 2)

    def test_training_samples_with_gradient_to_mean_and_variance(self) -> None:
        posterior = make("gaussian")
        posterior.train()
        latents = torch.zeros(2, 3, 10, requires_grad=True)
        torch.manual_seed(0)
        first = posterior(latents).latents
        assert not torch.equal(first, posterior(latents).latents)
        first.sum().backward()
        assert latents.grad is not None
        assert torch.equal(latents.grad[..., :5], torch.ones(2, 3, 5))
        assert torch.equal(latents.grad[..., 5:], 0.5 * first.detach())
        seeded = [posterior(latents, generator=torch.Generator().manual_seed(3)).latents for _ in range(2)]
        assert torch.equal(*seeded)
