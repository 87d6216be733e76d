"""What all codecs share: exact length, rates, padded and chunked paths, and what they refuse."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from tokenzoo import Tokens
from tokenzoo.audio.audio_tokenizer import AudioTokenizer

from .toys import build_toy
from .toys_audio import ToyCodec, ToyCodecConfig

RATE = 16_000


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.rand(1, samples, generator=Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def codec() -> AudioTokenizer:
    tokenizer = build_toy("toy-codec")
    assert isinstance(tokenizer, AudioTokenizer)
    return tokenizer


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65])
def test_a_round_trip_gives_back_as_many_samples(codec: AudioTokenizer, samples: int) -> None:
    tokens = codec.encode([sound(samples)])
    assert tokens.ids.shape == (1, -(-samples // 4), 3)
    assert tokens.extents.tolist() == [[samples]]
    assert codec.decode(tokens).shape == (1, 1, samples)


def test_padded_is_fast_and_may_differ_near_the_end_only(codec: AudioTokenizer) -> None:
    items = [sound(samples, seed) for seed, samples in enumerate((400, 203, 90))]
    exact, padded = codec.encode(items), codec.encode(items, padded=True)
    assert torch.equal(exact.lengths, padded.lengths) and torch.equal(exact.extents, padded.extents)
    for one, other in zip(exact.unbind(), padded.unbind(), strict=True):
        inside = max(0, int(one.lengths) - 3)  # two tokens of context, and the one that is filled up
        assert torch.equal(one.ids[:, :inside], other.ids[:, :inside])
    assert torch.equal(exact.ids[0], padded.ids[0])
    assert padded.ids[2, padded.lengths[2] :].count_nonzero() == 0


def test_padded_batch_with_extents(codec: AudioTokenizer) -> None:
    items = [sound(40, 1), sound(26, 2)]
    batch = torch.nn.utils.rnn.pad_sequence([item.T for item in items], batch_first=True).transpose(1, 2)
    extents = torch.tensor([[40], [26]])
    assert codec.encode(batch, extents=extents, padded=True).identical(codec.encode(items, padded=True))


@settings(deadline=None, max_examples=40)
@given(samples=st.integers(1, 400), chunk=st.floats(1e-4, 0.02), keep=st.sampled_from([None, 1, 2]))
def test_chunked_is_whole(samples: int, chunk: float, keep: int | None) -> None:
    codec = build_toy("toy-codec").double()
    item = sound(samples, samples).double()
    whole = codec.encode([item], keep=keep)
    pieces = codec.encode([item], keep=keep, chunk_seconds=chunk)
    assert pieces.identical(whole)
    torch.testing.assert_close(
        codec.decode(pieces, chunk_seconds=chunk), codec.decode(whole), atol=1e-6, rtol=0
    )


def test_chunked_batches_keep_their_lengths(codec: AudioTokenizer) -> None:
    items = [sound(samples, samples) for samples in (100, 33, 1)]
    tokens = codec.encode(items, chunk_seconds=0.002)
    assert tokens.identical(codec.encode(items))
    decoded = codec.decode(tokens, chunk_seconds=0.002)
    assert [each.shape[-1] for each in tokens.crop(decoded)] == [100, 33, 1]
    assert decoded[1, 0, 33:].count_nonzero() == 0


def test_first_codebooks_are_all_that_is_computed(codec: AudioTokenizer, monkeypatch) -> None:
    signal = torch.stack([sound(40, 1), sound(40, 2)])
    asked: list[int | None] = []
    encode = codec.quantizer.encode

    def watched(latents: Tensor, *, keep: int | None = None, generator: object = None) -> Tensor:
        asked.append(keep)
        return encode(latents, keep=keep)

    monkeypatch.setattr(codec.quantizer, "encode", watched)
    assert codec.encode(signal, keep=2).ids.shape == (2, 10, 2)
    assert codec.encode(signal, keep=9).ids.shape == (2, 10, 3)
    assert asked == [2, 3]


def test_tables_of_codebooks_add_up_to_what_the_decoder_reads(codec: AudioTokenizer) -> None:
    tokens = codec.encode([sound(64)])
    tables = codec.codebook_embeddings()
    summed = sum(table[tokens.ids[..., place]] for place, table in enumerate(tables))
    torch.testing.assert_close(summed, codec.dequantize(tokens).values, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("signal", "kind", "message"),
    [
        (torch.zeros(2, 2, 9), ValueError, r"takes \(B, 1, S\), S at least 1 \(mix stereo down first\)"),
        (torch.zeros(1, 9), ValueError, r"shape \(1, 9\): toy-codec takes \(B, 1, S\)"),
        (torch.zeros(1, 1, 0), ValueError, "S at least 1"),
        (
            torch.zeros(1, 1, 9, dtype=torch.int16),
            TypeError,
            "expected floats in .-1, 1.; divide int16 by 32768",
        ),
        (torch.full((1, 1, 9), float("nan")), ValueError, "sound holds nan"),
        (torch.full((1, 1, 9), 12000.0), ValueError, "divide integers by their largest value first"),
    ],
)
def test_what_is_no_sound_is_refused(codec, signal: Tensor, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        codec.encode(signal)


def test_paths_that_exclude_each_other_and_bad_chunks(codec: AudioTokenizer) -> None:
    item = sound(9)
    with pytest.raises(ValueError, match="padded and chunk_seconds do not go together: leave one out"):
        codec.encode([item], padded=True, chunk_seconds=1.0)
    for wrong in (0, -1, float("nan"), float("inf"), 1e300, "10"):
        with pytest.raises(ValueError, match=r"chunk_seconds=.*expected a number of seconds above 0"):
            codec.encode([item], chunk_seconds=wrong)
    tokens = codec.encode([item])
    for extent in (1, 10**9, 2**62):
        tampered = replace(tokens, extents=torch.tensor([[extent]]))
        with pytest.raises(ValueError, match=rf"3 tokens for an extent of {extent}: toy-codec takes"):
            codec.decode(tampered, chunk_seconds=1.0)
    with pytest.raises(ValueError, match="nothing to encode: the list of items is empty"):
        codec.encode([], padded=True)
    with pytest.raises(ValueError, match=r"id 16 at .*: toy-codec takes 0 \.\.\. 15 there"):
        codec.decode(codec.stamp(torch.full((1, 2, 3), 16)))
    with pytest.raises(ValueError, match="4 codebooks: toy-codec takes 3"):
        codec.stamp(torch.zeros(1, 2, 4, dtype=torch.int64))


def test_no_tokens_are_no_sound(codec: AudioTokenizer) -> None:
    both = codec.stamp([[], [[1, 2, 3]]])
    for tokens, samples in ((codec.stamp([[]]), 0), (both, 4)):
        assert codec.decode(tokens).shape == (len(tokens), 1, samples)
        assert codec.decode(tokens, chunk_seconds=1.0).shape == (len(tokens), 1, samples)
    torch.testing.assert_close(codec.decode(both)[1:], codec.decode(codec.stamp([[[1, 2, 3]]])))


def test_stereo_is_one_sound_of_two_channels() -> None:
    from tokenzoo.audio.preprocess import AudioPreprocess

    config = ToyCodecConfig(preprocess=AudioPreprocess(sample_rate_hz=RATE, channels=2))
    codec = ToyCodec(config).eval()
    tokens = codec.encode([torch.zeros(2, 10)])
    assert codec.decode(tokens).shape == (1, 2, 10)
    with pytest.raises(ValueError, match=r"takes \(B, 2, S\), S at least 1 \(repeat mono to both\)"):
        codec.encode([torch.zeros(1, 10)])


def test_quantizer_dropout_trains_prefixes(codec: AudioTokenizer) -> None:
    signal = torch.stack([sound(40, 1), sound(40, 2)])
    result = codec.forward(signal, lengths=torch.tensor([1, 3]))
    assert result.quantized.values[0, :, 1:].eq(-1).all() and result.quantized.values[1].ge(0).all()
    assert result.signal.shape == signal.shape


def test_bit_rates_are_arithmetic(codec: AudioTokenizer) -> None:
    facts = codec.facts
    assert facts.bitrate_bps() == 4000 * 12 and facts.bitrate_bps(1) == 16_000
    assert [facts.keep_for_bitrate(bps) for bps in (16_000, 31_000, 31_999, 48_000, 1e9)] == [1, 1, 2, 3, 3]
    with pytest.raises(ValueError, match="9 kbps: toy-codec has 16 to 48 kbps, by whole codebooks"):
        facts.keep_for_bitrate(9000)
    tokens = codec.encode([sound(8000)], keep=facts.keep_for_bitrate(32_000))
    assert isinstance(tokens, Tokens) and float(tokens.bits[0]) / 0.5 == 32_000
