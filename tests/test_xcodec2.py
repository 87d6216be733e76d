"""X-Codec 2: three layouts of one model, parity with transformers, features item by item, exact length."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

import tokenzoo
from tokenzoo.audio.xcodec2 import DecoderSize, XCodec2, XCodec2Config
from tokenzoo.checkpoints import convert_xcodec2
from tokenzoo.checkpoints.error import CheckpointError

from .toys import build_toy

FIXTURE = Path(__file__).parent / "golden" / "xcodec2-a"
HOP = 320

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer() -> XCodec2:
    toy = build_toy("xcodec2")
    assert isinstance(toy, XCodec2)
    return toy


def _speech(samples: int, seed: int = 0) -> Tensor:
    """(1, 1, S) noise whose loudness comes and goes, as that of syllables."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return (noise * torch.linspace(0, 20, samples).sin().abs() * 0.3).clamp(-1, 1)[None, None]


@pytest.mark.parametrize("samples", [1, 2, 319, 320, 321, 639, 640, 641, 1280, 1999])
def test_length_is_exact_and_whole_hops_get_one_more_token(tokenizer: XCodec2, samples: int) -> None:
    tokens = tokenizer.encode(_speech(samples))
    assert tokens.ids.shape == (1, samples // HOP + 1)
    assert tokenizer.decode(tokens).shape == (1, 1, samples)
    guessed = tokenizer.stamp(tokens.ids)
    assert guessed.extents.tolist() == [[HOP * (samples // HOP + 1) - 1]]


def test_each_item_of_a_batch_has_its_own_semantics(tokenizer: XCodec2) -> None:
    """The official code takes the features of the first item for all."""
    first, second = _speech(3000, seed=1), _speech(3000, seed=2)
    tokens = tokenizer.encode(torch.cat([first, second]))
    assert torch.equal(tokens.ids[1:], tokenizer.encode(second).ids)
    padded = tokenizer.pad_signal(second)
    borrowed = tokenizer.encoder(padded, tokenizer.semantic_features(tokenizer.pad_signal(first)))
    officially = tokenizer.quantizer.encode(borrowed.transpose(1, 2))
    assert float((officially != tokens.ids[1:]).float().mean()) > 0.5


def test_the_semantic_model_stays_as_it_is(tokenizer: XCodec2) -> None:
    result = tokenizer(_speech(1500))
    result.signal.square().mean().backward()
    assert all(weight.grad is None for weight in tokenizer.encoder.semantic.parameters())
    assert all(
        weight.grad is not None and weight.grad.any()
        for part in (tokenizer.encoder.acoustic, tokenizer.encoder.adapter, tokenizer.encoder.mix)
        for weight in part.parameters()
    )
    tokenizer.zero_grad()


@pytest.mark.parametrize("samples", [HOP * 60, HOP * 60 + 1])
def test_pieces_are_as_long_as_the_whole(tokenizer: XCodec2, samples: int) -> None:
    """What they hold differs: features are normalised over what there is, and attention sees all of it."""
    sound = _speech(samples)
    whole, pieces = tokenizer.encode(sound), tokenizer.encode(sound, chunk_seconds=1.0)
    assert pieces.ids.shape == whole.ids.shape and torch.equal(pieces.extents, whole.extents)
    assert tokenizer.decode(whole, chunk_seconds=0.1).shape == (1, 1, samples)
    assert torch.equal(tokenizer.encode(sound, chunk_seconds=9.0).ids, whole.ids)


def test_silence_has_ids(tokenizer: XCodec2) -> None:
    tokens = tokenizer.encode(torch.zeros(1, 1, 1000))
    assert tokens.ids.shape == (1, 4)
    assert tokenizer.decode(tokens).isfinite().all()


@pytest.fixture(scope="module")
def package() -> dict[str, Tensor]:
    """The fixture, which has the package's spelling."""
    return {name: tensor.float() for name, tensor in load_file(FIXTURE / "model.safetensors").items()}


def test_released_and_package_spellings_are_one_model(package: dict[str, Tensor]) -> None:
    spellings = (
        (".act.bias", ".act.beta"),
        (".parametrizations.weight.original0", ".weight_g"),
        (".parametrizations.weight.original1", ".weight_v"),
    )
    released = {}
    for name, tensor in package.items():
        for theirs, ours in spellings:
            name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
        released[name] = tensor
    assert released.keys() != package.keys()
    assert convert_xcodec2.recognise({}, released)
    first, second = (_ours(tensors) for tensors in (package, released))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unread_layers_and_statistics_are_left_out(package: dict[str, Tensor]) -> None:
    unread = {f"semantic_model.encoder.layers.{layer}.ffn1.output_dense.bias" for layer in (16, 23)}
    dropped = unread | {"semantic_model.masked_spec_embed", "fc_post_s.weight", "discriminator.x.weight"}
    names = convert_xcodec2.convert_names([*package, *dropped, "semantic_model.strange"])
    assert not dropped & names.keys()
    assert names["semantic_model.strange"] == "semantic_model.strange"
    assert sum(name.endswith("layers.15.mlp1.3.bias") for name in names.values()) == 1


def test_the_published_configuration_has_the_defaults() -> None:
    published = {"model_type": "xcodec", "semantic_hidden_size": 1024, "use_vocos": True}
    for config in (published, {"model_type": "xcodec2"}):
        assert XCodec2Config.from_dict(convert_xcodec2.convert_config(config)) == XCodec2Config()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "xcodec2", "head_dim": 32}, "head_dim=32: expected 64, as in the released model"),
        ({"model_type": "xcodec2", "num_key_value_heads": 4}, "num_key_value_heads=4: expected 16"),
        ({"semantic_model": {"add_adapter": True}}, "w2v-BERT with add_adapter=True: expected False"),
    ],
)
def test_other_graphs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_xcodec2.convert_config(config)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """A random tiny Xcodec2Model."""
    from transformers import Xcodec2Config, Xcodec2Model

    semantic = {
        "model_type": "wav2vec2-bert",
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "conv_depthwise_kernel_size": 7,
        "left_max_position_embeddings": 6,
        "right_max_position_embeddings": 2,
    }
    config = Xcodec2Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        encoder_hidden_size=2,
        quantization_dim=80,
        quantization_levels=[4, 4, 4, 4],
        semantic_model_config=semantic,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Xcodec2Model(config).eval()
        for weight in model.parameters():
            # Their own start gives all sounds one id, and hides a bias in the place of another: all are zero.
            std = 0.2 if weight.ndim == 1 else 0.7 * weight[0].numel() ** -0.5
            torch.nn.init.normal_(weight, std=std)
        model.quantizer.project_in.weight.data.mul_(8)
    return model


