"""The S3 tokenizers beyond the contract: windows, batches, streams, lengths, and the released ONNX layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import tokenzoo
from tokenzoo import NoDecoder, Tokens
from tokenzoo.audio import s3, s3_windows
from tokenzoo.audio.log_mel import LogMel
from tokenzoo.audio.s3 import S3Config, S3Tokenizer
from tokenzoo.audio.stream import join
from tokenzoo.checkpoints import convert_s3
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.onnx import read_graph
from tokenzoo.checkpoints.s3_onnx import from_onnx
from tokenzoo.zoo import catalogue, loading
from tokenzoo.zoo.cli import main

from .hub_server import HubServer
from .s3_graphs import s3_graph
from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("s3tokenizer", "small-s3tokenizer-v2")
ROWS = {"v1": "s3tokenizer-v1-50hz", "v2": "s3tokenizer-v2-25hz", "v3": "s3tokenizer-v3-25hz"}


@pytest.fixture(params=NAMES)
def toy(request: pytest.FixtureRequest) -> S3Tokenizer:
    tokenizer = build_toy(request.param)
    assert isinstance(tokenizer, S3Tokenizer)
    return tokenizer


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.rand(1, samples, generator=Generator().manual_seed(seed)) - 0.5


def expected_tokens(samples: int, hop: int, stride: int, least: int) -> int:
    """The official arithmetic: frames of the spectrogram, through two strided convolutions."""
    frames = max(samples, least) // hop
    return ((frames - 1) // (stride // 2) + 1 - 1) // 2 + 1


@pytest.mark.parametrize("samples", [*range(1, 40), 63, 64, 65, 159, 160, 161, 300])
def test_every_length_from_one_sample(toy: S3Tokenizer, samples: int) -> None:
    tokens = toy.encode([sound(samples)])
    mel = toy.config.log_mel
    expected = expected_tokens(samples, mel.hop, toy.config.stride, mel.min_samples)
    assert tokens.lengths.tolist() == [expected] == [toy.num_tokens((samples,))]
    assert tokens.ids.shape == (1, expected) and tokens.extents.tolist() == [[samples]]
    stamped = toy.stamp(tokens.ids)
    assert toy.num_tokens(stamped.extents[0].tolist()) == expected


@pytest.mark.parametrize(
    ("name", "samples", "tokens"),
    [
        ("s3tokenizer-v1-50hz", 16_001, 50),
        ("s3tokenizer-v1-50hz", 11_213, 35),
        ("s3tokenizer-v2-25hz", 11_213, 18),
        ("s3tokenizer-v1-25hz", 480_000, 750),
        ("s3tokenizer-v2-25hz", 838_400, 1310),  # 52.4 s, for which 0.3.0 gives 1260: its issue 53
    ],
)
def test_token_counts_of_the_released_models(name: str, samples: int, tokens: int) -> None:
    kind, fields = loading.read_yaml(str(catalogue.find(name).config))  # pyright: ignore
    model = loading.build(kind, fields)
    assert model.num_tokens((samples,)) == tokens


def test_windows_are_the_official_ones() -> None:
    config = S3Config()
    assert config.windows(3000) == [(0, 3000)]
    assert config.windows(3001) == [(0, 3000), (2600, 3001)]
    assert config.windows(5600) == [(0, 3000), (2600, 5600)]
    # The official loop opens one more at 5200, whose tokens it then cuts off, and 2 s before them.
    assert config.windows(5250) == [(0, 3000), (2600, 5250)]
    assert config.windows(5601) == [(0, 3000), (2600, 5600), (5200, 5601)]


@torch.no_grad()
def test_a_long_sound_is_the_middles_of_its_windows(toy: S3Tokenizer) -> None:
    config, signal = toy.config, sound(6 * toy.config.window_frames * toy.config.log_mel.hop + 3)
    mel, ids = toy.log_mel(signal[None]), toy.encode([signal]).ids[0]
    step, cut = config.window_frames - config.overlap_frames, toy.overlap.encode_tokens
    for start in range(0, mel.shape[2] - config.window_frames, step):
        window = toy.quantizer.encode(toy.encoder(mel[:, :, start : start + config.window_frames]))[0]
        first = start // config.stride + cut
        assert torch.equal(ids[first : first + step // config.stride], window[cut : len(window) - cut])
    assert torch.equal(
        ids[:cut], toy.quantizer.encode(toy.encoder(mel[:, :, : config.window_frames]))[0, :cut]
    )
    assert torch.equal(ids[-cut:], window_end(toy, mel, ids)[-cut:])


def window_end(toy: S3Tokenizer, mel: Tensor, ids: Tensor) -> Tensor:
    """Ids of the last window alone."""
    start, end = toy.config.windows(mel.shape[2])[-1]
    return toy.quantizer.encode(toy.encoder(mel[:, :, start:end]))[0]


@pytest.mark.parametrize("room", [1, 24, 10**6])
def test_padded_is_exact(toy: S3Tokenizer, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [sound(samples, samples) for samples in (9, 200, 31, 31, 1, 77, 340)]
    exact = toy.encode(items)
    monkeypatch.setattr(s3_windows, "FRAMES_AT_ONCE", room)
    assert toy.encode(items, padded=True).identical(exact)
    assert toy.encode(items).identical(exact)
    with pytest.raises(ValueError, match="has no nested axis"):
        toy.encode(items, padded=True, keep=1)


def test_batches_are_bounded(toy: S3Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []
    toy.encoder.register_forward_pre_hook(lambda _, arguments: sizes.append(tuple(arguments[0].shape)))
    room = 3 * toy.config.window_frames
    monkeypatch.setattr(s3_windows, "FRAMES_AT_ONCE", room)
    toy.encode([sound(2000), sound(2000, 1), sound(90, 2)], padded=True)
    assert len(sizes) > 5 and max(batch * frames for batch, _, frames in sizes) <= room


def test_chunks_change_nothing(toy: S3Tokenizer) -> None:
    items = [sound(345), sound(12, 1)]
    assert toy.encode(items, chunk_seconds=0.001).identical(toy.encode(items))
    with pytest.raises(ValueError, match="chunk_seconds=0: expected a number of seconds above 0"):
        toy.encode(items, chunk_seconds=0)


def streamed(toy: S3Tokenizer, signal: Tensor, seed: int) -> Tokens:
    """In pieces of 0 to 60 samples."""
    stream, pieces, place, chance = toy.stream(), [], 0, Generator().manual_seed(seed)
    while place < signal.shape[-1]:
        size = int(torch.randint(0, 60, (), generator=chance))
        pieces.append(stream.encode(signal[..., place : place + size]))
        place += size
    return join([*pieces, stream.flush().tokens])


@pytest.mark.parametrize("samples", [1, 4, 5, 7, 8, 9, 16, 17, 33, 64, 65, 100, 159, 160, 161, 400])
def test_a_stream_is_the_whole(toy: S3Tokenizer, samples: int) -> None:
    signal = torch.stack([sound(samples, 1), sound(samples, 2)])
    signal[..., 0] = 1  # the loudest place comes first
    assert streamed(toy, signal, samples).identical(toy.encode(signal))


def test_a_stream_that_grows_louder_deviates_where_it_was_silent() -> None:
    """What lies 80 dB under a tone that is still to come is not cut off yet."""
    toy: Any = build_toy("small-s3tokenizer-v2")
    louder = type(toy)(replace(toy.config, log_mel=LogMel(mels=4))).eval()
    louder.load_state_dict(toy.state_dict())
    tone = torch.sin(torch.arange(20_000) / 4)[None]
    signal = torch.cat([sound(20_000) * 2e-4, tone], dim=-1)
    whole, stream = louder.encode([signal]), louder.stream()
    pieces = join([*(stream.encode(piece) for piece in signal.split(1000, dim=-1)), stream.flush().tokens])
    assert torch.equal(whole.lengths, pieces.lengths)
    differ = (whole.ids != pieces.ids)[0]
    window = louder.config.window_frames // louder.config.stride
    silent = 20_000 // louder.config.hop_samples
    assert bool(differ[: silent - window].any()) and not bool(differ[silent + window :].any())


def test_two_streams_share_a_model_and_start_anew(toy: S3Tokenizer) -> None:
    first, second = toy.stream(), toy.stream()
    one, two = sound(200), sound(200, 1)
    pieces = [
        (first.encode(a), second.encode(b)) for a, b in zip(one.split(50, -1), two.split(50, -1), strict=True)
    ]
    ends = first.flush().tokens, second.flush().tokens
    for index, alone in enumerate((one, two)):
        told = join([*(piece[index] for piece in pieces), ends[index]])
        assert torch.equal(told.ids, toy.encode([alone]).ids)
    again = join([first.encode(two), first.flush().tokens])
    assert torch.equal(again.ids, toy.encode([two]).ids)


def test_no_items_have_no_tokens(toy: S3Tokenizer) -> None:
    assert toy.encode(torch.zeros(0, 1, 50)).ids.shape == (0, toy.num_tokens((50,)))


def test_it_only_encodes(toy: S3Tokenizer) -> None:
    tokens = toy.encode([sound(40)])
    for decode in (toy.decode, toy.stream().decode):
        with pytest.raises(NoDecoder, match="only encodes: it has no decoder; CosyVoice's flow model makes"):
            decode(tokens)
    assert not toy.facts.has_decoder and toy.facts.roles == ("semantic",)


@torch.no_grad()
def test_later_padding_is_not_heard() -> None:
    """Convolutions, memory and attention all stop where the item ends."""
    toy: Any = build_toy("small-s3tokenizer-v2")
    mel = torch.randn(2, 4, 16, generator=Generator().manual_seed(0))
    frames = torch.tensor([16, 9])
    clean = mel.clone()
    clean[1, :, 9:] = 7
    told = toy.encoder(mel, frames)
    torch.testing.assert_close(toy.encoder(clean, frames)[1, :3], told[1, :3], atol=0, rtol=0)
    torch.testing.assert_close(toy.encoder(mel[1:, :, :9]), told[1:, :3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_codes": 8, "levels": (3,)}, "num_codes=8 with levels=.3.: expected one of them"),
        ({"memory_kernel": 4}, "memory_kernel=4: expected an odd number, or 0"),
        ({"window_frames": 3001}, "window_frames=3001: expected a multiple of 8"),
        ({"overlap_frames": 396}, "overlap_frames=396: expected a multiple of 8"),
        ({"positions": 500}, "a window makes 750 tokens, expected no more than positions"),
        ({"first_stride": 3}, "first_stride=3"),
        ({"preprocess": s3.AudioPreprocess(24_000)}, "preprocess.sample_rate_hz=24000: expected the same"),
    ],
)
def test_configurations_that_cannot_be_right(wrong: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(S3Config(), **wrong)


# What follows is the released layout. Tiny models stand in for the rows of the catalogue.


def tiny(version: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Our configuration of a tiny model of a version, and random weights by the names of the package."""
    official = {
        "name": {
            "v1": "speech_tokenizer_v1",
            "v2": "speech_tokenizer_v2_25hz",
            "v3": "speech_tokenizer_v3_25hz",
        }[version],
        "n_audio_state": 16,
        "n_audio_head": 2,
        "n_audio_layer": 3 if version == "v3" else 2,
        "n_codebook_size": 32,
    }
    config = convert_s3.convert_config(official)
    torch.manual_seed(0)
    model = S3Tokenizer(S3Config.from_dict(config))
    names = {name: convert_s3.official_name(name) for name in model.state_dict()}
    return config, {names[name]: torch.randn_like(values) for name, values in model.state_dict().items()}


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_the_graph_gives_the_state_dict(version: str, tmp_path: Path) -> None:
    _, weights = tiny(version)
    (tmp_path / "x.onnx").write_bytes(s3_graph(weights, version))
    found = from_onnx(read_graph(tmp_path / "x.onnx"))
    assert sorted(found) == sorted(weights)
    for name, values in weights.items():
        assert torch.equal(found[name], values), name
    assert convert_s3.recognise({}, found)


