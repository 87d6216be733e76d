"""What the visual-token modules share: the vision encoder, the training path, and what there is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenzoo import NoDecoder
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.token_shuffle import TokenShuffle
from tokenzoo.image.visual_tokenizer import VisualTokenizer
from tokenzoo.image.visual_transformer import VisualTransformer
from tokenzoo.zoo import catalogue, loading

from .toys_visual import (
    SmallMatryoshkaConfig,
    SmallTokenShuffleConfig,
    SmallVisualTransformerConfig,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = ("matryoshka", "tokenflex", "visual-transformer", "token-shuffle")


class SeesWhatItIsGiven(torch.nn.Module):
    """A network that hands the normalised images through, channels last."""

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1)


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_default_configuration_builds_at_full_size(kind: str) -> None:
    family: Any = catalogue.family(kind)
    model = loading.build(kind, {})
    assert isinstance(model, VisualTokenizer) and model.config == family.config_type()
    assert not model.facts.has_decoder and not model.facts.is_discrete and model.facts.name == kind


def test_images_are_normalised_by_the_statistics_of_the_encoder() -> None:
    config = SmallTokenShuffleConfig(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    model = TokenShuffle(config)
    model.encoder.network = SeesWhatItIsGiven()
    seen = model.encoder(torch.full((1, 3, 16, 16), 0.75))
    assert seen[0, 0, 0].tolist() == [0.5, 2.0, 0.75]


@pytest.mark.parametrize(
    ("name", "patch_size"), [("test_vit", 16), ("test_resnet", 32), ("test_efficientnet", 32)]
)
def test_a_model_of_timm_sees(name: str, patch_size: int) -> None:
    pytest.importorskip("timm")
    config = SmallVisualTransformerConfig(
        vision=None, timm=name, patch_size=patch_size, image_size=64, preprocess=ImagePreprocess(size=64)
    )
    model = VisualTransformer(config).eval()
    images = torch.rand(2, 3, 64, 64)
    side = 64 // patch_size
    assert model.encoder(images).shape == (2, side, side, model.encoder.width)
    tokens = model.encode(images)
    assert tokens.values.shape == (2, 5, 8)
    empty = loading.build("visual-transformer", config.to_dict())
    assert isinstance(empty, VisualTransformer)
    empty.load_state_dict(model.state_dict(), assign=True)
    assert empty.encode(images).identical(tokens)
    with pytest.raises(ValueError, match=f"patch_size=8: timm's {name} sees places of {patch_size} pixels"):
        VisualTransformer(replace(config, patch_size=8))


def test_there_are_no_pixels_and_no_training_without_a_language_model() -> None:
    model = TokenShuffle(SmallTokenShuffleConfig())
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(NoDecoder, match="token-shuffle only encodes: it has no decoder"):
        model.decode(model.encode(images))
    with pytest.raises(NotImplementedError, match="token-shuffle has no picture to learn from"):
        model.finetune()
    with pytest.raises(ValueError, match="token-shuffle takes no captions"):
        model(images, captions=["a", "b"])
    with pytest.raises(ValueError, match=r"lengths \[4, 1\]: token-shuffle makes 4 tokens"):
        model(images, lengths=torch.tensor([4, 1]))
    assert model(images, lengths=torch.tensor([4, 4])).signal.shape == (2, 16, 8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch_size": 5}, "image_size=16 with patch_size=5: expected a multiple"),
        ({"image_size": 20}, "preprocess.size=16 with image_size=20: expected the same"),
        ({"timm": "test_vit"}, "expected one of them, the other None"),
        ({"vision": None}, "vision=None and timm=None: expected one of them"),
        ({"dim": 0}, "dim=0: expected 1"),
        ({"std": (1.0, 0.0, 1.0)}, "expected more than 0"),
        ({"mean": (1.0, 0.0, 255.0)}, "mean and std=255.0: expected 0 ... 1"),
    ],
)
def test_configurations_that_do_not_fit(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmallMatryoshkaConfig(**wrong)
