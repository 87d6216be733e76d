"""The feature map that visual tokens are made of: by a transformer of ours, or by a model of timm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..zoo.optional import require
from ..zoo.transformer import NORM_EPS, Transformer, TransformerSize

if TYPE_CHECKING:
    from .visual_tokenizer import VisualConfig


class VisionEncoder(nn.Module):
    """Images to a feature map: (B, 3, S, S) float in [0, 1] -> (B, side, side, C), channels last.

    network  (B, 3, S, S) normalised float -> (B, side, side, C)
    width    C
    """

    def __init__(self, config: VisualConfig) -> None:
        super().__init__()
        self.mean, self.std = config.mean, config.std
        if config.vision is not None:
            self.network, self.width = VisionTransformer(config.vision, config), config.vision.width
        else:
            self.network = TimmFeatures(config.timm or "", config.patch_size)
            self.width = self.network.width

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        return self.network((images - mean) / std)


class VisionTransformer(nn.Module):
    """A plain vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929) without a class token."""

    def __init__(self, size: TransformerSize, config: VisualConfig) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, size.width, config.patch_size, stride=config.patch_size)
        self.positions = nn.Parameter(size.width**-0.5 * torch.randn(config.side, config.side, size.width))
        self.transformer = Transformer(size)
        self.norm_out = nn.LayerNorm(size.width, eps=NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).permute(0, 2, 3, 1) + self.positions
        places = self.transformer(patches.flatten(1, 2))
        return self.norm_out(places).view_as(patches)


class TimmFeatures(nn.Module):
    """The last feature map of any vision model of timm, of random weights.

    Pretrained ones are the state dict of the same model: timm.create_model(name, pretrained=True,
    features_only=True, out_indices=(-1,)), into `model`. Raises ValueError when a place of the map is not
    `patch_size` pixels a side.
    """

    def __init__(self, name: str, patch_size: int) -> None:
        super().__init__()
        timm = require("timm", "image")
        self.model = timm.create_model(name, pretrained=False, features_only=True, out_indices=(-1,))
        (reduction,), (self.width,) = self.model.feature_info.reduction(), self.model.feature_info.channels()
        if reduction != patch_size:
            raise ValueError(
                f"patch_size={patch_size}: timm's {name} sees places of {reduction} pixels a side"
            )
        self.is_channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        (features,) = self.model(images)
        return features if self.is_channels_last else features.permute(0, 2, 3, 1)