def test_another_epsilon_is_told(tmp_path: Path) -> None:
    _, weights = tiny("v2")
    (tmp_path / "x.onnx").write_bytes(s3_graph(weights, "v2", epsilon=1e-6))
    with pytest.warns(UserWarning, match=r"attn_ln has epsilon 1\.0e-06 in this file, and 1\.0e-05 here"):
        from_onnx(read_graph(tmp_path / "x.onnx"))


@pytest.fixture
def tiny_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, Tensor]]:
    """The rows of v1, v2 and v3 with tiny configurations, and their weights."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    made = {version: tiny(version) for version in ROWS}
    yamls = {str(catalogue.find(ROWS[v]).config): config for v, (config, _) in made.items()}  # pyright: ignore
    monkeypatch.setattr(loading, "read_yaml", lambda name: ("s3tokenizer", yamls[name]))
    return {version: weights for version, (_, weights) in made.items()}


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_a_released_file_loads_by_name(version: str, tiny_rows: Any, hub: HubServer) -> None:
    row = catalogue.find(ROWS[version])
    assert row is not None and row.repo is not None
    hub.commit(row.repo, {row.file: s3_graph(tiny_rows[version], version)})
    loaded: Any = tokenzoo.load(row.name)
    assert loaded.facts.name == row.name and loaded.facts.fingerprint is not None
    for name, values in loaded.state_dict().items():
        assert torch.equal(values, tiny_rows[version][convert_s3.official_name(name)])
    assert loaded.encode([sound(2000)]).ids.shape == (1, loaded.num_tokens((2000,)))
    hub.requests.clear()
    assert tokenzoo.load(row.name).facts == loaded.facts
    assert not hub.asked("GET", "resolve")  # neither fetched nor read again


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".pt"])
def test_a_file_converts_from_the_command_line(suffix: str, tiny_rows: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path, weights = tmp_path / f"tokenizer{suffix}", tiny_rows["v2"]
    if suffix == ".onnx":
        path.write_bytes(s3_graph(weights, "v2"))
    elif suffix == ".pt":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    assert main(["convert", str(path), "--like", ROWS["v2"], "--out", str(tmp_path / "out")]) == 0
    loaded = tokenzoo.load(tmp_path / "out")
    straight = loading.load_file(path, ROWS["v2"])
    assert loaded.facts == straight.facts and loaded.facts.licence == "Apache-2.0"
    assert loaded.encode([sound(2000)]).identical(straight.encode([sound(2000)]))


def test_a_file_that_lacks_a_tensor_is_named(tiny_rows: Any, tmp_path: Path) -> None:
    del tiny_rows["v2"]["encoder.blocks.1.attn.fsmn_block.weight"]
    (tmp_path / "x.onnx").write_bytes(s3_graph(tiny_rows["v2"], "v2"))
    with pytest.raises(
        CheckpointError, match=r"file x\.onnx: .*missing \(1\): encoder\.blocks\.1\.attn\.fsmn_block\.weight"
    ):
        loading.load_file(tmp_path / "x.onnx", ROWS["v2"])
    with pytest.raises(ValueError, match="llamagen-vq-ds8 is not published as ONNX: give a safetensors file"):
        loading._weights_of(catalogue.find("llamagen-vq-ds8"), "x.onnx")  # pyright: ignore


def test_whisper_itself_is_not_taken_for_one() -> None:
    assert not convert_s3.recognise({}, [*convert_s3.SIGNATURE, "encoder.ln_post.weight"])
    with pytest.raises(ValueError, match="name 'whisper': expected speech_tokenizer_v1, _v1_25hz"):
        convert_s3.convert_config({"name": "whisper"})
