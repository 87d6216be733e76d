"""WavTokenizer: exact length, pieces of long sounds, parity with transformers, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig
from tokenzoo.audio.stream import join
from tokenzoo.audio.vocos import VocosConfig
from tokenzoo.audio.wavtokenizer import WavTokenizer, WavTokenizerConfig
from tokenzoo.checkpoints import convert_wavtokenizer
from tokenzoo.checkpoints.error import CheckpointError
from tokenzoo.checkpoints.weights import load_strict
from tokenzoo.zoo import catalogue, loading

from .toys import build_toy

pytestmark = pytest.mark.usefixtures("one_thread")
HOP = 4


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.rand(1, samples, generator=Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def codec() -> WavTokenizer:
    toy = build_toy("wavtokenizer")
    assert isinstance(toy, WavTokenizer)
    spread_codes(toy.quantizer, toy.encode_latents(sound(2000)[None]).values)
    return toy


def spread_codes(quantizer: Any, latents: Tensor) -> None:
    """Codes among the latents, so that ids differ and are far from ties."""
    rows, chance = latents.flatten(0, -2), Generator().manual_seed(5)
    count, dim = quantizer.codebook.shape
    noise = torch.randn(count, dim, generator=chance) * rows.std(0)
    quantizer.codebook.copy_((rows[torch.randperm(len(rows), generator=chance)[:count]] + noise).detach())


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 40, 41])
def test_a_round_trip_gives_back_as_many_samples(codec: WavTokenizer, samples: int) -> None:
    tokens = codec.encode([sound(samples, samples)])
    count = -(-samples // HOP)
    assert tokens.ids.shape == (1, count) and codec.num_tokens((samples,)) == count
    assert codec.decode(tokens).shape == (1, 1, samples)
    # The official decoder gives whole hops.
    assert codec.sound_of(codec.dequantize(tokens).values).shape == (1, 1, count * HOP)


def test_a_batch_of_lengths_is_its_singles(codec: WavTokenizer) -> None:
    items = [sound(samples, samples) for samples in (30, 31, 8, 30, 1)]
    tokens = codec.encode(items)
    decoded = tokens.crop(codec.decode(tokens))
    for item, single, heard in zip(items, tokens.unbind(), decoded, strict=True):
        alone = codec.encode([item])
        assert alone.identical(single)
        torch.testing.assert_close(heard, codec.decode(alone)[0], atol=1e-6, rtol=0)


def test_pieces_of_a_long_sound_are_nearly_the_whole(codec: WavTokenizer) -> None:
    """The LSTM forgets within the context; group norms and attention of the decoder hear another sound in a
    piece than in the whole, so it deviates by 0.22 of the signal here."""
    item = sound(HOP * 700, 3)
    whole = codec.encode([item])
    pieces = codec.encode([item], chunk_seconds=0.1)  # of 400 tokens
    assert torch.equal(pieces.extents, whole.extents)
    assert float((pieces.ids != whole.ids).double().mean()) <= 0.01
    stream = codec.stream(block_seconds=0.03)
    streamed = [stream.encode(piece) for piece in item.split(333, dim=-1)]
    assert float((join([*streamed, stream.flush().tokens]).ids != whole.ids).double().mean()) <= 0.01
    full, parts = codec.decode(whole), codec.decode(whole, chunk_seconds=0.1)
    assert parts.shape == full.shape
    assert float((parts - full).norm() / full.norm()) < 0.3
    assert torch.equal(codec.decode(whole, chunk_seconds=10.0), full)


def test_unused_rows_of_the_norms_change_nothing(codec: WavTokenizer) -> None:
    tokens, changed = codec.encode([sound(40)]), copy.deepcopy(codec)
    backbone = changed.decoder.backbone
    with torch.no_grad():
        for norm in (backbone.norm, *(block.norm for block in backbone.convnext)):
            norm.scale[1:] = 7
            norm.shift[1:] = -7
    assert torch.equal(changed.decode(tokens), codec.decode(tokens))


def test_a_training_step_moves_every_part() -> None:
    toy = build_toy("wavtokenizer").train()
    signal = torch.stack([sound(80, 1), sound(80, 2)])
    torch.manual_seed(0)
    result = toy(signal)
    ((result.signal - signal).square().mean() + result.quantized.loss).backward()
    still = [
        name
        for name, parameter in toy.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    # A bias of the keys moves all scores of a query alike; the others are what a norm takes off again.
    assert all(name.endswith("pos_net.2.k.bias") for name in still)


CONFIGS = {
    "released": {"upsampling_ratios": [2, 2, 3, 2]},
    "odd": {
        "upsampling_ratios": [3, 2],
        "num_residual_layers": 2,
        "kernel_size": 5,
        "last_kernel_size": 3,
        "use_conv_shortcut": False,
        "num_lstm_layers": 1,
    },
}


@pytest.fixture(params=CONFIGS.values(), ids=list(CONFIGS))
def reference(request: pytest.FixtureRequest) -> Any:
    """A small WavTokenizerModel of transformers with random weights."""
    import transformers

    config = transformers.WavTokenizerConfig(
        num_filters=4,
        hidden_size=12,
        codebook_dim=12,
        codebook_size=64,
        decoder_hidden_size=64,
        decoder_intermediate_size=40,
        decoder_num_layers=2,
        **request.param,
    )
    torch.manual_seed(0)
    model = transformers.WavTokenizerModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        codebook = model.encoder_model.quantizer.codebook
        latents = model.encoder_model.encoder(sound(3000)[None])[0].T
        codebook.embed.copy_(latents[torch.randperm(len(latents))[:64]] + 0.1 * torch.randn(64, 12))
    return model


def ours(reference: Any) -> WavTokenizer:
    """Loaded strictly, through the converter, as a folder with these tensors would be."""
    config, tensors = reference.config.to_dict(), reference.state_dict()
    assert convert_wavtokenizer.recognise(config, tensors)
    converted = convert_wavtokenizer.convert_config(config)
    model = WavTokenizer(WavTokenizerConfig.from_dict(converted)).eval()
    load_strict(model, loading._renamed(convert_wavtokenizer, tensors))
    return model


def test_parity_with_transformers(reference: Any) -> None:
    model = ours(reference)
    for samples in (model.config.hop_samples * 20, 301, 77, 3):
        signal = torch.stack([sound(samples, 1), sound(samples, 2)])
        with torch.no_grad():
            expected = reference(signal)
        tokens = model.encode(signal)
        assert torch.equal(tokens.ids, expected.audio_codes[:, 0])
        with torch.no_grad():
            heard = model.decode_latents(model.dequantize(tokens))
        torch.testing.assert_close(heard, expected.audio_values, atol=2e-5, rtol=1e-4)


def test_a_hub_folder_in_the_layout_of_transformers_loads(reference: Any, tmp_path: Any) -> None:
    reference.save_pretrained(tmp_path)
    loaded = loading.load(tmp_path)
    signal = sound(120)[None]
    assert isinstance(loaded, WavTokenizer)
    assert torch.equal(loaded.encode(signal).ids, ours(reference).encode(signal).ids)


def test_checkpoints_of_training_load_without_what_training_needed(tmp_path: Any, monkeypatch) -> None:
    """As Lightning writes them, with the decoder of EnCodec, discriminators and the state of optimizers."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    toy = build_toy("wavtokenizer")
    official = {convert_wavtokenizer.official_name(name): t for name, t in toy.state_dict().items()}
    for name in [name for name in official if name.startswith("feature_extractor") and _is_conv(name)]:
        weight = official.pop(name)
        official[f"{name}_g"] = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
        official[f"{name}_v"] = 3 * weight
    leftovers = (
        "feature_extractor.encodec.decoder.model.0.conv.conv.bias",
        "dac.x",
        "multiresddisc.y.weight_g",
    )
    checkpoint = {
        "state_dict": official | {name: torch.ones(2, 1, 1) for name in leftovers},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}],
        "hyper_parameters": {"sample_rate": 24000, "resume": False},
        "epoch": 3,
    }
    torch.save(checkpoint, tmp_path / "x.ckpt")
    from tokenzoo.checkpoints.pickles import Pickle, read_pickle

    row = catalogue.find("wavtokenizer-large-600")
    assert row is not None and row.part == "state_dict"
    tensors = read_pickle(tmp_path / "x.ckpt", Pickle("x.ckpt", row.part))
    other = build_toy("wavtokenizer")
    load_strict(other, loading._renamed(convert_wavtokenizer, tensors))
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, toy.state_dict()[name], atol=1e-6, rtol=1e-5, msg=name)


