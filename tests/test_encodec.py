"""EnCodec: against transformers, which has it too; lengths, streams, pieces, segments and their loudness."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import tokenzoo
from tokenzoo import Tokens
from tokenzoo.audio.encodec import Encodec, EncodecConfig
from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig
from tokenzoo.audio.stream import join
from tokenzoo.checkpoints import convert_encodec

from .golden_encodec import RUNS
from .golden_fixture import read_fixture
from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parent / "golden" / "encodec-a"
# Sizes of transformers' EncodecConfig: 4 samples a token, 3 codebooks of 4 bits at 250 Hz.
TINY = {
    "sampling_rate": 1000,
    "target_bandwidths": [1.0, 2.0, 3.0],
    "upsampling_ratios": [2, 2],
    "num_filters": 4,
    "hidden_size": 6,
    "codebook_size": 16,
    "num_residual_layers": 2,
}
# As the model at 48 kHz: segments of 100 samples, a new one every 90.
SEGMENTED = {
    "audio_channels": 2,
    "normalize": True,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
    "chunk_length_s": 0.1,
    "overlap": 0.1,
}
# As MusicGen's, which looks ahead and is not cut: no stream gives quite the whole.
CENTRED = {"use_causal_conv": False, "use_conv_shortcut": False, "target_bandwidths": [2.0]}
KINDS: dict[str, dict[str, Any]] = {"causal": {}, "segmented": SEGMENTED, "centred": CENTRED}


def sound(samples: int, channels: int = 1, batch: int = 1, seed: int = 0) -> Tensor:
    drawn = torch.rand(batch, channels, samples, generator=Generator().manual_seed(seed))
    return (drawn * 2 - 1) / (1 + seed)


def chunks(whole: Tensor, seed: int) -> list[Tensor]:
    """Of random sizes, some empty and some of one sample."""
    draw = random.Random(seed)
    cuts = sorted(draw.choices(range(whole.shape[-1] + 1), k=9))
    cuts += [min(cuts[-1] + 1, whole.shape[-1])]
    return [whole[..., start:end] for start, end in pairwise([0, *cuts, whole.shape[-1]])]


def their(kind: str) -> Any:
    """transformers' model with random weights, and codes as wide as what is left over at their stage."""
    import transformers

    torch.manual_seed(0)
    model = transformers.EncodecModel(transformers.EncodecConfig(**TINY | KINDS[kind])).eval()
    for depth, layer in enumerate(model.quantizer.layers):
        layer.codebook.embed.normal_(std=0.5**depth)
    return model


def ours(kind: str, folder: Path) -> Encodec:
    their(kind).save_pretrained(folder)
    loaded = tokenzoo.load(folder)
    assert isinstance(loaded, Encodec)
    return loaded


@pytest.fixture
def causal() -> Encodec:
    """The fixture's weights in float64, where rounding moves no id."""
    fixture, run = read_fixture(GOLDEN), RUNS["facebookresearch/encodec"]
    built = run.build(fixture.config).eval()
    run.load(built, fixture.config, fixture.tensors)
    return built.double()


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Encodec:
    return ours("segmented", tmp_path_factory.mktemp("segmented")).double()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_parity_with_transformers(kind: str, tmp_path: Path) -> None:
    theirs, model = their(kind), ours(kind, tmp_path)
    channels = model.config.seanet.channels
    assert model.facts.codebook_sizes == (16,) * theirs.config.num_quantizers
    # Not 195 ... 268: transformers stacks segments, and fails where the one before the last is short.
    for samples in (1, 3, 4, 5, 90, 100, 190, 279, 280, 281):
        signal = sound(samples, channels, batch=2, seed=samples % 3)
        for kbps in theirs.config.target_bandwidths:
            found = theirs.encode(signal, bandwidth=kbps)
            tokens = model.encode(signal, keep=model.facts.keep_for_bitrate(1000 * kbps))
            assert torch.equal(tokens.ids, _in_a_row(found)), f"{samples} samples at {kbps} kbps"
            heard = theirs.decode(*found.to_tuple()[:2], last_frame_pad_length=found.last_frame_pad_length)
            decoded = model.decode_latents(model.dequantize(tokens))
            torch.testing.assert_close(decoded, heard[0][..., :samples], atol=2e-5, rtol=1e-4)
            if tokens.scales is not None:
                scales = torch.cat(list(found.audio_scales), dim=1)
                torch.testing.assert_close(tokens.scales, scales, atol=1e-6, rtol=1e-5)


def _in_a_row(found: Any) -> Tensor:
    """transformers' codes (segments, B, Q, N), the last segment padded, as ids (B, N, Q)."""
    *others, last = found.audio_codes
    last = last[..., : last.shape[-1] - (found.last_frame_pad_length or 0)]
    return torch.cat([*others, last], dim=-1).transpose(1, 2)


