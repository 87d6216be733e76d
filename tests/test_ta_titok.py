"""TA-TiTok: captions travel with the tokens and guide the decoder; what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenzoo import Tokens
from tokenzoo.checkpoints import convert_ta_titok
from tokenzoo.image.ta_titok import TaTiTok

from .test_convert_titok import changed
from .tiny_clip import LENGTH, WIDTH
from .toys import build_toy
from .toys_captions import SmallTaTiTokConfig

CAPTIONS = ("a cat", "", "rain")


@pytest.fixture(params=["ta-titok", "small-ta-titok-kl"])
def model(request: pytest.FixtureRequest) -> TaTiTok:
    found = build_toy(request.param)
    assert isinstance(found, TaTiTok)
    return found


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_captions_travel_with_the_tokens(model: TaTiTok, tmp_path: Path) -> None:
    tokens = model.encode(images(), captions=CAPTIONS)
    assert tokens.captions == CAPTIONS
    assert torch.equal(tokens.values, model.encode(images()).values)
    decoded = model.decode(tokens)
    tokens.save(tmp_path / "x.tok")
    assert torch.equal(model.decode(Tokens.load(tmp_path / "x.tok")), decoded)
    assert torch.equal(model.decode(model.stamp(tokens.values, captions=list(CAPTIONS))), decoded)
    for row, single in enumerate(tokens.unbind()):
        torch.testing.assert_close(model.decode(single)[0], decoded[row], atol=1e-5, rtol=0)
    listed = model.encode(list(images()), captions=list(CAPTIONS))
    assert listed.identical(tokens)


def test_a_caption_changes_the_picture(model: TaTiTok) -> None:
    tokens = model.encode(images())
    plain = model.decode_latents(model.dequantize(tokens))
    guided = model.decode_latents(model.dequantize(replace(tokens, captions=CAPTIONS)))
    moved = (plain - guided).detach().abs().amax(dim=(1, 2, 3))
    assert float(moved[0]) > 1e-3 and float(moved[2]) > 1e-3
    assert float(moved[1]) == 0, "no caption is the empty caption"


def test_features_may_come_instead(model: TaTiTok) -> None:
    tokens = model.dequantize(model.encode(images(), captions=CAPTIONS))
    features = model.caption_encoder(CAPTIONS, device=model.device, dtype=model.dtype)
    guided = model.decode_latents(replace(tokens, captions=None), text_features=features)
    assert torch.equal(guided, model.decode_latents(tokens))
    assert torch.equal(model(images(), text_features=features).signal, guided)
    with pytest.raises(ValueError, match=rf"\(3, 4, 16\): expected \(3, {LENGTH}, {WIDTH}\)"):
        model.decode_latents(tokens, text_features=features[:, :4])


def test_training_reads_the_captions_and_leaves_the_tower(model: TaTiTok) -> None:
    result = model.train()(images(), captions=CAPTIONS, generator=torch.Generator().manual_seed(0))
    (result.signal.square().mean() + result.quantized.loss).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not any("caption" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("captions", "kind", "message"),
    [
        ("a cat", TypeError, "expected a list of strings, one per item"),
        ([1, 2, 3], TypeError, "expected a list of strings"),
        (["a", "b"], ValueError, "2 captions for 3 items"),
    ],
)
def test_wrong_captions_are_refused(
    model: TaTiTok, captions: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        model.encode(images(), captions=captions)
    with pytest.raises(kind, match=message):
        model(images(), captions=captions)


def test_one_length_only(model: TaTiTok) -> None:
    with pytest.raises(ValueError, match=r"lengths \[3\]: \S+ decodes 5 tokens"):
        model(images(), lengths=torch.tensor([3, 3, 3]))
    for wrong in ({"legacy": True}, {"nested": True}):
        with pytest.raises(ValueError, match="ta-titok is neither"):
            SmallTaTiTokConfig(**wrong)


def test_a_statistic_of_training_is_dropped() -> None:
    names = convert_ta_titok.convert_names(["quantize.embed_prob", "decoder.text_guidance_proj.bias"])
    assert names == {"decoder.text_guidance_proj.bias": "decoder.text_embed.project.bias"}


def test_the_official_length_of_text_is_read() -> None:
    official = changed(is_legacy=False, finetune_decoder=False, text_context_length=24, text_embed_dim=64)
    assert convert_ta_titok.convert_config(official)["text_tower"] == {"length": 24, "dim": 64}
