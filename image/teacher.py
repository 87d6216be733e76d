"""Frozen models of timm that teach: they lie in no checkpoint, and their features are never random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.optional import require

# Statistics of ImageNet's RGB, where timm states none.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DINOV2_BASE = "vit_base_patch14_dinov2.lvd142m"


class FrozenFeatures(nn.Module):
    """What a vision model sees at the places of a square grid: (B, 3, H, W) in [0, 1] -> (B, side^2, C).

    backbone  name of a model of timm, e.g. DINOv2
    weights   file of its state dict; without it timm asks the Hub
    side      places of the grid along one side, row by row; pictures are resized to what gives so many

    ValueError or OSError, naming the remedy, when the weights are not there.
    """

    def __init__(self, backbone: str, weights: str | None, side: int) -> None:
        super().__init__()
        self.model = timm_features(backbone, weights, last=True)
        (reduction,), (self.width,) = self.model.feature_info.reduction(), self.model.feature_info.channels()
        stated = require("timm", "image").get_pretrained_cfg(backbone)
        self.mean, self.std = (IMAGENET_MEAN, IMAGENET_STD) if stated is None else (stated.mean, stated.std)
        self.side = side
        self.size = side * reduction
        self.is_channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stays in eval mode: batch statistics must not move."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        if images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        (found,) = self.model((images.clamp(0, 1) - mean) / std)
        found = found.flatten(1, 2) if self.is_channels_last else found.flatten(2).transpose(1, 2)
        if found.shape[1] != self.side**2:
            raise ValueError(f"{found.shape[1]} features of a picture: expected {self.side} x {self.side}")
        return found


def timm_features(name: str, weights: str | None, *, last: bool = False) -> Any:
    """A pretrained model of timm that gives its feature maps, or the last one alone, at any size.

    ValueError or FileNotFoundError, naming the remedy, when its weights are not there.
    """
    timm = require("timm", "image")
    if weights is not None and not Path(weights).expanduser().is_file():
        raise FileNotFoundError(f"{weights}: no such file; give the state dict of timm's {name}")
    overlay = None if weights is None else {"file": str(Path(weights).expanduser())}
    settings: dict[str, Any] = {"out_indices": (-1,)} if last else {}
    if name.startswith("vit_") or "_vit" in name:
        settings["dynamic_img_size"] = True
    try:
        return timm.create_model(
            name, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay, **settings
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"timm's {name} does not load ({error}): give the file of its state dict, or leave out the term "
            "of the loss that asks for it"
        ) from error
