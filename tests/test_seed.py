"""SEED-2 beyond the contract: causal queries, the embedding, the pipeline that paints, official names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tokenzoo import NoDecoder
from tokenzoo.checkpoints import convert_seed
from tokenzoo.image.seed import QFormerSize, Seed, SeedConfig, VisionSize
from tokenzoo.image.unclip import UnclipConfig
from tokenzoo.zoo.keywords import family_keywords

from .tiny_unclip import write_tiny_unclip
from .toys_seed import SmallSeed, SmallSeedConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def make(unclip: UnclipConfig | None = None) -> Seed:
    torch.manual_seed(0)
    return SmallSeed(SmallSeedConfig(unclip=unclip)).eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=Generator().manual_seed(0))


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Seed:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("unclip")
    write_tiny_unclip(folder)
    return make(UnclipConfig(repo=str(folder), size=32))


@torch.no_grad()
def test_a_latent_has_seen_no_later_query() -> None:
    model = make()
    before = model.encode_latents(images()).values
    model.encoder.qformer.queries[:, 3:].neg_()
    after = model.encode_latents(images()).values
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert float((after[:, 3:] - before[:, 3:]).abs().amax(dim=-1).min()) > 1e-3


def test_layers_look_at_the_picture_as_often_as_the_size_says() -> None:
    model = make()
    assert [layer.cross_attention is not None for layer in model.encoder.qformer.layers] == [
        True,
        False,
        True,
    ]


def test_what_is_learned_ends_at_an_embedding() -> None:
    model = make()
    result = model(images())
    assert result.signal.shape == (2, 32)
    tokens = model.encode(images())
    torch.testing.assert_close(model.decode_latents(model.dequantize(tokens)), result.signal)
    with pytest.raises(NoDecoder, match="seed only encodes"):
        model.decode(tokens)
    with pytest.raises(ValueError, match=r"no pipeline to paint with: name one in config\.unclip"):
        model.paint(tokens)
    with pytest.raises(ValueError, match="takes no captions"):
        model(images(), captions=["a", "b"])
    with pytest.raises(ValueError, match=r"lengths \[6, 2\]: seed reads all 6 tokens"):
        model(images(), lengths=torch.tensor([6, 2]))


def test_painting_is_repeatable_and_a_batch_is_its_singles(painting: Seed) -> None:
    tokens = painting.encode(images())
    assert painting.facts.has_decoder and painting.facts.draws_noise
    painted = painting.paint(tokens, steps=2)
    assert painted.shape == (2, 3, 32, 32) and 0 <= float(painted.min()) <= float(painted.max()) <= 1
    torch.manual_seed(1)
    assert torch.equal(painting.paint(tokens, steps=2), painted)
    for item, single in enumerate(tokens.unbind()):
        torch.testing.assert_close(painting.paint(single, steps=2)[0], painted[item], atol=1e-5, rtol=0)
    decoded = painting.decode(tokens, steps=2)
    assert decoded.shape == (2, 3, 16, 16) and decoded.dtype == torch.float32
    torch.testing.assert_close(decoded.mean(dim=(2, 3)), painted.mean(dim=(2, 3)), atol=0.02, rtol=0)


def test_chance_and_keywords_change_the_picture(painting: Seed) -> None:
    tokens = painting.encode(images())
    plain = painting.paint(tokens, steps=2)
    each = [Generator().manual_seed(seed) for seed in (0, 5)]
    drawn = painting.paint(tokens, steps=2, generator=each)
    torch.testing.assert_close(drawn[0], plain[0])
    assert float((drawn[1] - plain[1]).abs().mean()) > 1e-3
    one = [painting.paint(tokens, steps=2, generator=Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*one) and not torch.allclose(one[0], plain)
    assert not torch.allclose(painting.paint(tokens, steps=2, guidance=1.0), plain)
    assert not torch.allclose(painting.paint(tokens, steps=3), plain)
    assert list(family_keywords(painting, "decode")) == ["steps", "guidance"]
    with pytest.raises(ValueError, match="1 generators for 2 items"):
        painting.decode(tokens, generator=each[:1])
    with pytest.raises(ValueError, match=r"steps=0: expected 1 \.\.\. 1000"):
        painting.decode(tokens, steps=0)


def test_the_pipeline_is_no_part_of_the_weights_but_moves_with_them(painting: Seed) -> None:
    tokens = painting.encode(images())
    painting.paint(tokens, steps=1)
    assert not [name for name in painting.state_dict() if name.startswith("painter")]
    assert not list(painting.painter.parameters())  # pyright: ignore[reportOptionalMemberAccess]
    held = painting.painter._held  # pyright: ignore[reportOptionalMemberAccess]
    assert held is not None
    painting.to(torch.float64)
    assert next(held.pipeline.unet.parameters()).dtype == torch.float64
    painting.to(torch.float32)
    assert next(held.pipeline.unet.parameters()).dtype == torch.float32


def test_beside_random_weights_there_is_noise_to_see_and_nothing_to_fetch() -> None:
    model = make(UnclipConfig(repo="nobody/nothing", size=32))
    model.mock_companions()
    tokens = model.encode(images())
    decoded = model.decode(tokens)
    assert decoded.shape == (2, 3, 16, 16) and torch.equal(model.decode(tokens), decoded)


def test_a_pipeline_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    model = make(UnclipConfig(repo=str(tmp_path)))
    with pytest.raises(OSError, match=r"model_index\.json"):
        model.decode(model.encode(images()))


def test_the_default_is_the_published_size() -> None:
    config = SeedConfig()
    assert config.facts().max_tokens == 32 and config.facts().bits_per_token == 13
    assert config == SeedConfig.from_dict(convert_seed.convert_config({}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 20}, "image_size=20 with patch_size=8: expected a multiple"),
        ({"image_size": 32}, r"preprocess\.size=16 with image_size=32: expected the same"),
        ({"num_codes": 0}, "num_codes=0: expected 1"),
        ({"narrowing": (8, 0, 4)}, "narrowing=0: expected 1"),
    ],
)
def test_configurations_that_do_not_fit(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmallSeedConfig(**wrong)


def test_sizes_that_do_not_fit() -> None:
    for size in (VisionSize(), QFormerSize()):
        with pytest.raises(ValueError, match=r"width=\d+ with heads=7: expected a multiple of the heads"):
            replace(size, heads=7)


def test_what_reads_words_or_serves_training_is_dropped() -> None:
    layer = "Qformer.bert.encoder.layer.3"
    names = {
        "pos_embed": None,
        "blocks.0.norm1.weight": None,
        "Qformer.cls.predictions.bias": None,
        "Qformer.bert.embeddings.position_ids": None,
        "Qformer.bert.embeddings.word_embeddings.weight": None,
        f"{layer}.intermediate.dense.weight": None,
        f"{layer}.output.LayerNorm.bias": None,
        f"{layer}.output_query.LayerNorm.bias": "encoder.qformer.layers.3.norm.bias",
        "blocks_image.0.attn.proj.bias": "decoder.blocks.0.attention.out.bias",
        "strange.weight": "strange.weight",
    }
    expected = {official: ours for official, ours in names.items() if ours is not None}
    assert convert_seed.convert_names(names) == expected
