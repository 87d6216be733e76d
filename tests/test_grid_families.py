"""LlamaGen's VQ, IBQ, Open-MAGVIT2 and ELM's autoencoder: what is special in each, and their files."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo.checkpoints import (
    convert_elm_bae,
    convert_ibq,
    convert_ldm_vae,
    convert_llamagen,
    convert_open_magvit2,
)
from tokenzoo.checkpoints.seed_voken import best_copies
from tokenzoo.image.conv_parts import ConvConfig, ConvDecoder, LevelsConfig
from tokenzoo.zoo import catalogue, loading

from .toys import TOYS, build_toy
from .toys_conv import CONV

FAMILIES = ("llamagen", "ibq", "open-magvit2", "elm-bae")
CONVERTERS = {
    "elm-bae": convert_elm_bae,
    "llamagen": convert_llamagen,
    "ibq": convert_ibq,
    "ldm-vae": convert_ldm_vae,
    "open-magvit2": convert_open_magvit2,
}


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 24, generator=Generator().manual_seed(1))


def official_tensors(family: str) -> dict[str, Tensor]:
    convert = CONVERTERS[family]
    return {convert.official_name(name): tensor for name, tensor in build_toy(family).state_dict().items()}


def as_trained_by_lightning(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The wanted tensors as averages, others under the plain names, and a discriminator."""
    averages = {"model_ema." + name.replace(".", ""): tensor for name, tensor in tensors.items()}
    plain = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    rest = {"loss.discriminator.weight": torch.ones(2), "model_ema.decay": torch.ones(())}
    return plain | averages | rest | {"model_ema.lossdiscriminatorweight": torch.ones(2)}


def test_llamagen_stores_the_decoder_as_it_runs() -> None:
    """Coarsest level first, where taming-transformers has the finest first."""
    finest, coarsest = (ConvDecoder(CONV, 8, 4, finest_first=order) for order in (True, False))
    assert [len(level.attn) for level in finest.up] == [0, 0, 2]  # pyright: ignore
    assert [len(level.attn) for level in coarsest.up] == [2, 0, 0]  # pyright: ignore
    turned = str.maketrans("02", "20")
    coarsest.load_state_dict(
        {
            re.sub(r"^up\.\d", lambda found: found[0].translate(turned), name): tensor
            for name, tensor in finest.state_dict().items()
        }
    )
    latents = torch.randn(1, 4, 2, 3)
    assert torch.equal(finest(latents), coarsest(latents))


def test_ibq_takes_the_largest_dot_product() -> None:
    """A long code wins over one that is nearer and better aligned."""
    model: Any = build_toy("ibq")
    with torch.no_grad():
        model.quantizer.codebook.zero_()
        model.quantizer.codebook[3] = torch.tensor([1.0, 0, 0, 0])
        model.quantizer.codebook[7] = torch.tensor([9.0, 9, 0, 0])
    assert model.quantizer.encode(torch.tensor([[1.0, 0, 0, 0]])).tolist() == [7]


def test_open_magvit2_has_the_first_bit_lowest_and_takes_zero_for_no() -> None:
    model: Any = build_toy("open-magvit2")
    latents = torch.tensor([[1.0, -1, 0, -0.0, 2], [-3.0, 1, 1, -1, -1]])
    assert model.quantizer.encode(latents).tolist() == [0b10001, 0b00110]
    assert model.quantizer.decode(torch.tensor(0b10001)).tolist() == [1, -1, -1, -1, 1]


def test_elm_draws_its_bits_with_a_generator() -> None:
    """Without one it takes the likelier; where the encoder is sure both agree."""
    model: Any = build_toy("elm-bae")
    likelier = model.encode(images())
    drawn = [model.encode(images(), generator=Generator().manual_seed(seed)).ids for seed in range(40)]
    shares = torch.stack([model.quantizer.decode(ids) for ids in drawn]).mean(0)
    logits = model.encode_latents(images()).values.detach()
    assert float((shares - logits.sigmoid()).abs().mean()) < 0.1
    assert torch.equal(model.quantizer.decode(likelier.ids), (logits > 0).float())
    sure = torch.where(logits > 0, 50.0, -50.0)
    assert torch.equal(model.quantizer.encode(sure, generator=Generator()), likelier.ids)


def test_elm_keeps_shortcuts_that_nobody_reads() -> None:
    """The checkpoints have them; they are frozen, and change nothing."""
    model: Any = build_toy("elm-bae")
    before = model.encode_latents(images()).values
    unused = [name for name, weight in model.encoder.named_parameters() if not weight.requires_grad]
    assert unused and all(".nin_shortcut." in name for name in unused)
    with torch.no_grad():
        for name in unused:
            model.encoder.get_parameter(name).add_(1)
    after = model.encode_latents(images()).values
    with torch.no_grad():
        for name in unused:
            model.encoder.get_parameter(name).sub_(1)
    assert torch.equal(after, before)


def test_elm_sees_images_from_0_to_1() -> None:
    model: Any = build_toy("elm-bae")
    logits = model.encoder(images()).flatten(2).transpose(1, 2)
    assert torch.equal(model.encode_latents(images()).values, logits)


