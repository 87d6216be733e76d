"""Streams: pieces of any size give what the whole gives, and two streams share one model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from tokenzoo.audio.audio_tokenizer import AudioTokenizer
from tokenzoo.audio.stream import AudioStream, join

from .toys import build_toy


def sound(samples: int, seed: int = 0) -> Tensor:
    return (torch.rand(1, samples, generator=Generator().manual_seed(seed)) * 2 - 1).double()


@pytest.fixture(scope="module")
def codec() -> AudioTokenizer:
    tokenizer = build_toy("toy-codec").double()
    assert isinstance(tokenizer, AudioTokenizer)
    return tokenizer


def heard(stream: AudioStream, pieces: list) -> Tensor:
    sounds = [stream.decode(piece) for piece in pieces]
    return torch.cat([*sounds, stream.flush().signal], dim=-1)


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 60), max_size=12), block=st.floats(1e-4, 0.01))
def test_pieces_of_any_size(cuts: list[int], block: float) -> None:
    codec = build_toy("toy-codec").double()
    item = sound(sum(cuts), len(cuts))
    stream = codec.stream(block_seconds=block)
    pieces = [stream.encode(piece) for piece in item.split(cuts, dim=-1)] if cuts else []
    pieces.append(stream.flush().tokens)
    tokens = join(pieces)
    if not sum(cuts):
        assert tokens.ids.shape == (1, 0, 3) and int(tokens.extents) == 0
        return
    whole = codec.encode([item])
    assert tokens.identical(whole)
    assert sum(int(piece.extents) for piece in pieces) == item.shape[-1]
    listening = codec.stream(block_seconds=block)
    torch.testing.assert_close(heard(listening, pieces), codec.decode(whole), atol=1e-6, rtol=0)


def test_two_streams_share_one_model(codec: AudioTokenizer) -> None:
    items = [sound(300, 1), sound(300, 2)]
    streams = [codec.stream(block_seconds=0.001) for _ in items]
    pieces: list[list] = [[], []]
    for start in range(0, 300, 37):
        for stream, item, given_out in zip(streams, items, pieces, strict=True):
            given_out.append(stream.encode(item[:, start : start + 37]))
    for stream, item, given_out in zip(streams, items, pieces, strict=True):
        given_out.append(stream.flush().tokens)
        assert join(given_out).identical(codec.encode([item]))


def test_tokens_come_while_the_sound_goes_on(codec: AudioTokenizer) -> None:
    stream = codec.stream(block_seconds=0.001)  # four tokens
    counts = [int(stream.encode(piece).lengths) for piece in sound(64).split(16, dim=-1)]
    assert counts == [0, 4, 4, 4] and int(stream.flush().tokens.lengths) == 4


def test_a_batch_runs_side_by_side(codec: AudioTokenizer) -> None:
    batch = torch.stack([sound(90, 1), sound(90, 2)])
    stream = codec.stream(keep=2, block_seconds=0.002)
    pieces = [stream.encode(piece) for piece in batch.split(31, dim=-1)]
    tokens = join([*pieces, stream.flush().tokens])
    assert tokens.identical(codec.encode(batch, keep=2))


def test_after_a_flush_the_stream_is_new(codec: AudioTokenizer) -> None:
    stream, item = codec.stream(), sound(50)
    first = [stream.encode(item), stream.flush().tokens]
    second = [stream.encode(item), stream.flush().tokens]
    assert join(first).identical(join(second))
    nothing = stream.flush()
    assert nothing.tokens.ids.shape == (1, 0, 3) and nothing.signal.shape == (1, 1, 0)


def test_streams_do_not_train_the_model(codec: AudioTokenizer) -> None:
    codec.train()
    try:
        stream, item = codec.stream(), sound(50)
        assert join([stream.encode(item), stream.flush().tokens]).identical(codec.encode([item]))
        assert codec.training
    finally:
        codec.eval()


def test_what_a_stream_refuses(codec: AudioTokenizer) -> None:
    stream = codec.stream()
    with pytest.raises(TypeError, match="chunk is a list: expected a tensor"):
        stream.encode([0.0, 1.0])
    with pytest.raises(ValueError, match="sound holds nan"):
        stream.encode(torch.full((1, 9), float("nan")))
    stream.encode(torch.zeros(2, 1, 9))
    with pytest.raises(ValueError, match="1 sounds: this stream began with 2"):
        stream.encode(torch.zeros(1, 9))
    with pytest.raises(ValueError, match=r"sound has shape .1, 2, 1.: toy-codec takes"):
        codec.stream().encode(torch.zeros(2, 0))
    for wrong in (0, -1, float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match=r"block_seconds=.*: expected a number of seconds above 0"):
            codec.stream(block_seconds=wrong)
    two = codec.encode(torch.stack([sound(8), sound(8)]))
    stream.decode(two)
    for other in (codec.encode([sound(8)]), two.keep(2)):
        with pytest.raises(ValueError, match=r"items of codebooks .*: this stream began with 2 of \(3,\)"):
            stream.decode(other)
    assert stream.flush().signal.shape == (2, 1, 8)  # what was refused left no trace
    tokens = codec.encode([sound(8), sound(20)])
    with pytest.raises(ValueError, match="a stream takes items side by side"):
        stream.decode(tokens)
    with pytest.raises(ValueError, match="give at least one piece"):
        join([])
    with pytest.raises(ValueError, match="keep=0"):
        codec.stream(keep=0)


@pytest.mark.parametrize("name", ["toy-codec", "encodec", "mimi", "dac", "bigcodec"])
def test_a_stream_gives_no_more_than_went_in(name: str) -> None:
    codec = build_toy(name)
    assert isinstance(codec, AudioTokenizer)
    item = sound(7 * codec.config.hop_samples + 1).float()
    speaking, listening = codec.stream(), codec.stream()
    pieces = [speaking.encode(item), speaking.flush().tokens]
    heard_first = [listening.decode(piece) for piece in pieces]
    whole = torch.cat([*heard_first, listening.flush().signal], dim=-1)
    assert whole.shape[-1] == item.shape[-1]
