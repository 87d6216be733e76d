"""ReTok: prefixes of the row, the spare latents, the two objectives, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenzoo import Tokens
from tokenzoo.checkpoints import convert_retok
from tokenzoo.image.retok import ReTok, ReTokConfig
from tokenzoo.image.retok_parts import cell_means

from .toys import build_toy
from .toys_retok import SmallReTokConfig

LENGTHS = (16, 1, 5, 5)


@pytest.fixture
def model() -> ReTok:
    found = build_toy("retok")
    assert isinstance(found, ReTok)
    return found


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def mixed_tokens(model: ReTok) -> Tokens:
    singles = model.encode(images()).unbind()
    return Tokens.cat([single.keep(length) for single, length in zip(singles, LENGTHS, strict=True)])


def test_cells_grow_smaller_row_by_row() -> None:
    ramp = torch.arange(16.0).view(1, 1, 4, 4)
    means = cell_means(ramp, 4)[0, :, 0].tolist()
    assert means[:4] == [7.5, 7.5, 6.5, 8.5]
    assert means[4:8] == [2.5, 4.5, 10.5, 12.5]
    assert means[8:] == [2.0, 3.0, 4.0, 5.0, 10.0, 11.0, 12.0, 13.0]


def test_mixed_lengths_decode_as_singles_do(model: ReTok) -> None:
    model = model.double()
    mixed = mixed_tokens(model)
    together = model.decode_latents(model.dequantize(mixed))
    for row, single in enumerate(mixed.unbind()):
        alone = model.decode_latents(model.dequantize(single))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-10, rtol=0)


def test_padding_is_read_by_nobody(model: ReTok) -> None:
    tokens = mixed_tokens(model)
    filled = replace(tokens, values=torch.where(tokens.mask, tokens.values, 49))
    assert torch.equal(model.decode(filled), model.decode(tokens))


def test_spare_latents_stay_inside(model: ReTok) -> None:
    assert model.encoder(images()).shape == (4, 16 + 12, 4)
    assert model.encode(images()).ids.shape == (4, 16)
    assert model(images()).quantized.values.shape == (4, 28)
    tokens = model.encode_latents(images())
    with torch.no_grad():
        model.encoder.spare_positions.zero_()
    moved = model.encode_latents(images()).values - tokens.values
    assert float(moved.detach().abs().max()) > 1e-3, "the others see them"


def test_training_decodes_prefixes(model: ReTok) -> None:
    lengths = torch.tensor(LENGTHS)
    targets = torch.randn(4, 16, 6, generator=torch.Generator().manual_seed(2))
    result = model.train()(images(), lengths=lengths)
    expected = model.decode_latents(model.dequantize(mixed_tokens(model)))
    torch.testing.assert_close(result.signal, expected, atol=2e-5, rtol=1e-5)
    meaning = model.semantic_loss(result.quantized.latents, targets, lengths)
    (result.signal.square().mean() + result.quantized.loss + meaning).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_the_teacher_counts_less_toward_the_tail(model: ReTok) -> None:
    latents = model(images()).quantized.latents.detach()
    found = model.decoder.semantics(latents[:, :16]).detach()
    everything = torch.full((4,), 16)
    assert float(model.semantic_loss(latents, found, everything).detach()) == 0
    first = model.decoder.semantics(latents[:, :1]).detach()
    one = torch.ones(4, dtype=torch.int64)
    torch.testing.assert_close(model.semantic_loss(latents, first, one).detach(), torch.tensor(-1.0))
    half = torch.full((4,), 8)
    alike = F.cosine_similarity(model.decoder.semantics(latents[:, :8]), found, dim=-1).mean()
    torch.testing.assert_close(model.semantic_loss(latents, found, half), -alike * 8 / 15)
    with pytest.raises(ValueError, match=r"targets have shape \(4, 3, 6\): expected \(4, 16, 6\)"):
        model.semantic_loss(latents, found[:, :3], half)


def test_wrong_lengths_are_refused(model: ReTok) -> None:
    for wrong in ([0, 1, 1, 1], [17, 1, 1, 1]):
        with pytest.raises(ValueError, match=r"retok decodes 1 \.\.\. 16"):
            model(images(), lengths=torch.tensor(wrong))
    with pytest.raises(ValueError, match="no captions"):
        model(images(), captions=["a"] * 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_tokens": 12}, "expected a power of two"),
        ({"num_tokens": 64, "num_spare": 1}, "whose cells divide the map"),
        ({"num_spare": 17}, "num_spare=17"),
        ({"image_size": 18}, r"preprocess\.size=16: expected the same"),
        ({"semantic_depth": 3}, "semantic_depth=3"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmallReTokConfig(**change)


def test_official_options_that_were_never_released_are_refused() -> None:
    released = {"multi_level_query_init": True, "adaptive_gn": True, "d2s_up": True, "use_attn": False}
    converted = convert_retok.convert_config({"init_args": released})
    assert ReTokConfig.from_dict(converted).encoder.width == 512
    for option in ({"use_attn": True}, {"simvq": True}, {"d2s_up": False}):
        with pytest.raises(ValueError, match="as released"):
            convert_retok.convert_config({"init_args": released | option})
    with pytest.raises(ValueError, match="multi_level_query_init=False"):
        convert_retok.convert_config({})
    with pytest.raises(ValueError, match="model size 'huge'; known: tiny, small"):
        convert_retok.convert_config({"init_args": released | {"model_size": "huge"}})
