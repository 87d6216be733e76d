"""What every composite quantizer must keep: forward, encode and decode agree bit for bit."""

import torch
from torch import Tensor

from tokenzoo.zoo.quantizer import Quantized, Quantizer


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def randomized(quantizer: Quantizer, seed: int = 0) -> Quantizer:
    """In eval mode, its parameters drawn anew: codebooks start so small that ids would say little."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in quantizer.parameters():
        parameter.data.normal_(generator=generator)
    return quantizer.eval()


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Bits, not numbers: the sign of a zero counts."""
    bits = torch.int64 if one.dtype == torch.float64 else torch.int32
    return one.dtype == other.dtype and torch.equal(one.detach().view(bits), other.detach().view(bits))


def check_agreement(
    quantizer: Quantizer, latents: Tensor, *, autocast: bool, **keywords: Tensor
) -> Quantized:
    """The training pass of an eval quantizer, after the checks; keywords go to it."""
    plain = quantizer.encode(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        quantized = quantizer(latents, **keywords)
        values = quantizer.encode(latents)
        decoded = quantizer.decode(quantized.values)
    assert torch.equal(plain, values), "autocast moved the values"
    assert same_bits(quantized.latents, decoded)
    assert torch.equal(torch.where(quantized.values < 0, -1, values), quantized.values)
    assert decoded.shape == (*latents.shape[:-1], quantizer.dim_out)
    assert decoded.dtype in (torch.float32, torch.float64)
    assert quantized.loss.dtype in (torch.float32, torch.float64) and quantized.loss.ndim == 0
    assert values.dtype == torch.int64
    columns = values.unsqueeze(-1) if len(quantizer.codebook_sizes) == 1 else values
    assert columns.shape[-1] == len(quantizer.codebook_sizes)
    assert bool(((columns >= 0) & (columns < torch.tensor(quantizer.codebook_sizes))).all())
    assert quantized.usage is not None and int(quantized.usage.sum()) == int((quantized.values >= 0).sum())
    return quantized
