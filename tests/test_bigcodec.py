"""BigCodec: the extra hop, pieces of long sounds, the official file of two state dicts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tokenzoo.audio.bigcodec import BigCodec, BigCodecConfig
from tokenzoo.audio.bigcodec_parts import alias_free
from tokenzoo.audio.stream import join
from tokenzoo.checkpoints import convert_bigcodec
from tokenzoo.checkpoints.pickles import Pickle, read_pickle
from tokenzoo.zoo import catalogue

from .golden_bigcodec import build_bigcodec
from .toys import build_toy
from .toys_bigcodec import SmallBigCodec

FIXTURE = Path(__file__).parent / "golden" / "bigcodec-a"
HOP = 4

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tokenizer() -> SmallBigCodec:
    toy = build_toy("bigcodec")
    assert isinstance(toy, SmallBigCodec)
    return toy


@pytest.fixture(scope="module")
def official() -> BigCodec:
    """The fixture's model: 200 samples a token, weights of the official initialisation."""
    model = build_bigcodec(json.loads((FIXTURE / "config.json").read_text())).eval()
    tensors = convert_bigcodec.fold(_official_tensors())
    names = convert_bigcodec.convert_names(tensors)
    model.load_state_dict({names[name]: tensor for name, tensor in tensors.items() if name in names})
    return model


def _official_tensors() -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in load_file(FIXTURE / "model.safetensors").items()}


def _speech(samples: int, seed: int = 0) -> Tensor:
    """(1, 1, S) noise whose loudness comes and goes, as that of syllables."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return (noise * torch.linspace(0, 20, samples).sin().abs() * 0.3).clamp(-1, 1)[None, None]


@pytest.mark.parametrize("samples", [1, 2, 6, 50])
def test_activation_by_shifts_and_by_convolution(samples: int) -> None:
    """Without gradients a CPU takes another path."""
    activation = alias_free(5)
    for parameter in activation.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    sound = torch.randn(2, 5, samples, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shifted = activation(sound)
    torch.testing.assert_close(shifted, activation(sound).detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 31, 32, 33])
def test_length_is_exact_and_whole_hops_get_one_more_token(tokenizer: SmallBigCodec, samples: int) -> None:
    tokens = tokenizer.encode(_speech(samples))
    assert tokens.ids.shape == (1, samples // HOP + 1)
    assert tokenizer.decode(tokens).shape == (1, 1, samples)


def test_official_padding(tokenizer: SmallBigCodec) -> None:
    for samples, padded in ((7, 8), (8, 12), (9, 12)):
        sound = _speech(samples)
        filled = tokenizer.pad_signal(sound)
        assert filled.shape[2] == padded
        assert torch.equal(filled[..., :samples], sound) and not filled[..., samples:].any()


def test_assumed_extents_take_as_many_tokens(tokenizer: SmallBigCodec) -> None:
    lengths = torch.arange(40)
    for length, extent in zip(
        lengths.tolist(), tokenizer.default_extents(lengths)[:, 0].tolist(), strict=True
    ):
        assert tokenizer.num_tokens((extent,)) == length
        assert extent == max(0, HOP * length - 1)
    stamped = tokenizer.stamp([[1, 2, 3], [4]])
    assert stamped.extents.tolist() == [[11], [3]]
    assert tokenizer.decode(stamped).shape == (2, 1, 11)


@pytest.mark.parametrize("samples", [200 * 60, 200 * 60 + 1, 200 * 60 - 1])
def test_pieces_are_close_to_the_whole(official: BigCodec, samples: int) -> None:
    """The LSTMs remember longer than a piece's context: few ids differ, none in these weights."""
    sound = _speech(samples)
    whole = official.encode(sound)
    pieces = official.encode(sound, chunk_seconds=0.1)
    assert pieces.ids.shape == whole.ids.shape and torch.equal(pieces.extents, whole.extents)
    assert float((pieces.ids != whole.ids).float().mean()) < 0.02
    decoded, by_pieces = official.decode(whole), official.decode(whole, chunk_seconds=0.1)
    assert by_pieces.shape == (1, 1, samples)
    torch.testing.assert_close(by_pieces, decoded, atol=1e-3, rtol=0)


def test_a_stream_takes_chunks_of_any_size(official: BigCodec) -> None:
    sound, sizes = _speech(200 * 150), torch.Generator().manual_seed(0)
    stream, pieces, start = official.stream(block_seconds=0.2), [], 0
    while start < sound.shape[2]:
        size = int(torch.randint(1, 5000, (), generator=sizes))
        pieces.append(stream.encode(sound[..., start : start + size]))
        start += size
    tokens, whole = join([*pieces, stream.flush().tokens]), official.encode(sound)
    assert tokens.ids.shape == whole.ids.shape and torch.equal(tokens.extents, whole.extents)
    assert float((tokens.ids != whole.ids).float().mean()) < 0.02


def test_the_official_file_holds_two_state_dicts(tmp_path: Path) -> None:
    tensors = _official_tensors()
    parts: dict[str, dict[str, Tensor]] = {"CodecEnc": {}, "generator": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    torch.save(parts, tmp_path / "bigcodec.pt")
    row = catalogue.find("Alethia/BigCodec")
    assert row is not None and row.name == "bigcodec"
    read = read_pickle(tmp_path / "bigcodec.pt", Pickle("bigcodec.pt", row.part))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_training_checkpoints_hold_discriminators_too() -> None:
    names = ["discriminator.a.weight", "spec_discriminator.b.bias", "CodecEnc.block.0.bias"]
    assert convert_bigcodec.convert_names(names) == {"CodecEnc.block.0.bias": "encoder.0.bias"}


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("codec_encoder", {"use_rnn": False}, "codec_encoder has no LSTM, or one in both directions"),
        ("codec_decoder", {"rnn_bidirectional": True}, "codec_decoder has no LSTM, or one in both"),
        (
            "codec_encoder",
            {"dilations": [1, 2]},
            r"codec_encoder has dilations \[1, 2\]: expected \[1, 3, 9\]",
        ),
        ("codec_decoder", {"vq_num_quantizers": 2}, "vq_num_quantizers=2: expected 1"),
    ],
)
def test_unpublished_graphs_are_refused(part: str, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_bigcodec.convert_config({part: change})


def test_the_published_arguments_are_the_defaults() -> None:
    assert BigCodecConfig.from_dict(convert_bigcodec.convert_config({})) == BigCodecConfig()


def test_wrong_configurations_are_refused_in_words() -> None:
    config = BigCodecConfig()
    with pytest.raises(
        ValueError, match=r"strides \(2, 2\) and \(5, 5, 2, 2, 2\): expected the same product"
    ):
        replace(config, encoder_strides=(2, 2))
    with pytest.raises(ValueError, match="2 channels: expected mono"):
        replace(config, preprocess=replace(config.preprocess, channels=2))
