"""SpeechTokenizer: exact length, content and timbre, pieces of long sounds, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig
from tokenzoo.audio.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
from tokenzoo.audio.stream import join
from tokenzoo.checkpoints import convert_speechtokenizer
from tokenzoo.checkpoints.pickles import PICKLE_SUFFIXES, Pickle, read_pickle
from tokenzoo.checkpoints.weights import load_strict
from tokenzoo.zoo import catalogue, loading
from tokenzoo.zoo.keywords import family_keywords
from tokenzoo.zoo.residual_quantizer import ResidualQuantizer

from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")
HOP = 4


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.rand(1, samples, generator=Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def codec() -> SpeechTokenizer:
    """The toy, with codes among the latents, so that ids differ and are far from ties."""
    toy = build_toy("speechtokenizer")
    assert isinstance(toy, SpeechTokenizer)
    residual = toy.encode_latents(sound(2000)[None]).values[0].detach()
    chance = Generator().manual_seed(5)
    for stage in toy.quantizer.stages:
        rows = residual[torch.randperm(len(residual), generator=chance)[: len(stage.codebook)]]
        stage.codebook.copy_(rows + torch.randn(rows.shape, generator=chance) * residual.std(0))
        residual = residual - stage.decode(stage.encode(residual))
    return toy


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 40, 41])
def test_a_round_trip_gives_back_as_many_samples(codec: SpeechTokenizer, samples: int) -> None:
    tokens = codec.encode([sound(samples, samples)])
    count = -(-samples // HOP)
    assert tokens.ids.shape == (1, count, 3) and codec.num_tokens((samples,)) == count
    assert codec.decode(tokens).shape == (1, 1, samples)
    # The official decoder gives whole hops.
    assert codec.sound_of(codec.dequantize(tokens).values).shape == (1, 1, count * HOP)


def test_a_batch_of_lengths_is_its_singles(codec: SpeechTokenizer) -> None:
    items = [sound(samples, samples) for samples in (30, 31, 8, 30, 1)]
    tokens = codec.encode(items)
    decoded = tokens.crop(codec.decode(tokens, first_codebook=1))
    for item, single, heard in zip(items, tokens.unbind(), decoded, strict=True):
        alone = codec.encode([item])
        assert alone.identical(single)
        torch.testing.assert_close(heard, codec.decode(alone, first_codebook=1)[0], atol=1e-6, rtol=0)


def test_pieces_of_a_long_sound_are_nearly_the_whole(codec: SpeechTokenizer) -> None:
    """The LSTMs forget within the context; random ones soon, so that nothing is left to see here."""
    item = sound(HOP * 700, 3)
    whole = codec.encode([item])
    pieces = codec.encode([item], chunk_seconds=0.05)  # of 200 tokens
    assert torch.equal(pieces.extents, whole.extents)
    assert float((pieces.ids != whole.ids).double().mean()) <= 0.01
    stream = codec.stream(keep=2, block_seconds=0.03)
    streamed = join([*(stream.encode(piece) for piece in item.split(333, dim=-1)), stream.flush().tokens])
    assert float((streamed.ids != whole.keep(2).ids).double().mean()) <= 0.01
    full, parts = codec.decode(whole), codec.decode(whole, chunk_seconds=0.05)
    assert parts.shape == full.shape
    assert float((parts - full).norm() / full.norm()) < 1e-3


def test_content_and_the_rest(codec: SpeechTokenizer) -> None:
    """Latents are sums: content and the rest, apart, are what they are together."""
    tokens = codec.encode([sound(HOP * 20, 1)])
    tables = codec.codebook_embeddings()
    ids = tokens.ids[0]
    rest = tables[1][ids[:, 1]] + tables[2][ids[:, 2]]
    expected = codec.sound_of(rest[None]).clamp(-1, 1)
    torch.testing.assert_close(codec.decode(tokens, first_codebook=1), expected, atol=1e-6, rtol=0)
    second = codec.decode(tokens.keep(2), first_codebook=1)
    torch.testing.assert_close(
        second, codec.sound_of(tables[1][ids[:, 1]][None]).clamp(-1, 1), atol=1e-6, rtol=0
    )
    assert torch.equal(codec.decode(tokens, first_codebook=0), codec.decode(tokens))
    assert not torch.equal(second, codec.decode(tokens.keep(1)))


def test_content_of_one_voice_with_the_timbre_of_another(codec: SpeechTokenizer) -> None:
    said, voice = (codec.encode([sound(HOP * 20, seed)]) for seed in (1, 2))
    mixed = codec.stamp(torch.cat([said.ids[..., :1], voice.ids[..., 1:]], dim=-1), extents=said.extents)
    assert torch.equal(codec.semantic_features(mixed), codec.semantic_features(said))
    assert torch.equal(codec.decode(mixed, first_codebook=1), codec.decode(voice, first_codebook=1))


def test_the_official_start_makes_other_ids(codec: SpeechTokenizer) -> None:
    """`encode(st=1)` quantizes the latent itself, not what the first codebook left of it."""
    signal = sound(HOP * 40, 1)[None]
    others = ResidualQuantizer(list(codec.quantizer.stages)[1:])
    official = others.encode(codec.encode_latents(signal).values)
    assert official.shape == (1, 40, 2)
    assert not torch.equal(official, codec.encode(signal).ids[..., 1:])


def test_what_a_start_refuses(codec: SpeechTokenizer) -> None:
    tokens = codec.encode([sound(40)])
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=rf"first_codebook={wrong}: expected 0 \.\.\. 2"):
            codec.decode(tokens, first_codebook=wrong)
    with pytest.raises(ValueError, match=r"first_codebook=1: expected 0 \.\.\. 0"):
        codec.decode(tokens.keep(1), first_codebook=1)
    with pytest.raises(ValueError, match="first_codebook and chunk_seconds do not go together"):
        codec.decode(tokens, first_codebook=1, chunk_seconds=1.0)
    foreign = replace(tokens, facts=replace(tokens.facts, name="another"))
    with pytest.raises(ValueError, match="these tokens were made by another"):
        codec.decode(foreign, first_codebook=1)
    assert set(family_keywords(codec, "decode")) >= {"first_codebook"}


def test_semantic_features_are_of_the_first_codebook(codec: SpeechTokenizer) -> None:
    tokens = codec.encode([sound(HOP * 9, 1), sound(HOP * 4, 2)])
    features = codec.semantic_features(tokens)
    assert features.shape == (2, 9, codec.config.semantic_dim)
    assert torch.equal(features, codec.semantic_features(tokens.keep(1)))
    first = codec.codebook_embeddings()[0][tokens.ids[0, :, 0]]
    torch.testing.assert_close(features[0], codec.transform(first))
    features.sum().backward()
    assert codec.transform.weight.grad is not None
    same_width = SpeechTokenizer(replace(codec.config, semantic_dim=codec.config.latent_dim))
    assert isinstance(same_width.transform, nn.Identity)


def test_the_first_channel_is_heard(codec: SpeechTokenizer) -> None:
    stereo = torch.stack([sound(40, 1)[0], sound(40, 2)[0]])
    assert torch.equal(codec.preprocess((stereo, 16_000)), stereo[:1])
    with pytest.raises(ValueError, match=r"takes \(B, 1, S\), S at least 1 \(mix stereo down first\)"):
        codec.encode(stereo[None])


def test_roles_and_rates() -> None:
    facts = SpeechTokenizerConfig().facts()
    assert facts.roles == ("semantic",) + ("acoustic",) * 7
    assert facts.bitrate_bps() == 4000 and facts.bitrate_bps(1) == 500
    assert facts.keep_for_bitrate(1500) == 3


def test_a_training_step_moves_every_part() -> None:
    toy = build_toy("speechtokenizer").train()
    assert isinstance(toy, SpeechTokenizer)
    signal = torch.stack([sound(80, 1), sound(80, 2)])
    torch.manual_seed(0)
    result = toy(signal, lengths=torch.tensor([1, 3]))
    assert result.quantized.values[0, :, 1:].eq(-1).all()
    ((result.signal - signal).square().mean() + result.quantized.loss).backward()
    still = [name for name, parameter in toy.named_parameters() if parameter.grad is None]
    # What the distillation trains.
    assert still == ["transform.weight", "transform.bias"]


def test_a_file_of_any_ending_that_the_catalogue_names_is_a_pickle(tmp_path: Any, monkeypatch) -> None:
    """The one with Snake is called ckpt.dev."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    row = catalogue.find("speechtokenizer-snake")
    assert row is not None and row.file.endswith("ckpt.dev") and row.file.endswith(PICKLE_SUFFIXES)
    toy = build_toy("speechtokenizer")
    official = {convert_speechtokenizer.official_name(name): t for name, t in toy.state_dict().items()}
    torch.save(official, tmp_path / "ckpt.dev")
    tensors = read_pickle(tmp_path / "ckpt.dev", Pickle("ckpt.dev", row.part))
    assert convert_speechtokenizer.recognise(None, tensors)
    other = build_toy("speechtokenizer")
    load_strict(other, loading._renamed(convert_speechtokenizer, tensors))
    signal = sound(60)[None]
    assert torch.equal(other.encode(signal).ids, toy.encode(signal).ids)


def test_networks_that_nobody_released_are_refused() -> None:
    for config in ({"activation": "ReLU"}, {"bidirectional": False}):
        with pytest.raises(ValueError, match="expected 'ELU' or 'Snake', and True"):
            convert_speechtokenizer.convert_config(config)
    with pytest.raises(ValueError, match="2 channels of sound, 1 of the networks: expected as many"):
        SpeechTokenizerConfig(preprocess=AudioPreprocess(16_000, channels=2))
    with pytest.raises(ValueError, match="num_codebooks=65: expected 1"):
        SpeechTokenizerConfig(num_codebooks=65, seanet=SeanetConfig(bidirectional=True))