def _is_conv(name: str) -> bool:
    return name.endswith(".weight") and ".conv." in name


def test_half_a_weight_norm_is_no_weight() -> None:
    toy = build_toy("wavtokenizer")
    official = {convert_wavtokenizer.official_name(name): t for name, t in toy.state_dict().items()}
    place = "feature_extractor.encodec.encoder.model.0.conv.conv.weight"
    official[f"{place}_v"] = official.pop(place)
    with pytest.raises(CheckpointError, match=r"missing \(1\): encoder\.layers\.0\.weight"):
        load_strict(toy, loading._renamed(convert_wavtokenizer, official))


def test_networks_that_nobody_released_are_refused() -> None:
    authors = {
        "feature_extractor": {"num_quantizers": 1},
        "backbone": {"input_channels": 8, "dim": 32, "intermediate_dim": 9, "num_layers": 1},
        "head": {"n_fft": 2400},
    }
    with pytest.raises(ValueError, match=r"adanorm_num_embeddings None: expected 1, 'same' and a number"):
        convert_wavtokenizer.convert_config(authors)
    authors["backbone"]["adanorm_num_embeddings"] = 4
    assert convert_wavtokenizer.convert_config(authors)["encoder"]["ratios"] == [6, 5, 5, 4]
    authors["feature_extractor"]["num_quantizers"] = 2
    with pytest.raises(ValueError, match="num_quantizers 2, padding 'same'"):
        convert_wavtokenizer.convert_config({"model": {"init_args": authors}})
    with pytest.raises(ValueError, match="use_causal_conv=True: expected False, as in everything released"):
        convert_wavtokenizer.convert_config({"sampling_rate": 24000, "use_causal_conv": True})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"decoder": VocosConfig(n_fft=400)}, "n_fft=400, hop_samples=320: expected an even window"),
        ({"encoder": SeanetConfig(ratios=(3, 3))}, "n_fft=1280, hop_samples=9: expected an even window"),
        ({"preprocess": AudioPreprocess(channels=2)}, "2 channels of sound, 1 of the encoder: expected 1"),
        ({"num_codes": 0}, "num_codes=0"),
    ],
)
def test_configurations_that_cannot_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WavTokenizerConfig(**config)


def test_widths_that_group_norms_cannot_take() -> None:
    with pytest.raises(ValueError, match="width=48: expected a multiple of 32"):
        VocosConfig(width=48)