def test_open_magvit2_decodes_a_single_token() -> None:
    """The deviation of one place is undefined, and the official code gives NaN."""
    model = build_toy("open-magvit2")
    decoded = model.decode(model.stamp([[5]]))
    assert decoded.shape == (1, 3, 4, 4) and bool(torch.isfinite(decoded).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_several_sizes_in_one_batch(family: str) -> None:
    model = build_toy(family)
    wide, small = images()
    tokens = model.encode([wide, small[:, :8, :8]])
    assert tokens.lengths.tolist() == [24, 4]
    pictures = tokens.crop(model.decode(tokens))
    for picture, single in zip(pictures, tokens.unbind(), strict=True):
        torch.testing.assert_close(picture, model.decode(single)[0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=rf"\(8, 6\): {family} takes sides that are multiples of 4"):
        model.encode([small[:, :8, :6]])


@pytest.mark.parametrize("family", FAMILIES)
def test_training_reaches_every_weight(family: str) -> None:
    model = build_toy(family).train()
    result = model(images())
    (result.signal.square().mean() + result.quantized.loss).backward()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert not [name for name, weight in trained.items() if weight.grad is None]
    with pytest.raises(ValueError, match="keeps all tokens: leave lengths out"):
        model(images(), lengths=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="takes no captions"):
        model(images(), captions=["a", "b"])


def test_layouts_are_told_apart() -> None:
    for family in CONVERTERS:
        names = set(official_tensors(family))
        assert [key for key in CONVERTERS if CONVERTERS[key].recognise({}, names)] == [family]
        assert not CONVERTERS[family].recognise({}, set())
    assert not convert_llamagen.recognise({}, {*official_tensors("llamagen"), "s2to1encoder.x"}), "ReTok"


def test_the_average_is_read_where_there_is_one() -> None:
    names = ["encoder.a.weight", "encoder.b.weight", "model_ema.encoderaweight", "model_ema.decay", "loss.x"]
    assert best_copies(names) == {
        "model_ema.encoderaweight": "encoder.a.weight",
        "encoder.b.weight": "encoder.b.weight",
    }


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llamagen", "llamagen-vq-ds8"),
        ("ibq", "ibq-1024"),
        ("open-magvit2", "open-magvit2-256"),
        ("elm-bae", "elm-bae-20"),
    ],
)
def test_a_downloaded_file_is_converted(
    family: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published: a pickle with the weights under one key, and beside them what the model does not need."""
    toy = build_toy(family)
    tensors = official_tensors(family)
    if family == "llamagen":
        content = {"model": tensors | {"quantize.codebook_used": torch.zeros(65536)}, "steps": 3}
    elif family == "elm-bae":
        rest = ("disc.main.0.bias", "perceptual.net.weight", "ae.generator.logsigma.0.bias")
        content = tensors | {key: torch.zeros(2) for key in rest}
    else:
        content = {"state_dict": as_trained_by_lightning(tensors), "epoch": 3, "optimizer_states": []}
    torch.save(content, tmp_path / "weights.ckpt")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "read_yaml", lambda file: (family, toy.config.to_dict()))
    loaded = loading.load_file(tmp_path / "weights.ckpt", name)
    row = catalogue.find(name)
    assert row is not None and loaded.facts.licence == row.facts.licence
    assert torch.equal(loaded.encode(images()).ids, toy.encode(images()).ids)
    missing = next(key for key in tensors if key.endswith("norm1.weight"))
    tensors.pop(missing)
    torch.save({"state_dict": tensors}, tmp_path / "less.ckpt")
    with pytest.raises(ValueError, match=missing.replace(".", r"\.")):
        loading.load_file(tmp_path / "less.ckpt", name)


def test_two_files_of_one_repository() -> None:
    """The repository's own id gives the first of them."""
    rows = [row for row in catalogue.rows() if row.repo == "FoundationVision/LlamaGen"]
    assert [row.file for row in rows] == ["vq_ds16_c2i.pt", "vq_ds8_c2i.pt"]
    assert catalogue.find("foundationvision/llamagen") is rows[0]


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llamagen", {"num_codes": 0}, "num_codes=0"),
        ("llamagen", {"commitment_weight": -1.0}, "commitment_weight=-1.0"),
        ("ibq", {"features": 0}, "features=0"),
        ("ibq", {"entropy_temperature": 0.0}, "entropy_temperature=0.0"),
        ("elm-bae", {"bits": 31}, "bits=31"),
        ("elm-bae", {"features": 40}, "features=40 with norm_first: expected a multiple of 32"),
        ("elm-bae", {"attention": (3,)}, "attention level=3"),
        ("open-magvit2", {"bits": 30}, "bits=30: expected 1 ... 24"),
        ("open-magvit2", {"code_entropy_weight": float("nan")}, "code_entropy_weight=nan"),
    ],
)
def test_impossible_configs_are_refused(family: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TOYS[family].config_type(), **change)  # pyright: ignore


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="channels=48: expected a multiple of 32"):
        LevelsConfig(channels=48)
    with pytest.raises(ValueError, match="number of multipliers=0"):
        LevelsConfig(multipliers=())
    with pytest.raises(ValueError, match=r"attention level=5: expected 0 \.\.\. 4"):
        ConvConfig(decoder_attention=(5,))


def test_incomplete_official_configs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"decoder_ch_mult \[1, 2\]: expected the same"):
        convert_llamagen.convert_config({"encoder_ch_mult": [1, 1], "decoder_ch_mult": [1, 2]})
    with pytest.raises(ValueError, match="without ddconfig, embed_dim, n_embed"):
        convert_ibq.convert_config({})
    with pytest.raises(ValueError, match="configuration without embed_dim"):
        convert_open_magvit2.convert_config({"ddconfig": {}})
    with pytest.raises(ValueError, match="without attn_resolutions, ch_mult, codebook_size"):
        convert_elm_bae.convert_config({})
