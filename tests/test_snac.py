"""SNAC: ids of several rates in one row, noise that is repeatable, windows that pieces respect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.audio.snac import Snac, SnacConfig
from tokenzoo.audio.snac_stream import draw_token_noise
from tokenzoo.audio.stream import join
from tokenzoo.checkpoints import convert_snac

from .test_dac import enliven, sound
from .toys import build_toy
from .toys_dac import SmallSnacConfig, SmallWindowedSnacConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def lively(name: str = "snac") -> Snac:
    model = enliven(build_toy(name))
    assert isinstance(model, Snac)
    return model


@pytest.fixture(scope="module", params=["snac", "small-windowed-snac"])
def snac(request: pytest.FixtureRequest) -> Snac:
    return lively(request.param)


@pytest.mark.parametrize("samples", [1, 23, 24, 25, 47, 48, 49, 100, 144])
def test_a_round_trip_gives_back_as_many_samples(snac: Snac, samples: int) -> None:
    """Tokens fill up hops of frames, and windows where there are some."""
    hop, align = snac.config.hop_samples, snac.align_tokens
    assert (hop, align) in {(24, 1), (12, 2)}
    tokens = snac.encode([sound(samples)])
    count = -(-samples // (hop * align)) * align
    assert tokens.ids.shape == (1, count, sum(snac.config.ids_per_token))
    assert snac.num_tokens([samples]) == count
    assert snac.decode(tokens).shape == (1, 1, samples)


def test_a_token_is_one_coarse_id_and_all_under_it() -> None:
    """Latents are what the tables of the ids add up to, frame by frame."""
    model = lively()
    assert model.facts.keeps == (1, 3, 7) and model.config.ids_per_token == (1, 2, 4)
    tokens = model.encode([sound(100)])
    tables, (ids,) = model.codebook_embeddings(), tokens.ids
    frames = [
        tables[0][token[0]] + tables[1][token[1 + frame // 2]] + tables[3][token[3 + frame]]
        for token in ids
        for frame in range(4)
    ]
    torch.testing.assert_close(model.dequantize(tokens).values[0], torch.stack(frames))


def test_levels_are_kept_whole() -> None:
    model = lively()
    items = [sound(100), sound(30, 1)]
    tokens = model.encode(items)
    for keep in (1, 3, 7):
        kept = model.encode(items, keep=keep)
        assert kept.identical(tokens.keep(keep))
        assert kept.ids.shape[2] == keep
        assert model.decode(kept).shape == (2, 1, 100)
    for call in (lambda: model.encode(items, keep=2), lambda: tokens.keep(4)):
        with pytest.raises(ValueError, match="snac decodes prefixes of 1, 3, 7 codebooks"):
            call()


def test_published_sizes() -> None:
    """Samples, ids and bits of a token as the paper has them."""
    config = SnacConfig()
    assert config.hop_samples == 2048 and round(config.facts().bitrate_bps() or 0) == 984
    music = SnacConfig(64, (2, 3, 8, 8), 1536, (8, 8, 3, 2), window_size=32, frames=(8, 4, 2, 1))
    assert music.hop_samples == 3072 and music.facts().keeps == (1, 3, 7, 15)


def test_noise_is_that_of_seed_0_for_each_item_by_itself(snac: Snac) -> None:
    items = [sound(100), sound(30, 1), sound(100, 2)]
    tokens = snac.encode(items)
    torch.manual_seed(3)
    decoded = snac.decode(tokens)
    torch.manual_seed(4)
    assert torch.equal(snac.decode(tokens), decoded)
    seeded = snac.decode(tokens, generator=[Generator().manual_seed(0) for _ in items])
    assert torch.equal(seeded, decoded)
    for index, single in enumerate(tokens.unbind()):
        alone = snac.decode(single, generator=[Generator().manual_seed(0)])[0]
        torch.testing.assert_close(alone, decoded[index, :, : alone.shape[-1]], atol=1e-3, rtol=0)
    other = snac.decode(tokens, generator=Generator().manual_seed(1))
    assert not torch.allclose(other, decoded, atol=1e-2)


def test_one_generator_draws_item_after_item(snac: Snac) -> None:
    tokens = snac.encode([sound(100), sound(30, 1)])
    together, one_by_one = Generator().manual_seed(5), Generator().manual_seed(5)
    decoded = snac.decode(tokens, generator=together)
    for index, single in enumerate(tokens.unbind()):
        alone = snac.decode(single, generator=one_by_one)[0]
        torch.testing.assert_close(alone, decoded[index, :, : alone.shape[-1]], atol=1e-3, rtol=0)


@pytest.mark.parametrize("width", [1, 15, 16, 17, 3360])
def test_noise_in_pieces_is_that_of_the_whole(width: int) -> None:
    whole = draw_token_noise(width, 9, None)
    assert whole.shape == (9, width)
    generator = Generator().manual_seed(0)
    pieces = [draw_token_noise(width, count, [generator]) for count in (0, 2, 1, 6)]
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(draw_token_noise(width, 4, None), whole[:4])


def test_noise_can_be_given(snac: Snac) -> None:
    tokens = snac.encode([sound(100)])
    latents = snac.dequantize(tokens)
    shape = (1, tokens.ids.shape[1], snac.config.noise_width)
    silent = snac.decode_latents(latents, noise=torch.zeros(shape))
    assert torch.equal(silent, snac.decode_latents(latents, noise=torch.zeros(shape)))
    default = draw_token_noise(shape[2], shape[1], None)[None]
    assert torch.equal(snac.decode_latents(latents, noise=default), snac.decode_latents(latents))
    assert not torch.allclose(silent, snac.decode_latents(latents), atol=1e-2)
    with pytest.raises(ValueError, match=r"noise of shape \(1, 3, 2\): expected \(1, "):
        snac.decode_latents(latents, noise=torch.zeros(1, 3, 2))


def test_training_draws_fresh_noise(snac: Snac) -> None:
    wave = sound(96)[None]
    try:
        snac.train()
        torch.manual_seed(0)
        first, second = snac(wave).signal, snac(wave).signal
        assert not torch.equal(first, second)
        torch.manual_seed(0)
        assert torch.equal(snac(wave).signal, first)
        seeded = [snac(wave, generator=Generator().manual_seed(9)).signal for _ in range(2)]
        assert torch.equal(*seeded)
    finally:
        snac.eval()
    assert torch.equal(snac(wave).signal, snac(wave).signal)


@pytest.mark.parametrize("seconds", [0.001, 0.004, 0.03])
@pytest.mark.parametrize("name", ["snac", "small-windowed-snac"])
def test_pieces_are_the_whole(name: str, seconds: float) -> None:
    """In float64, where pieces and whole round alike: all ids, and the sound with its noise."""
    exact = lively(name).double()
    items = [sound(samples, samples).double() for samples in (1, 400, 777)]
    whole = exact.encode(items)
    assert exact.encode(items, chunk_seconds=seconds).identical(whole)
    pieces = exact.decode(whole, chunk_seconds=seconds)
    torch.testing.assert_close(pieces, exact.decode(whole), atol=1e-6, rtol=0)
    chance = [[Generator().manual_seed(seed) for seed in range(3)] for _ in range(2)]
    drawn = exact.decode(whole, generator=chance[0])
    pieces = exact.decode(whole, generator=chance[1], chunk_seconds=seconds)
    torch.testing.assert_close(pieces, drawn, atol=1e-6, rtol=0)
    assert not torch.allclose(drawn[1:], exact.decode(whole)[1:], atol=1e-2)


def test_float32_pieces_differ_by_near_ties_alone(snac: Snac) -> None:
    items = [sound(8000, seed) for seed in range(3)]
    whole, pieces = snac.encode(items), snac.encode(items, chunk_seconds=0.02)
    rate = float((whole.ids != pieces.ids).float().mean())
    assert rate <= 1e-3, f"{rate:.2%} of {whole.ids.numel()} ids differ"


@pytest.mark.parametrize("step", [7, 24, 60])
def test_a_stream_takes_pieces_of_any_size(snac: Snac, step: int) -> None:
    item = sound(600)
    writer, reader = (snac.stream(block_seconds=0.001) for _ in range(2))
    pieces = [writer.encode(piece) for piece in item.split(step, dim=-1)]
    pieces.append(writer.flush().tokens)
    tokens = join(pieces)
    assert tokens.identical(snac.encode([item]))
    heard = [reader.decode(piece) for piece in pieces]
    heard = torch.cat([*heard, reader.flush().signal], dim=-1)
    torch.testing.assert_close(heard, snac.decode(tokens), atol=1e-3, rtol=0)


def test_a_stream_begins_anew_after_its_flush(snac: Snac) -> None:
    tokens = snac.encode([sound(300)])
    stream = snac.stream()
    first, second = (torch.cat([stream.decode(tokens), stream.flush().signal], dim=-1) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, snac.decode(tokens), atol=1e-3, rtol=0)


def test_a_stream_wants_a_generator_for_each_sound(snac: Snac) -> None:
    tokens = snac.encode(torch.stack([sound(48), sound(48, 1)]))
    with pytest.raises(ValueError, match="1 generators for 2 sounds: give one for each"):
        snac.stream(generator=Generator()).decode(tokens)


def test_half_a_window_has_no_sound() -> None:
    model = lively("small-windowed-snac")
    ids = torch.zeros(1, 3, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"3 tokens for an extent of 36: \S+ takes 4"):
        model.stamp(ids)
    stream = model.stream()
    stream.decode(model.stamp(ids[:, :2]))
    stream.decode(replace(model.stamp(ids[:, :2]), values=ids[:, :1], lengths=torch.tensor([1])))
    with pytest.raises(ValueError, match=r"3 tokens: \S+ decodes whole windows of attention; expected a mul"):
        stream.flush()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": (4, 3)}, r"frames \(4, 3\): expected each to divide the first"),
        ({"frames": ()}, "number of levels of frames=0: expected 1 ... 16"),
        ({"window_size": 4}, "attention at widths 16 and 16: expected multiples of 64"),
        ({"decoder_strides": (3, 3)}, "expected the same product"),
    ],
)
def test_configurations_that_make_no_model(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SmallSnacConfig(), **wrong)


@pytest.mark.parametrize(
    ("official", "message"),
    [
        ({"noise": False}, "noise is false: expected true"),
        ({"depthwise": False}, "depthwise is false: expected true"),
        ({"latent_dim": 5, "encoder_dim": 4, "encoder_rates": [2]}, "latent_dim 5: expected 8, the width of"),
    ],
)
def test_official_models_that_nobody_published(official: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_snac.convert_config(official)


def test_windows_are_attended_to_one_by_one() -> None:
    model = Snac(SmallWindowedSnacConfig()).double()
    layer = model.encoder[3]
    x = torch.randn(1, 64, 12, dtype=torch.float64)
    parts = [layer(part) for part in x.split(4, dim=-1)]
    torch.testing.assert_close(layer(x), torch.cat(parts, dim=-1))
    changed: Tensor = layer(torch.cat([x[..., :4], torch.zeros_like(x[..., 4:])], dim=-1))
    torch.testing.assert_close(changed[..., :4], parts[0])
