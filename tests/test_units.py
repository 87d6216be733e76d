"""Units beyond the contract: transformers' own vectors, runs, two parts in one, nothing unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

import tokenzoo
from tokenzoo import NoDecoder, Tokens
from tokenzoo.audio.speech_encoder import SpeechEncoderSize
from tokenzoo.audio.stream import join
from tokenzoo.audio.units import Units, UnitsConfig, with_repeats, without_repeats
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.unit_parts import read_centres
from tokenzoo.zoo import loading
from tokenzoo.zoo.cli import main
from tokenzoo.zoo.keywords import family_keywords

from .hub_server import HubServer
from .tiny_speech import tiny_speech, write_speech
from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("units", "small-wavlm-units")


@pytest.fixture(params=NAMES)
def toy(request: pytest.FixtureRequest) -> Units:
    tokenizer = build_toy(request.param)
    assert isinstance(tokenizer, Units)
    return tokenizer


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.rand(1, samples, generator=Generator().manual_seed(seed)) - 0.5


def centres(count: int = 20) -> Tensor:
    return torch.randn(count, 16, generator=Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_vectors_and_ids_are_transformers_own(kind: str, large: bool, layer: int, tmp_path: Path) -> None:
    theirs = tiny_speech(kind, large=large)
    layout = "pickle" if layer == 2 else "safetensors"
    ours = Units.assembled(centres(), write_speech(theirs, tmp_path, layout=layout), layer=layer, name="mine")
    assert len(ours.encoder.model.encoder.layers) == layer
    assert ours.config.normalise == large  # the large models hear levelled sounds, the base ones raw ones
    for samples in (6, 61, 400):
        signal = sound(samples, samples)
        heard = torch.nn.functional.layer_norm(signal, signal.shape[-1:]) if large else signal
        expected = theirs(heard, output_hidden_states=True).hidden_states[layer]
        tokens = ours.encode(signal[None])
        torch.testing.assert_close(ours.encode_latents(signal[None]).values, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(tokens.ids, torch.cdist(expected.double(), centres().double()).argmin(dim=-1))
    assert ours.facts.name == "mine" and ours.facts.codebook_sizes == (20,) and ours.facts.fingerprint


def test_assembled_ones_save_and_load(tmp_path: Path) -> None:
    encoder = write_speech(tiny_speech("hubert", large=False), tmp_path / "encoder")
    ours = Units.assembled(centres(), encoder, layer=2, normalise=True, name="mine")
    ours.save_pretrained(tmp_path / "mine")
    loaded = tokenzoo.load(tmp_path / "mine")
    assert loaded.facts == ours.facts and loaded.config.normalise
    assert loaded.encode([sound(300)]).identical(ours.encode([sound(300)]))


@pytest.mark.parametrize("samples", [*range(6, 30), 397, 400, 401])
def test_whole_windows_count(toy: Units, samples: int) -> None:
    tokens = toy.encode([sound(samples)])
    assert tokens.lengths.tolist() == [(samples - 6) // 4 + 1] == [toy.num_tokens((samples,))]
    assert tokens.extents.tolist() == [[samples]]
    stamped = toy.stamp(tokens.ids)
    assert toy.num_tokens(stamped.extents[0].tolist()) == stamped.lengths[0]


def test_counts_of_the_released_models() -> None:
    size = SpeechEncoderSize()
    assert (size.hop_samples, size.reach_samples) == (320, 400)
    for samples, units in ((0, 0), (399, 0), (400, 1), (719, 1), (720, 2), (16_000, 49), (480_000, 1499)):
        assert size.count(samples) == units


def test_shorter_than_a_window_is_refused(toy: Units) -> None:
    for encode in (
        lambda item: toy.encode([item]),
        lambda item: toy.encode([sound(9), item], padded=True),
        lambda item: stream_of(toy, item, 1),
    ):
        with pytest.raises(
            ValueError, match=f"sound of 5 samples: {toy.facts.name} takes at least 6; pad it"
        ):
            encode(sound(5))
    assert toy.min_samples == 6


def stream_of(toy: Units, item: Tensor, piece: int, block_seconds: float = 0.005) -> Tokens:
    stream = toy.stream(block_seconds=block_seconds)
    return join([*(stream.encode(part) for part in item.split(piece, dim=-1)), stream.flush().tokens])


@pytest.mark.parametrize("samples", [6, 203, 417, 900])
@pytest.mark.parametrize("piece", [3, 64, 5000])
def test_pieces_count_as_the_whole(toy: Units, samples: int, piece: int) -> None:
    """Attention looks at the whole, so ids near seams may differ; their number must not."""
    item = sound(samples)
    whole, pieces = toy.encode([item]), stream_of(toy, item, piece)
    assert torch.equal(pieces.lengths, whole.lengths) and torch.equal(pieces.extents, whole.extents)
    assert toy.encode([item], chunk_seconds=0.005).identical(pieces)
    if samples < 200:  # all of it is context
        assert pieces.identical(whole)


def test_pieces_of_a_network_without_attention_are_the_whole() -> None:
    """The bookkeeping, seen with a vector that depends on its own window and nothing else."""
    toy: Any = build_toy("units")
    windows = torch.randn(6, 16, generator=Generator().manual_seed(0))
    toy.encoder.forward = lambda heard: heard.unfold(1, 6, 4) @ windows
    for samples in (6, 9, 10, 199, 200, 201, 1003):
        item = sound(samples, samples)
        for piece, block in ((7, 1e-4), (100, 0.001), (2000, 0.01)):
            assert stream_of(toy, item, piece, block).identical(toy.encode([item]))


def test_padded_attends_to_its_own(toy: Units) -> None:
    items = [sound(90), sound(41, 1), sound(6, 2)]
    exact, padded = toy.encode(items), toy.encode(items, padded=True)
    assert torch.equal(exact.lengths, padded.lengths) and torch.equal(exact.extents, padded.extents)
    assert torch.equal(exact.ids[0], padded.ids[0])
    assert padded.ids[2, 1:].count_nonzero() == 0
    if toy.config.encoder.conv_norm == "layer":  # nothing is normalised over time, and padding is masked
        assert padded.identical(exact)


IDS = torch.tensor([[3, 3, 3, 5, 5, 3, 0, 0], [7, 7, 0, 0, 0, 0, 0, 0]])


def tokens_of(toy: Units) -> Tokens:
    return toy.stamp(IDS, lengths=[8, 2])


def test_runs_and_their_inverse(toy: Units, tmp_path: Path) -> None:
    tokens = tokens_of(toy)
    short = without_repeats(tokens)
    assert short.durations is not None
    assert short.ids.tolist() == [[3, 5, 3, 0], [7, 0, 0, 0]] and short.lengths.tolist() == [4, 1]
    assert short.durations.tolist() == [[3, 2, 1, 2], [2, 0, 0, 0]]
    assert torch.equal(short.extents, tokens.extents)
    assert with_repeats(short).identical(tokens)
    short.save(tmp_path / "x.tok")
    assert with_repeats(Tokens.load(tmp_path / "x.tok")).identical(tokens)
    stamped = toy.stamp([[3, 5, 3, 0], [7]], durations=[[3, 2, 1, 2], [2]])
    assert stamped.identical(short)
    with pytest.raises(ValueError, match="7 tokens for an extent of"):
        toy.stamp([[3, 5, 3, 0]], durations=[[3, 2, 1, 1]], extents=tokens.extents[:1])


def test_encode_without_repeats(toy: Units) -> None:
    items = [sound(90) * 0, sound(41, 1), sound(90, 2)]  # silence is one run
    whole, short = toy.encode(items), toy.encode(items, dedup=True)
    assert short.durations is not None and int(short.lengths[0]) < int(whole.lengths[0])
    assert torch.equal(short.durations.sum(dim=1), whole.lengths)
    assert with_repeats(short).identical(whole)
    assert not bool(((short.ids[:, 1:] == short.ids[:, :-1]) & short.mask[:, 1:]).any())
    assert toy.encode(items, dedup=True, padded=True).lengths.shape == (3,)
    assert list(family_keywords(toy, "encode")) == ["padded", "chunk_seconds", "dedup"]
    nothing = toy.encode(torch.zeros(0, 1, 9), dedup=True)
    assert len(nothing) == 0 and nothing.durations is not None


def test_runs_that_are_none(toy: Units) -> None:
    short = without_repeats(tokens_of(toy))
    with pytest.raises(ValueError, match="have durations already"):
        without_repeats(short)
    with pytest.raises(ValueError, match="have no durations to repeat them by"):
        with_repeats(tokens_of(toy))
    with pytest.raises(TypeError, match="has no ids"):
        without_repeats(toy.encode_latents(sound(90)[None]))
    codec = build_toy("toy-codec")
    with pytest.raises(ValueError, match=r"ids have shape \(1, 5, 3\): runs are of one codebook"):
        without_repeats(codec.encode([sound(20)]))


def test_it_only_encodes(toy: Units) -> None:
    for decode in (toy.decode, toy.stream().decode):
        with pytest.raises(
            NoDecoder, match="only encodes: it has no decoder; a unit vocoder, trained for these"
        ):
            decode(tokens_of(toy))


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_centres_are_read_and_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", centres().double().numpy())
    save_file({"cluster_centers_": centres()}, tmp_path / "a.safetensors")
    for given in (centres(), tmp_path / "a.npy", str(tmp_path / "a.safetensors")):
        torch.testing.assert_close(read_centres(given), centres(), atol=0, rtol=0)
    trap, mark = Trap(tmp_path / "mark"), tmp_path / "mark"
    for name in ("km.bin", "km.pkl", "km.joblib", "km.pt", "km"):
        (tmp_path / name).write_bytes(pickle.dumps(trap))
        with pytest.raises(
            CheckpointError, match=r"a joblib pickle runs what it holds; export cluster_centers_"
        ):
            read_centres(tmp_path / name)
    (tmp_path / "disguised.npy").write_bytes(pickle.dumps(trap))
    np.save(tmp_path / "objects.npy", np.array([trap], dtype=object), allow_pickle=True)
    for name in ("disguised.npy", "objects.npy"):
        with pytest.raises(CheckpointError, match=r"not a readable \.npy file of numbers"):
            read_centres(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.arange(6).reshape(2, 3), "holds int64, expected floats"),
        (np.zeros(3, np.float32), r"the array is torch.float32 \(3,\), expected floats \(K, D\)"),
        (np.zeros((0, 3), np.float32), r"\(0, 3\), expected floats"),
        (np.full((2, 3), np.nan), "the array holds NaN or infinity"),
    ],
)
def test_tables_that_are_no_centres(content: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(CheckpointError, match=message):
        read_centres(tmp_path / "a.npy")
    with pytest.raises(CheckpointError, match=r"file b\.npy: no such file"):
        read_centres(tmp_path / "b.npy")
    save_file({"a": centres(), "b": centres()}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 2 tensors \(a, b\); save one alone"):
        read_centres(tmp_path / "two.safetensors")


def test_parts_that_do_not_go_together(tmp_path: Path) -> None:
    folder = write_speech(tiny_speech("hubert", large=False), tmp_path / "hubert")
    with pytest.raises(
        CheckpointError, match=r"wrong shape \(1\): quantizer\.codebook is \(20, 9\), expected"
    ):
        Units.assembled(torch.randn(20, 9), folder, layer=1)
    with pytest.raises(CheckpointError, match=r"has 3 layers, and layer 4 was asked for; give 1 \.\.\. 3"):
        Units.assembled(centres(), folder, layer=4)
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"model_type": "bert"}, "a model of type 'bert'; give a HuBERT or a WavLM"),
        ({"conv_pos_batch_norm": True}, "has conv_pos_batch_norm=True; only the architecture"),
        ({"conv_dim": [8, 16]}, r"has conv_dim=\[8, 16\]"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=message):
            Units.assembled(centres(), folder, layer=1)


def test_heads_of_a_model_are_left_over(tmp_path: Path) -> None:
    """What is not the encoder is named, not dropped in silence."""
    model = tiny_speech("hubert", large=False)
    folder = write_speech(model, tmp_path)
    save_file(model.state_dict() | {"lm_head.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"unexpected \(1\): encoder\.model\.lm_head\.weight"):
        Units.assembled(centres(), folder, layer=1)


@pytest.mark.parametrize("layout", ["safetensors", "pickle"])
def test_centres_convert_from_the_command_line(
    layout: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny HuBERT stands in for the one that the row names."""
    row, theirs = "hubert-base-l6-km100", tiny_speech("hubert", large=False)
    folder = write_speech(theirs, tmp_path / "encoder", layout=layout)
    hub.commit("facebook/hubert-base-ls960", {path.name: path.read_bytes() for path in folder.iterdir()})
    size: Any = build_toy("units").config.encoder
    fields = UnitsConfig(encoder=size, num_codes=20).to_dict()
    monkeypatch.setattr(loading, "read_yaml", lambda name: ("units", fields))
    np.save(tmp_path / "km.npy", centres().numpy())
    out = tmp_path / "out"
    assert main(["convert", str(tmp_path / "km.npy"), "--like", row, "--out", str(out)]) == 0
    loaded = tokenzoo.load(out)
    local = Units.assembled(tmp_path / "km.npy", folder, layer=2)
    assert loaded.facts.name == row and loaded.facts.licence == "Apache-2.0"
    assert torch.equal(loaded.encode([sound(300)]).ids, local.encode([sound(300)]).ids)
    with pytest.raises(
        ValueError, match=r"not on the Hub: download them from https://.*km100/km\.bin \(a joblib"
    ):
        tokenzoo.load(row)