@pytest.fixture(scope="module")
def ours(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> XCodec2:
    """The same, loaded from its own folder."""
    folder = tmp_path_factory.mktemp("xcodec2-hf")
    _save(folder, theirs.config.to_dict(), theirs.state_dict())
    loaded = tokenzoo.load(folder)
    assert isinstance(loaded, XCodec2)
    return loaded


@pytest.mark.parametrize("samples", [4800, 4801])
def test_ids_and_sound_are_those_of_transformers(theirs: Any, ours: XCodec2, samples: int) -> None:
    sound = torch.cat([_speech(samples, seed=1), _speech(samples, seed=2)])
    tokens, padded = ours.encode(sound), ours.pad_signal(sound)
    with torch.no_grad():
        encoded = theirs.encode(padded, input_features=ours.semantic_features(padded))
        decoded = theirs.decode(encoded.audio_codes).audio_values
    assert len(tokens.ids.unique()) > 8
    assert not any(weight.requires_grad for weight in ours.encoder.semantic.parameters())
    assert torch.equal(tokens.ids, encoded.audio_codes[:, 0].long())
    mine = ours.decode_latents(ours.dequantize(tokens))
    torch.testing.assert_close(mine, decoded[..., :samples], atol=1e-6, rtol=1e-4)


def test_latents_are_those_of_transformers(theirs: Any, ours: XCodec2) -> None:
    padded = ours.pad_signal(_speech(4801))
    features = ours.semantic_features(padded)
    with torch.no_grad():
        hidden = theirs.semantic_encoder(features).last_hidden_state
        torch.testing.assert_close(ours.encoder.semantic(features), hidden, atol=2e-5, rtol=1e-4)
        acoustic = theirs.acoustic_encoder(padded)
        torch.testing.assert_close(ours.encoder.acoustic(padded), acoustic, atol=2e-5, rtol=1e-4)


def test_a_missing_projection_is_named(theirs: Any, tmp_path: Path) -> None:
    name = "acoustic_decoder.layers.1.self_attn.k_proj.weight"
    tensors = {other: tensor for other, tensor in theirs.state_dict().items() if other != name}
    _save(tmp_path, theirs.config.to_dict(), tensors)
    with pytest.raises(CheckpointError, match=r"wrong shape \(1\): \S+\.att\.c_attn\.weight is \(64, 64\)"):
        tokenzoo.load(tmp_path)


def test_turning_queries_and_keys_by_their_head_changes_nothing(tokenizer: XCodec2) -> None:
    """Why the decoder has no rotary embeddings, although the official one does: it counts heads, not time."""
    x = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    layer = tokenizer.decoder.layers[0]
    query, key, value = layer.qkv(x).unflatten(-1, (3, layer.heads, -1)).transpose(1, 3).unbind(2)
    angles = torch.arange(layer.heads)[:, None] * 10_000.0 ** (-torch.arange(8) / 8)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]

    def turned(vectors: Tensor) -> Tensor:
        pairs = torch.view_as_complex(vectors.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turns).flatten(-2)

    assert not torch.allclose(turned(query), query, atol=0.1)
    official = F.scaled_dot_product_attention(turned(query), turned(key), value)
    torch.testing.assert_close(
        official, F.scaled_dot_product_attention(query, key, value), atol=1e-6, rtol=1e-5
    )


def test_wrong_configurations_are_refused_in_words() -> None:
    config = XCodec2Config()
    with pytest.raises(ValueError, match=r"acoustic_strides \(2, 2\): expected a product of 320"):
        replace(config, acoustic_strides=(2, 2))
    with pytest.raises(ValueError, match="1 channels at 24000 Hz: expected mono at 16000 Hz, which w2v-BERT"):
        replace(config, preprocess=replace(config.preprocess, sample_rate_hz=24_000))
    with pytest.raises(ValueError, match="width=96 with heads=5: expected a multiple of both them and 32"):
        DecoderSize(width=96, heads=5)
    with pytest.raises(ValueError, match="codebook size"):
        replace(config, levels=(65536,) * 4)


def _ours(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    folded = convert_xcodec2.fold(tensors)
    names = convert_xcodec2.convert_names(folded)
    return {names[name]: tensor for name, tensor in folded.items() if name in names}


def _save(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    (folder / "config.json").write_text(json.dumps(config, default=str))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
