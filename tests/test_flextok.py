"""FlexTok: registers that do not depend on later ones, mixed lengths, noise, guidance, training, refusals."""

import json
import logging
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.image.diffusers_vae import AutoencoderSize, FrozenAutoencoder
from tokenzoo.image.flextok import FlexTok
from tokenzoo.zoo import catalogue, loading
from tokenzoo.zoo.keywords import family_keywords, parse_keywords
from tokenzoo.zoo.length_policy import LengthPolicy
from tokenzoo.zoo.tokens import Tokens
from tokenzoo.zoo.transformer import TransformerSize

from .toys_flextok import SmallFlexTok, SmallFlexTokConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SmallFlexTokConfig()
LENGTHS = (6, 1, 3, 3, 5)


def make(config: SmallFlexTokConfig = CONFIG) -> SmallFlexTok:
    torch.manual_seed(0)
    return SmallFlexTok(config).eval()


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=Generator().manual_seed(1))


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


def mixed_tokens(model: FlexTok) -> Tokens:
    singles = model.encode(images()).unbind()
    return Tokens.cat([single.keep(length) for single, length in zip(singles, LENGTHS, strict=True)])


def test_config_goes_to_plain_values_and_back() -> None:
    assert SmallFlexTokConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_keep_computes_those_registers_only() -> None:
    model = make().double()
    rows: list[int] = []
    model.encoder.blocks[1].mlp.register_forward_pre_hook(
        lambda module, given: rows.append(given[0].shape[1])
    )
    whole = model.encode_latents(images().double())
    for count in range(1, 7):
        rows.clear()
        kept = model.encode_latents(images().double(), keep=count)
        assert rows == [16 + count] and kept.lengths.tolist() == [count] * 5
        torch.testing.assert_close(kept.values, whole.values[:, :count], atol=1e-13, rtol=0)
        assert model.encode(images(), keep=count).identical(model.encode(images()).keep(count))
    assert model.encode(list(images()), keep=9).lengths.tolist() == [6] * 5
    with pytest.raises(ValueError, match="keep=0: expected an integer of at least 1"):
        model.encode(images(), keep=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_mixed_lengths_decode_as_singles_do(dtype: torch.dtype, tolerance: float) -> None:
    model = make().to(dtype)
    mixed = mixed_tokens(model)
    together = model.decode_latents(model.dequantize(mixed), steps=3)
    assert together.dtype == dtype
    for item, single in enumerate(mixed.unbind()):
        alone = model.decode_latents(model.dequantize(single), steps=3)
        torch.testing.assert_close(together[item : item + 1], alone, atol=tolerance, rtol=0)


def test_every_token_changes_the_picture_and_padding_does_not() -> None:
    model = make()
    tokens = model.encode(images(1))
    pictures = [model.decode(tokens.keep(count), steps=3) for count in range(1, 7)]
    for shorter, longer in pairwise(pictures):
        assert float((shorter - longer).abs().max()) > 1e-4
    mixed = mixed_tokens(model)
    filled = replace(mixed, values=torch.where(mixed.mask, mixed.values, 59))
    assert torch.equal(model.decode(filled, steps=3), model.decode(mixed, steps=3))


def test_registers_without_tokens_do_not_know_their_place() -> None:
    decoder = make().decoder
    registers = decoder.embed(torch.ones(2, 4, 3), torch.tensor([4, 1]))
    assert registers.shape == (2, 6, 32)
    for item, told in ((0, 4), (1, 1)):
        assert torch.equal(registers[item, told:], decoder.mask_token.expand(6 - told, -1))
        assert not torch.equal(registers[item, :told], decoder.mask_token.expand(told, -1))
    assert torch.equal(decoder.unconditional(registers), decoder.null_token.expand(2, 6, -1))


def test_noise_is_that_of_seed_0_or_of_the_generators() -> None:
    model = make()
    tokens = model.encode(images(3))
    shape = (4, 8, 8)
    zero = torch.randn(shape, generator=Generator().manual_seed(0)).expand(3, *shape)
    explicit = model.decode_latents(model.dequantize(tokens), noise=zero, steps=2).clamp(0, 1)
    assert torch.equal(model.decode(tokens, steps=2), explicit)
    drawn = model.decode(tokens, generator=generators(4, 0, 6), steps=2)
    assert not torch.equal(drawn[0], explicit[0])
    torch.testing.assert_close(drawn[1], explicit[1], atol=1e-6, rtol=0)
    # Official code draws item after item from one generator; for whole maps that is one draw.
    chance = Generator().manual_seed(9)
    noise = torch.cat([torch.randn(1, *shape, generator=chance) for _ in range(3)])
    official = model.decode_latents(model.dequantize(tokens), noise=noise, steps=2).clamp(0, 1)
    assert torch.equal(model.decode(tokens, generator=Generator().manual_seed(9), steps=2), official)


def test_guidance_takes_one_pass_a_step() -> None:
    model = make()
    tokens = model.encode(images(2))
    batches: list[int] = []
    model.decoder.register_forward_pre_hook(lambda module, given: batches.append(len(given[0])))
    plain = model.decode(tokens, steps=3, guidance=1.0)
    assert batches == [2, 2, 2]
    batches.clear()
    guided = model.decode(tokens, steps=3, guidance=4.0, norm_guidance=False)
    assert batches == [4, 4, 4]
    assert not torch.equal(plain, guided)
    assert not torch.equal(guided, model.decode(tokens, steps=3, guidance=4.0))
    assert torch.equal(model.decode(tokens), model.decode(tokens, steps=20, guidance=7.5, norm_guidance=True))


def test_the_command_line_finds_the_keywords() -> None:
    model = make()
    assert family_keywords(model, "encode") == {}
    assert list(family_keywords(model, "decode")) == ["steps", "guidance", "norm_guidance"]
    parsed = parse_keywords(model, "decode", ["steps=4", "guidance=2", "norm_guidance=no"])
    assert parsed == {"steps": 4, "guidance": 2.0, "norm_guidance": False}


def test_posterior_is_sampled_by_models_that_do_and_with_a_generator_only() -> None:
    model = make()
    mean = model.encode_latents(images(2)).values
    noise = torch.randn(2, 4, 8, 8, generator=Generator().manual_seed(3))
    sampled = model.encode_latents(images(2), noise=noise)
    assert not torch.equal(sampled.values, mean)
    assert model.encode(images(2), generator=Generator().manual_seed(3)).identical(model.quantize(sampled))
    faithful = make(replace(CONFIG, sample_posterior=False))
    assert torch.equal(faithful.encode_latents(images(2), noise=noise).values, mean)


def test_images_smaller_than_the_table_of_places_use_its_corner() -> None:
    larger = make(replace(CONFIG, image_size=20, preprocess=replace(CONFIG.preprocess, size=20)))
    assert larger.num_tokens((20, 20)) == 6
    assert larger.decode(larger.encode(torch.rand(1, 3, 20, 20)), steps=1).shape == (1, 3, 20, 20)
    table = larger.encoder.patches.positions
    assert table.shape == (1, 32, 5, 5)
    # Half the features tell the row, half the column.
    assert torch.equal(table[0, :16, :, 0], table[0, :16, :, 4])
    assert torch.equal(table[0, :16], table[0, 16:].transpose(1, 2))


def test_training_path() -> None:
    model = make(replace(CONFIG, null_share=0.5)).train()
    lengths = LengthPolicy(6, per="sample").sample(5, generator=Generator().manual_seed(0))
    results = [model(images(), lengths=lengths, generator=Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(results[0].signal, results[1].signal)
    assert results[0].signal.shape == (5, 3, 16, 16) and results[0].quantized.values.shape == (5, 6)
    assert results[0].quantized.loss.item() > 0
    assert not torch.equal(results[0].signal, model(images(), lengths=lengths).signal)
    (results[0].signal.square().mean() + results[0].quantized.loss).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith("vae.")}
    assert model.eval()(images()).quantized.loss.item() == 0


def test_the_flow_learns_to_arrive() -> None:
    """By its own loss alone the decoder learns where two images are, and its samples come closer to them."""
    model = make(replace(CONFIG, sample_posterior=False))
    given, chance = images(2), Generator().manual_seed(0)

    def error() -> float:
        tokens = model.encode(given)
        maps: list[Tensor] = []
        hook = model.vae.model.post_quant_conv.register_forward_pre_hook(
            lambda module, seen: maps.append(seen[0])
        )
        model.decode_latents(model.dequantize(tokens), steps=8, guidance=1.0)
        hook.remove()
        return float((maps[0] * CONFIG.vae_scale - model._map_of(given, None)).square().mean().detach())

    before = error()
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=3e-3)
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        model(given.repeat(4, 1, 1, 1), generator=chance).quantized.loss.backward()
        optimizer.step()
    assert error() < 0.3 * before


def test_half_precision_decodes_in_range() -> None:
    model = make().to(torch.bfloat16)
    decoded = model.decode(model.encode(images(2)), steps=3)
    assert decoded.dtype == torch.float32 and bool(torch.isfinite(decoded).all())
    assert float(decoded.min()) >= 0 and float(decoded.max()) <= 1


def test_parts_export_with_a_free_batch() -> None:
    model, batch = make(), torch.export.Dim("batch", min=2, max=64)
    given = (torch.randn(3, 4, 8, 8), torch.rand(3), torch.randn(3, 6, 32))
    with torch.no_grad():
        encoder = torch.export.export(model.encoder, given[:1], dynamic_shapes=({0: batch},)).module()
        decoder = torch.export.export(model.decoder, given, dynamic_shapes=({0: batch},) * 3).module()
        other = tuple(torch.cat([tensor, tensor]) for tensor in given)
        torch.testing.assert_close(encoder(other[0]), model.encoder(other[0]))
        torch.testing.assert_close(decoder(*other), model.decoder(*other))


def test_the_licence_is_shown_on_load(caplog: pytest.LogCaptureFixture) -> None:
    row = catalogue.find("EPFL-VILAB/flextok_d18_d28_dfn")
    assert row is not None and row.name == "flextok-d18-d28-dfn"
    facts = replace(row.facts, revision="f" * 40)
    with caplog.at_level(logging.WARNING, logger="tokenzoo"):
        loading._tell_licence(facts, row)
    assert "apple-amlr (for non-commercial research only: Apple Machine Learning Research" in caplog.text


def test_without_diffusers_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"diffusers is missing .*pip install \"tokenzoo\[diffusers\]\""):
        FrozenAutoencoder(AutoencoderSize())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 18}, "image_size=18: expected a multiple of 4, the pixels of a patch, and at most"),
        ({"position_grid": 3}, "position_grid=3 of them"),
        ({"image_size": 20}, "preprocess.size=16 with image_size=20: expected the same"),
        ({"num_tokens": 0}, r"num_tokens=0: expected 1 \.\.\. 16384"),
        ({"vae_scale": 0.0}, "vae_scale=0.0"),
        ({"vae_scale": float("nan")}, "vae_scale=nan"),
        ({"levels": (5, 1)}, "levels"),
        ({"levels": ()}, "levels"),
        ({"decoder": TransformerSize(width=6, layers=1, heads=1)}, "width=6: expected a multiple of 4"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_what_it_cannot_take_is_refused() -> None:
    model = make()
    tokens = model.encode(images(2))
    with pytest.raises(ValueError, match="steps=0"):
        model.decode(tokens, steps=0)
    with pytest.raises(ValueError, match="1 generators for 2 items"):
        model.decode(tokens, generator=generators(1))
    with pytest.raises(ValueError, match="7 tokens for an extent of 16 x 16: flextok takes at most 6"):
        extents = model.default_extents(torch.tensor([7]))
        model.decode(Tokens(torch.zeros(1, 7, dtype=torch.int64), torch.tensor([7]), extents, model.facts))
    with pytest.raises(ValueError, match="id 60 at "):
        model.stamp([[60]])
    with pytest.raises(ValueError, match="takes no captions"):
        model(images(1), captions=["a"])
    with pytest.raises(ValueError, match="channels=20 with groups=8: expected a multiple"):
        AutoencoderSize(channels=(20,), groups=8)
