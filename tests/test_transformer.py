"""The transformer block against torch's own modules, and its mask against shorter rows."""

import pytest
import torch
from torch import nn

from tokenzoo.kernels.packing import Packing
from tokenzoo.zoo.transformer import Block, Transformer, TransformerSize


def test_block_is_torchs_encoder_layer() -> None:
    """Pre-norm, exact GELU, eps 1e-5, MLP of four times the width, packed projections in the same order."""
    torch.manual_seed(0)
    block = Block(32, 4)
    layer = nn.TransformerEncoderLayer(
        32, 4, 128, dropout=0.0, activation="gelu", layer_norm_eps=1e-5, batch_first=True, norm_first=True
    )
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "self_attn.out_proj": "attention.out",
        "linear1": "mlp.0",
        "linear2": "mlp.2",
    }
    state = {
        f"{theirs}.{leaf}": block.get_parameter(f"{ours}.{leaf}")
        for theirs, ours in names.items()
        for leaf in ("weight", "bias")
    }
    state |= {
        f"self_attn.in_proj_{leaf}": block.get_parameter(f"attention.qkv.{leaf}")
        for leaf in ("weight", "bias")
    }
    layer.load_state_dict(state)
    x = torch.randn(2, 7, 32)
    # In train mode torch takes the same plain path as here, not its fused one.
    torch.testing.assert_close(block(x), layer.train()(x), atol=2e-6, rtol=1e-5)


def test_a_block_takes_a_mask_or_packed_rows() -> None:
    torch.manual_seed(0)
    block = Block(32, 4).double()
    x = torch.randn(3, 6, 32, dtype=torch.float64)
    keep = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    packing = Packing.of(keep)
    packed = block(packing.pack(x), packing)
    assert packed.shape == (9, 32)
    masked = block(x, keep)
    assert bool(masked.isfinite().all())
    torch.testing.assert_close(packing.unpack(packed)[keep], masked[keep], rtol=0, atol=1e-13)


def test_masked_rows_equal_shorter_rows() -> None:
    torch.manual_seed(0)
    transformer = Transformer(TransformerSize(width=32, layers=3, heads=2)).eval()
    x = torch.randn(3, 9, 32)
    lengths = torch.tensor([9, 1, 5])
    keep = torch.arange(9) < lengths[:, None]
    x[~keep] = 1e4
    masked = transformer(x, keep)
    for item, length in enumerate(lengths.tolist()):
        alone = transformer(x[item : item + 1, :length])
        torch.testing.assert_close(masked[item : item + 1, :length], alone, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((64, 2, 3), "multiple of the heads"),
        ((0, 2, 1), "width=0"),
        ((64, 0, 2), "layers=0"),
        ((64, 2, 0), "heads=0"),
    ],
)
def test_impossible_sizes_are_refused(size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerSize(*size)
