"""TexTok: captions reach the encoder and the decoder, and help where tokens are few."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokenzoo import Tokens
from tokenzoo.image.textok import TexTok, TexTokConfig
from tokenzoo.zoo.transformer import TransformerSize

from .toys import build_toy
from .toys_captions import SmallTexTokVqConfig

CAPTIONS = ("a cat", "", "rain")


@pytest.fixture(params=["textok", "small-textok-vq"])
def model(request: pytest.FixtureRequest) -> TexTok:
    found = build_toy(request.param)
    assert isinstance(found, TexTok)
    return found


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(4))


def test_a_caption_changes_tokens_and_picture(model: TexTok) -> None:
    plain, guided = model.encode(images()), model.encode(images(), captions=CAPTIONS)
    assert guided.captions == CAPTIONS and plain.captions is None
    moved = [not torch.equal(a, b) for a, b in zip(plain.values, guided.values, strict=True)]
    assert moved[0] and not moved[1], "no caption is the empty caption"
    other = model.decode(replace(guided, captions=("rain", "", "a cat")))
    changed = (model.decode(guided) - other).abs().amax(dim=(1, 2, 3))
    assert float(changed[0]) > 1e-3 and float(changed[1]) < 1e-6 and float(changed[2]) > 1e-3


def test_captions_travel_with_the_tokens(model: TexTok, tmp_path: Path) -> None:
    tokens = model.encode(images(), captions=CAPTIONS)
    decoded = model.decode(tokens)
    tokens.save(tmp_path / "x.tok")
    assert torch.equal(model.decode(Tokens.load(tmp_path / "x.tok")), decoded)
    assert model.encode(list(images()), captions=list(CAPTIONS)).identical(tokens)
    for row, (image, caption) in enumerate(zip(images(), CAPTIONS, strict=True)):
        single = model.encode([image], captions=[caption])
        torch.testing.assert_close(model.decode(single)[0], decoded[row], atol=1e-5, rtol=0)


def test_features_may_come_instead(model: TexTok) -> None:
    features = model.caption_encoder(CAPTIONS, device=model.device, dtype=model.dtype)
    told = model.encode_latents(images(), captions=CAPTIONS)
    given = model.encode_latents(images(), text_features=features)
    assert torch.equal(told.values, given.values) and given.captions is None
    assert torch.equal(
        model(images(), captions=CAPTIONS).signal, model(images(), text_features=features).signal
    )


def test_wrong_captions_are_refused(model: TexTok) -> None:
    with pytest.raises(ValueError, match="2 captions for 3 items"):
        model.encode(images(), captions=["a", "b"])
    with pytest.raises(TypeError, match="expected a list of strings"):
        model.encode(images(), captions="abc")
    with pytest.raises(ValueError, match=r"images have shape \(1, 3, 8, 8\)"):
        model.encode([images()[0], torch.rand(3, 8, 8)], captions=["a", "b"])


def test_the_defaults_are_those_of_the_paper() -> None:
    config = TexTokConfig()
    assert (config.num_tokens, config.latent_dim, config.encoder.layers) == (32, 8, 12)
    assert config.facts().takes_captions and config.facts().name == "textok"


def test_captions_help_where_tokens_are_few() -> None:
    """Eight scenes in one token of one bit: with captions, an error that no one bit alone can reach."""
    chance = torch.Generator().manual_seed(0)
    scenes = torch.rand(8, 3, 2, 2, generator=chance).repeat_interleave(4, 2).repeat_interleave(4, 3)
    bound = min(
        sum(float(scenes[part].var(0, correction=0).mean()) * len(part) for part in _halves(mask)) / 8
        for mask in range(1, 128)
    )
    assert 0.05 < bound < 0.07
    assert _trained_error(scenes, list("abcdefgh")) < 0.2 * bound


def _halves(mask: int) -> tuple[list[int], list[int]]:
    """The eight scenes as one bit may part them."""
    return [i for i in range(8) if mask >> i & 1], [i for i in range(8) if not mask >> i & 1]


def _trained_error(pictures: Tensor, captions: list[str]) -> float:
    """Mean square error of a tiny TexTok of one token and two codes, after some steps on these pictures."""
    size = TransformerSize(width=32, layers=1, heads=2)
    small = SmallTexTokVqConfig(num_tokens=1, num_codes=2, latent_dim=2, encoder=size, decoder=size)
    config = replace(small, image_size=8, preprocess=replace(small.preprocess, size=8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = TexTok(config)
        text = model.caption_encoder(captions, device=model.device, dtype=model.dtype)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(400):
            result = model(pictures, text_features=text)
            error = (result.signal - pictures).square().mean()
            optimizer.zero_grad()
            (error + result.quantized.loss).backward()
            optimizer.step()
        decoded = model.decode(model.encode(pictures, captions=captions))
    return float((decoded - pictures).square().mean())
