"""Mimi: lengths, streams, pieces, codebooks kept. The layouts of its weights: test_convert_mimi.py."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenzoo import Tokens
from tokenzoo.audio import mimi
from tokenzoo.audio.causal_transformer import CausalAttention, CausalTransformerConfig
from tokenzoo.audio.mimi import Mimi, MimiConfig
from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig
from tokenzoo.audio.stream import join
from tokenzoo.audio.stream_state import StreamState

from .golden_fixture import read_fixture
from .golden_mimi import RUNS
from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parent / "golden" / "mimi-a"


@pytest.fixture
def model() -> Mimi:
    """The fixture's weights in float64, where rounding moves no id."""
    fixture, run = read_fixture(GOLDEN), RUNS["kyutai-labs/moshi"]
    built = run.build(fixture.config).eval()
    run.load(built, fixture.config, fixture.tensors)
    return built.double()


def sound(samples: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def chunks(whole: Tensor, seed: int) -> list[Tensor]:
    """Of random sizes, some empty."""
    draw = random.Random(seed)
    cuts = sorted(draw.choices(range(whole.shape[-1] + 1), k=12))
    return [whole[..., start:end] for start, end in pairwise([0, *cuts, whole.shape[-1]])]


def test_every_length_comes_back(model: Mimi) -> None:
    hop = model.config.hop_samples
    assert hop == 40
    for samples in (1, 2, hop - 1, hop, hop + 1, 2 * hop, 3 * hop - 1, 7 * hop + 3):
        signal = sound(samples)
        tokens = model.encode(signal)
        assert tokens.lengths.tolist() == [model.num_tokens((samples,))] == [-(-samples // hop)]
        assert model.decode(tokens).shape == signal.shape
        padded = torch.nn.functional.pad(signal, (0, -samples % hop))
        assert torch.equal(tokens.ids, model.encode(padded).ids)


def test_the_past_alone_decides(model: Mimi) -> None:
    signal, hop = sound(30 * 40), 40
    whole = model.encode(signal)
    decoded = model.decode(whole)
    for tokens in (1, 7, 29):
        beginning = model.encode(signal[..., : tokens * hop])
        assert torch.equal(beginning.ids, whole.ids[:, :tokens])
        torch.testing.assert_close(model.decode(beginning), decoded[..., : tokens * hop])


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_in_chunks_of_any_size_is_the_whole(model: Mimi, seed: int) -> None:
    signal = sound(60 * 40 + 17, batch=2, seed=seed)
    whole = model.encode(signal)
    stream = model.stream()
    pieces = [stream.encode(chunk) for chunk in chunks(signal, seed)]
    assert sum(piece.values.shape[1] for piece in pieces) == 60, "a hop that is full was held back"
    tokens = join([*pieces, stream.flush().tokens])
    assert tokens.identical(whole)
    ids, draw, heard, start = whole.ids, random.Random(seed), [], 0
    while start < ids.shape[1]:
        count = draw.randint(1, 9)
        heard.append(stream.decode(model.stamp(ids[:, start : start + count])))
        start += count
    joined = torch.cat([*heard, stream.flush().signal], dim=-1)[..., : signal.shape[-1]]
    torch.testing.assert_close(joined, model.decode(whole), atol=1e-6, rtol=0)


def test_two_streams_share_one_model_and_begin_anew(model: Mimi) -> None:
    sounds = [sound(20 * 40, seed=seed) for seed in (1, 2)]
    streams = [model.stream(keep=3), model.stream(keep=3)]
    for _ in range(2):
        pieces: list[list[Tokens]] = [[], []]
        for place in range(0, 800, 100):
            for index in (0, 1):
                pieces[index].append(streams[index].encode(sounds[index][..., place : place + 100]))
        for index in (0, 1):
            tokens = join([*pieces[index], streams[index].flush().tokens])
            assert tokens.identical(model.encode(sounds[index], keep=3))


def test_an_endless_stream_remembers_no_more_than_the_window(model: Mimi) -> None:
    state, hop = StreamState(), model.config.hop_samples

    def remembered() -> int:
        return sum(_size(memory) for memory in state._memories.values())

    sizes = []
    for step in range(12):
        with torch.no_grad():
            model.encode_step(sound(hop, seed=step), state)
        sizes.append(remembered())
    assert sizes[0] < sizes[1] and len(set(sizes[4:])) == 1
    attention = model.encoder.transformer.layers[0].attention
    assert isinstance(attention, CausalAttention) and state.recall(attention).window == 6


def _size(memory: Any) -> int:
    """Numbers held by what a part remembers."""
    if isinstance(memory, Tensor):
        return memory.untyped_storage().nbytes() // memory.element_size()
    if isinstance(memory, list | tuple):
        return sum(map(_size, memory))
    return sum(map(_size, vars(memory).values())) if hasattr(memory, "__dict__") else 0


def test_long_sounds_pass_in_pieces(model: Mimi, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = sound(50 * 40 - 3, batch=2)
    whole = model.encode(signal)
    decoded = model.decode(whole)
    monkeypatch.setattr(mimi, "WHOLE_TOKENS", 7)
    for size in (1, 3, 49):
        monkeypatch.setattr(mimi, "PIECE_TOKENS", size)
        assert model.encode(signal).identical(whole)
        torch.testing.assert_close(model.decode(whole), decoded, atol=1e-6, rtol=0)
    chunked = model.encode(signal, chunk_seconds=0.01)
    assert chunked.identical(whole)
    torch.testing.assert_close(model.decode(whole, chunk_seconds=0.01), decoded, atol=1e-6, rtol=0)


def test_pieces_carry_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = build_toy("mimi")
    signal = sound(20 * toy.config.hop_samples).float()
    gradients = []
    for whole_tokens in (250, 3):
        monkeypatch.setattr(mimi, "WHOLE_TOKENS", whole_tokens)
        monkeypatch.setattr(mimi, "PIECE_TOKENS", 3)
        leaf = signal.clone().requires_grad_()
        toy(leaf).signal.square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_keep_computes_no_other_codebooks(model: Mimi, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = sound(400)
    tokens = model.encode(signal)
    for stage in list(model.quantizer.rest.inner.stages)[2:]:
        monkeypatch.setattr(stage, "plain_codebook", None)
        monkeypatch.setattr(stage, "encode", None)
    assert model.encode(signal, keep=3).identical(tokens.keep(3))
    monkeypatch.setattr(model.quantizer.rest, "encode", None)
    assert model.encode(signal, keep=1).identical(tokens.keep(1))


def test_facts() -> None:
    facts = MimiConfig().facts()
    assert facts.roles[:2] == ("semantic", "acoustic") and len(facts.roles) == 32
    assert facts.bitrate_bps(keep=8) == 1100 and facts.bitrate_bps() == 4400
    assert facts.keep_for_bitrate(1100) == 8
    two = replace(MimiConfig(), semantic_codebooks=2).facts()
    assert two.keeps[0] == 2 and two.keeps[-1] == 32
    with pytest.raises(ValueError, match=r"keep=1: mimi decodes prefixes of 2, 3, 4, 5, 6, \.\.\., 31, 32"):
        two.check_keep(1)


def test_wrong_tokens_are_refused(model: Mimi) -> None:
    with pytest.raises(ValueError, match="40"):
        model.stamp(torch.full((1, 3, 6), 40))
    with pytest.raises(ValueError, match="7"):
        model.stamp(torch.zeros(1, 3, 7, dtype=torch.int64))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"codebooks": 1}, "codebooks=1"),
        ({"semantic_codebooks": 32}, "semantic_codebooks=32: expected 1 ... 31"),
        ({"stride": 1}, "stride=1: expected 2"),
        ({"seanet": SeanetConfig()}, r"seanet\.causal=False: Mimi never looks ahead"),
        ({"preprocess": AudioPreprocess(channels=2)}, r"seanet\.channels=1, preprocess\.channels=2"),
    ],
)
def test_wrong_configurations(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MimiConfig(), **wrong)


def test_heads_must_share_the_width_in_pairs() -> None:
    with pytest.raises(ValueError, match="width=12 with heads=4: expected a multiple of twice the heads"):
        CausalTransformerConfig(width=12, heads=4)