def test_both_spellings_of_the_weight_norm(tmp_path: Path) -> None:
    """Files on the Hub are older than the one that transformers writes now."""
    tensors = their("causal").state_dict()
    spellings = {"original0": "weight_g", "original1": "weight_v"}
    older = {}
    for name, tensor in tensors.items():
        place, _, part = name.rpartition(".parametrizations.weight.")
        older[f"{place}.{spellings[part]}" if part in spellings else name] = tensor
    assert len(older) == len(tensors) and set(older) != set(tensors)
    new, old = (convert_encodec.fold(each) for each in (tensors, older))
    assert set(new) == set(old) and all(torch.equal(new[name], old[name]) for name in new)
    assert convert_encodec.convert_names(new) == convert_encodec.convert_names(old)


@pytest.mark.parametrize("kind", ["encodec", "small-segmented-encodec"])
def test_every_length_comes_back(kind: str) -> None:
    model = build_toy(kind)
    for samples in [*range(1, 28), 63, 64, 65]:
        tokens = model.encode(sound(samples))
        assert tokens.lengths.tolist() == [model.num_tokens((samples,))]
        assert model.decode(tokens).shape == (1, 1, samples)
        assert model.decode(tokens.keep(1)).shape == (1, 1, samples)


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_in_chunks_of_any_size_is_the_whole(causal: Encodec, seed: int) -> None:
    signal = sound(60 * 320 + 17 * seed, batch=2).double()
    whole, stream = causal.encode(signal), causal.stream()
    tokens = join([*map(stream.encode, chunks(signal, seed)), stream.flush().tokens])
    assert tokens.identical(whole)
    heard, draw, start = [], random.Random(seed), 0
    while start < whole.ids.shape[1]:
        count = draw.randint(1, 9)
        heard.append(stream.decode(causal.stamp(whole.ids[:, start : start + count])))
        start += count
    joined = torch.cat([*heard, stream.flush().signal], dim=-1)[..., : signal.shape[-1]]
    torch.testing.assert_close(joined, causal.decode(whole), atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 6 * 320, 6 * 320 + 1, 7 * 320, 8 * 320 - 1])
