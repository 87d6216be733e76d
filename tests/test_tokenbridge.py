"""TokenBridge over its own autoencoder and over others, and the autoencoder by itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import tokenzoo
from tokenzoo.checkpoints.convert_ldm_vae import convert_config, official_name
from tokenzoo.image.conv_parts import ConvConfig
from tokenzoo.image.ldm_vae import LdmVae, LdmVaeConfig
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.tokenbridge import TokenBridge, TokenBridgeConfig
from tokenzoo.zoo import loading
from tokenzoo.zoo.gaussian import GaussianPosterior

from .test_titok import CONFIGS, make
from .test_titok import images as titok_images

VAE = LdmVaeConfig(
    latent_dim=4,
    conv=ConvConfig(channels=32, multipliers=(1, 2), blocks=1, encoder_attention=(1,)),
    preprocess=ImagePreprocess(size=16),
)
BRIDGE = TokenBridgeConfig(base_type="ldm-vae", base=VAE.to_dict(), levels=64, scale=(0.2325,))


def build(family: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return family(config).eval()


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=Generator().manual_seed(1))


def test_ids_are_the_bins_of_the_posterior_mean_or_of_a_sample() -> None:
    model = build(TokenBridge, BRIDGE)
    mean, logvar = model.quantizer.continuous.moments(model.encode_latents(images()).values)
    bins = BRIDGE.build_bins()
    tokens = model.encode(images())
    assert tokens.ids.shape == (3, 64, 4) and torch.equal(tokens.ids, bins.encode(mean))
    # The official code draws a map (B, D, h, w).
    noise = torch.randn(3, 4, 8, 8, generator=Generator().manual_seed(5)).flatten(2).transpose(1, 2)
    drawn = model.encode(images(), generator=Generator().manual_seed(5))
    assert torch.equal(drawn.ids, bins.encode(mean + torch.exp(0.5 * logvar) * noise))
    assert not drawn.identical(tokens)


def test_the_weights_are_those_of_the_tokenizer_below() -> None:
    model = build(TokenBridge, BRIDGE)
    below = build(LdmVae, VAE)
    assert list(model.state_dict()) == list(below.state_dict())
    assert {id(part) for part in model.base.parameters()} == {id(part) for part in model.parameters()}
    tokens = model.dequantize(model.encode(images()))
    floats = below.stamp(tokens.values, extents=tokens.extents)
    assert torch.equal(model.decode(model.encode(images())), below.decode(floats))


def test_embeddings_of_all_features_add_up_to_what_the_decoder_reads() -> None:
    model = build(TokenBridge, BRIDGE)
    ids = torch.tensor([3, 60, 0, 31])
    tables = model.codebook_embeddings()
    summed = torch.stack([table[index] for table, index in zip(tables, ids, strict=True)]).sum(0)
    torch.testing.assert_close(summed, model.quantizer.decode(ids))


@pytest.mark.parametrize("below", ["ldm-vae", "titok"])
def test_any_continuous_tokenizer_can_lie_below(below: str) -> None:
    """More levels come closer to the continuous picture; scale and shift are fitted to the images."""
    vae = build(LdmVae, VAE) if below == "ldm-vae" else make(CONFIGS["continuous"])
    given = images() if below == "ldm-vae" else titok_images()
    wanted = vae.decode(vae.encode(given))
    errors = []
    for levels in (4, 16, 256):
        bridge = TokenBridge.over(vae, given, levels=levels)
        tokens = bridge.encode(given)
        assert tokens.codebook_sizes == (levels,) * vae.facts.latent_dim
        assert tokens.facts.name == f"{vae.facts.name}-{levels}-levels"
        errors.append(float((bridge.decode(tokens) - wanted).square().mean()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_bridge_over_another_tokenizer_is_saved_whole(tmp_path: Path) -> None:
    bridge = TokenBridge.over(make(CONFIGS["continuous"]), titok_images(), levels=8)
    bridge.save_pretrained(tmp_path)
    loaded = tokenzoo.load(tmp_path)
    assert loaded.encode(titok_images()).identical(loaded.stamp(bridge.encode(titok_images()).ids))


def test_a_discrete_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="one-d-piece is discrete already"):
        TokenBridge.over(make(CONFIGS["nested"]), titok_images())
    with pytest.raises(ValueError, match="base_type='titok': expected a continuous image tokenizer"):
        TokenBridgeConfig(base_type="titok", base=CONFIGS["nested"].to_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": 1}, "levels=1: expected 2"),
        ({"scale": (1.0, 2.0)}, "scale has 2 entries: expected 1 or 4"),
        ({"base_type": "gan"}, "unknown tokenizer_type 'gan'"),
        ({"base": {"latent_dim": 0}}, "latent_dim=0: expected 1"),
    ],
)
def test_impossible_configs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BRIDGE, **change)


def test_training_carries_the_loss_of_the_posterior() -> None:
    model = build(TokenBridge, BRIDGE)
    result = model(images())
    posterior = model.base.quantizer
    assert isinstance(posterior, GaussianPosterior)
    assert torch.equal(result.quantized.loss, posterior(model.encode_latents(images()).values).loss)
    result.signal.square().mean().backward()
    assert model.encoder.conv_in.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="takes no captions"):
        model(images(), captions=["a", "b", "c"])


def test_images_of_several_sizes_in_one_batch() -> None:
    model = build(LdmVae, VAE)
    tokens = model.encode([images(1)[0], images(1)[0, :, :8], images(2)[1]])
    assert tokens.lengths.tolist() == [64, 32, 64]
    assert tokens.extents.tolist() == [[16, 16], [8, 16], [16, 16]]
    alone = model.decode(model.encode(images(1)[:, :, :8]))
    torch.testing.assert_close(tokens.crop(model.decode(tokens))[1], alone[0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"sides that are multiples of 2, e\.g\. \(32, 32\)"):
        model.encode(images()[..., 1:])


@pytest.mark.parametrize("name", ["mar-kl16", "tokenbridge"])
def test_the_local_file_is_converted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kl16.ckpt is no file of the Hub: a pickle, with the state dict under "model"."""
    with pytest.raises(ValueError, match=f"not on the Hub: download them from .*--like {name}"):
        tokenzoo.load(name)
    kind, config = ("ldm-vae", VAE) if name == "mar-kl16" else ("tokenbridge", BRIDGE)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "read_yaml", lambda file: (kind, config.to_dict()))
    model = build(LdmVae, VAE)
    official = {official_name(key): tensor for key, tensor in model.state_dict().items()}
    torch.save({"model": official | {"loss.logvar": torch.zeros(())}}, tmp_path / "kl16.ckpt")
    loaded = loading.load_file(tmp_path / "kl16.ckpt", name)
    assert loaded.facts.name == name and loaded.facts.licence == "MIT"
    assert torch.equal(loaded.encode_latents(images()).values, model.encode_latents(images()).values)


def test_official_defaults() -> None:
    config = LdmVaeConfig.from_dict(convert_config({"embed_dim": 16, "ch_mult": [1, 1, 2, 2, 4]}))
    assert config == LdmVaeConfig()
    with pytest.raises(ValueError, match="configuration without ch_mult"):
        convert_config({"embed_dim": 16})
