"""Quantizers between two linear maps: DAC's factorised codes, ViT-VQGAN's, any inner quantizer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tokenzoo.zoo.ema_quantizer import EMAVectorQuantizer
from tokenzoo.zoo.fsq import FiniteScalarQuantizer
from tokenzoo.zoo.gaussian import GaussianPosterior
from tokenzoo.zoo.projected import ProjectedQuantizer
from tokenzoo.zoo.quantizer import Quantizer
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer
from tokenzoo.zoo.vector_quantizer import VectorQuantizer

DIM = 6
INNER: dict[str, Quantizer] = {
    "dac": VectorQuantizer(19, 3, l2=True),
    "vit-vqgan": VectorQuantizer(19, 3, l2=True, normalise_lookup=True),
    "ema": EMAVectorQuantizer(19, 3),
    "fsq": FiniteScalarQuantizer((5, 4, 3)),
    "gaussian": GaussianPosterior(2),
}


def make(name: str, **options: object) -> ProjectedQuantizer:
    torch.manual_seed(0)
    return ProjectedQuantizer(INNER[name], DIM, **options).eval()  # pyright: ignore[reportArgumentType]


def latents(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (2, 7)])
def test_forward_is_decode_of_encode(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    quantizer = make(name, dim_out=4, bias=name != "fsq")
    batch = latents(*shape).to(dtype)
    plain = quantizer.encode(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized = quantizer(batch)
        decoded = quantizer.decode(quantized.values)
    assert torch.equal(quantized.values, plain)
    assert torch.equal(quantized.latents, decoded) and quantized.latents.dtype == decoded.dtype
    assert decoded.shape == (*shape, 4) and decoded.dtype in (torch.float32, torch.float64)
    assert quantizer.codebook_sizes == INNER[name].codebook_sizes


def test_dac_searches_by_direction_and_looks_up_the_raw_code() -> None:
    """descript-audio-codec, dac/nn/quantize.py, VectorQuantize.forward, with the trick that rounds."""
    quantizer = make("dac").train()
    inner = quantizer.inner
    assert isinstance(inner, VectorQuantizer)
    with torch.no_grad():
        inner.codebook.normal_()
    x, upstream = latents(2, 9).requires_grad_(), latents(2, 9, seed=2)
    quantized = quantizer(x)
    ((quantized.latents * upstream).sum() + quantized.loss).backward()
    mine = {name: each.grad for name, each in quantizer.named_parameters()}

    quantizer.zero_grad()
    y = x.detach().clone().requires_grad_()
    z = quantizer.project_in(y)
    flat, codes = F.normalize(z).detach().flatten(0, 1), F.normalize(inner.codebook).detach()
    ids = torch.cdist(F.normalize(z.detach(), dim=-1).flatten(0, 1), codes).argmin(dim=1).view(2, 9)
    assert flat.shape == (18, 3)
    q = F.embedding(ids, inner.codebook)
    loss = 0.25 * F.mse_loss(z, q.detach()) + F.mse_loss(q, z.detach())
    out = quantizer.project_out(z + (q - z).detach())
    ((out * upstream).sum() + loss).backward()
    assert torch.equal(quantized.values, ids)
    torch.testing.assert_close(quantized.latents, out)
    torch.testing.assert_close(quantized.loss, loss)
    torch.testing.assert_close(x.grad, y.grad)
    for name, each in quantizer.named_parameters():
        torch.testing.assert_close(mine[name], each.grad)


def test_vit_vqgan_codes_have_length_one() -> None:
    quantizer = make("vit-vqgan")
    quantizer.project_out = nn.Linear(3, 3, bias=False)
    nn.init.eye_(quantizer.project_out.weight)
    torch.testing.assert_close(quantizer.decode(torch.arange(19)).norm(dim=1), torch.ones(19))


def test_dropped_ids_add_nothing_not_even_the_bias() -> None:
    quantizer = make("ema")
    valid = torch.tensor([True, False, True])
    quantized = quantizer(latents(3), valid=valid)
    assert quantized.values[1] == -1 and (quantized.latents[1] == 0).all()
    assert torch.equal(quantized.latents, quantizer.decode(quantized.values))
    assert (quantizer.decode(torch.tensor([0])) != 0).any()


def test_lengths_reach_residual_stages() -> None:
    torch.manual_seed(0)
    stages = ResidualQuantizer([EMAVectorQuantizer(7, 3) for _ in range(3)])
    quantizer = ProjectedQuantizer(stages, DIM).eval()
    batch, lengths = latents(4, 5), torch.tensor([0, 1, 2, 3])
    quantized = quantizer(batch, lengths=lengths)
    full = quantizer.encode(batch)
    kept = torch.arange(3) < lengths[:, None, None]
    assert torch.equal(quantized.values, torch.where(kept, full, -1))
    assert (quantized.latents[0] == 0).all() and (quantized.latents[1:] != 0).any(dim=-1).all()
    assert torch.equal(quantized.latents, quantizer.decode(quantized.values))
    assert torch.equal(quantizer.decode(full[..., :1])[1], quantized.latents[1])


def test_keep_reaches_residual_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    stages = ResidualQuantizer([EMAVectorQuantizer(7, 3) for _ in range(3)])
    quantizer = ProjectedQuantizer(stages, DIM).eval()
    batch = latents(4, 5)
    full = quantizer.encode(batch)
    for count in (1, 2, 3):
        # The stages that are left out are never asked.
        for index, stage in enumerate(stages.stages):
            monkeypatch.setattr(stage, "plain_codebook", stage._codes if index < count else None)
        assert torch.equal(quantizer.encode(batch, keep=count), full[..., :count])
    with pytest.raises(ValueError, match=r"4 codebooks: expected one of \(1, 2, 3\)"):
        quantizer.encode(batch, keep=4)


def test_bfloat16_weights_compute_in_float32() -> None:
    quantizer = make("dac").bfloat16()
    wide = quantizer.decode(torch.arange(19))
    assert wide.dtype == torch.float32
    weight, bias = quantizer.project_out.weight.float(), quantizer.project_out.bias.float()
    assert isinstance(quantizer.inner, VectorQuantizer)
    torch.testing.assert_close(wide, quantizer.inner.codebook.float() @ weight.T + bias)
    quantizer.float()


def test_widths_are_checked() -> None:
    with pytest.raises(ValueError, match="widths 0 and 3"):
        ProjectedQuantizer(INNER["dac"], 0, dim_out=3)
    with pytest.raises(ValueError, match=r"\(\.\.\., 6\)"):
        make("dac")(torch.zeros(2, 3))