def test_sounds_about_as_short_as_the_start_of_a_stream(causal: Encodec, samples: int) -> None:
    """The last convolution reflects six latents: until there are seven, nothing comes out."""
    signal = sound(samples).double()
    stream = causal.stream(keep=2)
    first, rest = stream.encode(signal[0]), stream.flush().tokens
    assert first.lengths.tolist() == [samples // 320 if samples >= 7 * 320 else 0]
    assert join([first, rest]).identical(causal.encode(signal, keep=2))


def test_near_ties_in_float32_are_rare(causal: Encodec) -> None:
    """Steps of three hops round otherwise than the whole does; docs/audio.md has the rate at full size."""
    model = causal.float()
    signal = sound(150 * 320)
    whole = model.encode(signal)
    stream = model.stream()
    tokens = join([*map(stream.encode, signal[0].split(960, dim=-1)), stream.flush().tokens])
    assert float((tokens.ids != whole.ids).double().mean()) < 0.002


@pytest.mark.parametrize("seed", range(4))
def test_segments_stream_one_by_one(segmented: Encodec, seed: int) -> None:
    signal = sound(9 * 90 + 31 * seed, channels=2, batch=2).double()
    whole, stream = segmented.encode(signal), segmented.stream()
    pieces = [*map(stream.encode, chunks(signal, seed))]
    given_out = sum(piece.ids.shape[1] for piece in pieces)
    assert given_out == segmented.config.segments.whole(signal.shape[-1]) * 25  # pyright: ignore
    rest = stream.flush().tokens
    assert join([*pieces, rest]).identical(whole)
    listening = segmented.stream()
    # Tokens may come in other pieces than segments, their scales with the first of them.
    heard = [listening.decode(piece) for piece in (*pieces, _part(rest, 0, 1), _part(rest, 1, 99))]
    joined = torch.cat([*heard, listening.flush().signal], dim=-1)
    torch.testing.assert_close(joined, segmented.decode(whole), atol=1e-6, rtol=0)


def _part(tokens: Tokens, start: int, stop: int) -> Tokens:
    """Some tokens of a piece; what goes with the piece goes with its first token."""
    values = tokens.values[:, start:stop]
    assert tokens.scales is not None
    return replace(
        tokens,
        values=values,
        lengths=torch.full_like(tokens.lengths, values.shape[1]),
        extents=torch.zeros_like(tokens.extents) if start else tokens.extents,
        scales=tokens.scales[:, :0] if start else tokens.scales,
    )


def test_pieces_are_the_whole(segmented: Encodec, causal: Encodec) -> None:
    for model, seconds in ((segmented, 0.25), (causal, 0.05)):
        channels, hop = model.config.seanet.channels, model.config.hop_samples
        items = [sound(samples, channels, seed=1)[0].double() for samples in (40 * hop + 3, 1, 9 * hop)]
        whole = model.encode(items, keep=2)
        pieces = model.encode(items, keep=2, chunk_seconds=seconds)
        assert pieces.identical(whole)
        decoded = model.decode(pieces, chunk_seconds=seconds)
        torch.testing.assert_close(decoded, model.decode(whole), atol=1e-6, rtol=0)


def test_pieces_of_a_network_that_looks_ahead_deviate_little(tmp_path: Path) -> None:
    model = ours("centred", tmp_path)
    item = sound(2000)[0]
    whole, pieces = model.encode([item]), model.encode([item], chunk_seconds=0.2)
    assert float((pieces.ids != whole.ids).double().mean()) < 0.02
    assert not model.overlap.is_exact and not model.facts.is_causal


def test_loudness_goes_with_the_tokens(segmented: Encodec, tmp_path: Path) -> None:
    signal = sound(250, channels=2).double()
    tokens, quiet = segmented.encode(signal), segmented.encode(signal / 8)
    assert tokens.scales is not None and quiet.scales is not None and tokens.scales.shape == (1, 3)
    torch.testing.assert_close(quiet.scales * 8, tokens.scales, atol=1e-6, rtol=0)
    first = signal[..., :100].mean(dim=1).square().mean().sqrt() + 1e-8
    torch.testing.assert_close(tokens.scales[0, 0], first)
    assert torch.equal(tokens.ids, quiet.ids)
    soft, loud = (segmented.decode_latents(segmented.dequantize(each)) for each in (quiet, tokens))
    torch.testing.assert_close(soft * 8, loud, atol=1e-6, rtol=0)
    tokens.save(tmp_path / "x.tok")
    loaded = segmented.decode(Tokens.load(tmp_path / "x.tok"))
    torch.testing.assert_close(loaded, segmented.decode(tokens), atol=1e-6, rtol=0)
    # Ids of a language model have none.
    ones = segmented.stamp(tokens.ids, extents=tokens.extents, scales=torch.ones(1, 3))
    bare = segmented.stamp(tokens.ids, extents=tokens.extents)
    assert torch.equal(segmented.decode(bare), segmented.decode(ones))
    short = segmented.stamp(tokens.ids, extents=tokens.extents, scales=torch.ones(1, 2))
    with pytest.raises(ValueError, match="2 scales for 3 segments: expected one each"):
        segmented.decode(short)


def test_silence_has_a_loudness_too(segmented: Encodec) -> None:
    tokens = segmented.encode(torch.zeros(1, 2, 150))
    assert tokens.scales is not None and bool((tokens.scales > 0).all())
    assert float(segmented.decode(tokens).abs().max()) < 1e-6
    with pytest.raises(ValueError, match="padded would change it"):
        segmented.encode([torch.zeros(2, 9), torch.zeros(2, 5)], padded=True)


def test_the_end_that_the_official_decoder_refuses(segmented: Encodec) -> None:
    """The segment before the last decodes to more samples than the last one reaches."""
    segments = segmented.config.segments
    assert segments is not None
    assert segments.lengths(segments.num_tokens(90 + 7)) == [25, 2]  # ends: 100, and 90 + 8
    tokens = segmented.encode(sound(97, channels=2))
    assert segmented.decode(tokens).shape == (1, 2, 97)


@torch.no_grad()
def test_training_sees_quantizer_dropout_and_learns_every_part() -> None:
    model = build_toy("encodec").train()
    signal = sound(40, batch=3)
    with torch.enable_grad():
        result = model(signal, lengths=torch.tensor([1, 2, 3]))
        (result.signal.square().mean() + result.quantized.loss).backward()
    assert result.signal.shape == signal.shape
    assert result.quantized.values[0, :, 1:].eq(-1).all()
    grads = {name for name, each in model.named_parameters() if each.grad is not None}
    assert grads == {name for name, _ in model.named_parameters()}


def test_rates() -> None:
    facts = EncodecConfig().facts()
    assert facts.token_rate_hz == 75 and facts.bitrate_bps() == 24_000
    assert [facts.keep_for_bitrate(1000 * kbps) for kbps in (1.5, 3, 6, 12, 24)] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preprocess": AudioPreprocess(24_000, channels=2)}, "seanet takes 1 channels, preprocess gives 2"),
        ({"normalise": True}, "normalise without segment_seconds"),
        ({"segment_seconds": 1.0}, "segments of a causal network"),
        ({"segment_seconds": 0.0, "seanet": SeanetConfig()}, "segment_seconds=0.0: expected"),
        ({"num_codebooks": 0}, "num_codebooks=0: expected"),
    ],
)
def test_configurations_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncodecConfig(**fields)


def test_official_configurations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="codebook_dim=64: expected 128"):
        convert_encodec.convert_config({"sampling_rate": 24_000, "codebook_dim": 64})
    with pytest.raises(ValueError, match="norm='layer_norm': expected 'weight_norm' or 'time_group_norm'"):
        convert_encodec.convert_config({"norm": "layer_norm"})


def test_what_it_refuses(causal: Encodec) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2, 9\): encodec takes \(B, 1, S\)"):
        causal.encode(torch.zeros(1, 2, 9))
    with pytest.raises(ValueError, match=r"id 64 at .*: encodec takes 0 \.\.\. 63 there"):
        causal.stamp(torch.full((1, 2, 8), 64))
    with pytest.raises(ValueError, match="9 codebooks: encodec takes 8"):
        causal.stamp(torch.zeros(1, 2, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 tokens for an extent of 320: encodec takes 1"):
        causal.stamp(torch.zeros(1, 3, 8, dtype=torch.int64), extents=[[320]])
