"""Image tokenizers to be trained in seconds, and small frozen models that teach them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from tokenzoo.image.flextok import FlexTok
from tokenzoo.image.image_tokenizer import ImageTokenizer
from tokenzoo.image.maskgit_vqgan import MaskgitVqgan
from tokenzoo.image.preprocess import ImagePreprocess
from tokenzoo.image.pyramid import PyramidConfig, PyramidTokenizer
from tokenzoo.image.pyramid_quantizer import PyramidStage
from tokenzoo.image.retok import ReTok
from tokenzoo.image.stages import with_pixels
from tokenzoo.image.titok import TiTok, TiTokConfig
from tokenzoo.zoo.transformer import TransformerSize

from .toys import TOYS, build_toy
from .toys_distilled import spread
from .toys_flextok import SmallFlexTok, SmallFlexTokConfig
from .toys_retok import SmallReTok, SmallReTokConfig

SIZE = TransformerSize(width=32, layers=1, heads=2)
SIXTEEN = ImagePreprocess(size=16)
BACKBONE, BACKBONE_WIDTH = "test_vit", 64
TITOK = TiTokConfig(
    num_tokens=8,
    latent_dim=4,
    encoder=SIZE,
    decoder=SIZE,
    image_size=16,
    preprocess=SIXTEEN,
    encoder_patch_size=4,
    decoder_patch_size=4,
    num_codes=40,
    pixel_codes=32,
    legacy=False,
)
PYRAMID = PyramidConfig(
    image_size=16,
    patch_size=4,
    channels=6,
    stages=(PyramidStage(1, 2, 3, 4), PyramidStage(2, 1, 6, 4), PyramidStage(4, 1, 6, 4, tree=True)),
    codes=8,
    width=16,
    depth=1,
    preprocess=SIXTEEN,
)


@dataclass(frozen=True)
class Trained:
    """A family and how it is trained.

    term   of the loss, the one to go by
    share  of it that may be left after 200 steps on one batch, at the latest
    """

    build: Callable[[], ImageTokenizer]
    settings: dict[str, Any] = field(default_factory=dict)
    term: str = "mse"
    share: float = 0.35


def pictures(size: int = 16, count: int = 4) -> Tensor:
    """(B, 3, size, size) in [0, 1], smooth."""
    coarse = torch.rand(count, 3, 4, 4, generator=Generator().manual_seed(3))
    return F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def titok(**changes: Any) -> TiTok:
    torch.manual_seed(0)
    made = TiTok(replace(TITOK, **changes))
    spread(made)
    return made


def stage1() -> TiTok:
    return titok(legacy=True)


def vqgan() -> MaskgitVqgan:
    made = build_toy("maskgit-vqgan")
    assert isinstance(made, MaskgitVqgan)
    return made


def stage2() -> TiTok:
    return with_pixels(stage1(), vqgan())


def pyramid() -> PyramidTokenizer:
    """With a correction that is not zero, so that every block has a say."""
    torch.manual_seed(0)
    made = PyramidTokenizer(PYRAMID)
    made.initialise(pictures(count=64))
    for layer in (made.decoder.head, *(block.down for block in made.decoder.blocks)):
        nn.init.normal_(layer.weight, std=0.1)
    return made


def flextok() -> FlexTok:
    torch.manual_seed(0)
    return SmallFlexTok(SmallFlexTokConfig())


def retok() -> ReTok:
    torch.manual_seed(0)
    return SmallReTok(replace(SmallReTokConfig(), semantic_dim=BACKBONE_WIDTH))


@cache
def _folder() -> Path:
    """It lives as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="tokenzoo-teachers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def backbone_file() -> str:
    """The state dict of a small vision model, random: what matters here is that it is read."""
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model(BACKBONE).state_dict(), _folder() / "backbone.pth")
    return str(_folder() / "backbone.pth")


@cache
def vqgan_folder() -> str:
    """A saved tokenizer whose 32 ids TiTok's first stage predicts; `toy_families` must be on."""
    vqgan().save_pretrained(_folder() / "vqgan")
    return str(_folder() / "vqgan")


@cache
def clip_folder() -> str:
    """A pipeline of nothing but an image encoder, with embeddings as wide as the toy of SEED has them."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=32,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(_folder() / "clip" / "image_encoder")
    return str(_folder() / "clip")


def families() -> dict[str, Trained]:
    """Every image family that trains, its discrete and its continuous form, by name."""
    seen = {"backbone": BACKBONE, "weights": backbone_file()}
    aligned = {"alignment": seen | {"features": BACKBONE_WIDTH, "hidden": 32}}
    special = {
        "titok": Trained(titok),
        "titok-gaussian": Trained(lambda: titok(quantizer="gaussian", num_codes=None, l2=False)),
        "one-d-piece": Trained(lambda: titok(nested=True)),
        "titok-stage-1": Trained(stage1, {"terms": {"codes": {"teacher": vqgan_folder()}}}, "codes"),
        "titok-stage-2": Trained(stage2, {"freeze": "encoder,quantizer"}),
        "pyramid": Trained(pyramid),
        "flextok": Trained(flextok, {"terms": aligned}, "quantizer", 0.75),
        "retok": Trained(retok, {"terms": {"semantic": seen}}),
        "seed": Trained(
            lambda: _toy("seed"), {"terms": {"embedding": {"encoder": clip_folder()}}}, "embedding"
        ),
        "alit": Trained(lambda: _toy("alit"), {"terms": {"rounds": {}}}, "rounds", 0.6),
        "llamagen": Trained(lambda: _toy("llamagen"), share=0.6),
        "ibq": Trained(lambda: _toy("ibq"), share=0.6),
    }
    others = ("karl", "small-karl-vae", "small-alit-vae", "ldm-vae", "tokenbridge", "maskgit-vqgan")
    others += ("elm-bae", "open-magvit2", "ta-titok", "small-ta-titok-kl", "textok", "small-textok-vq")
    return special | {name: Trained(lambda name=name: _toy(name)) for name in others}


def _toy(name: str) -> ImageTokenizer:
    made = build_toy(name)
    assert isinstance(made, ImageTokenizer)
    return made


def image_toys() -> set[str]:
    """Names of all toys that are image tokenizers."""
    return {name for name, toy in TOYS.items() if toy.config_type().facts().modality == "image"}
