"""What a reconstructed image is trained to be: close in pixels, and close in the features of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..zoo.optional import require

# Statistics of ImageNet's RGB, which every backbone of torchvision and most of timm were trained with.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_TIMM = "timm/"
_LOG_FLOOR = 1e-4


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; 0 leaves it out.

    l1, mse              mean absolute and squared error of pixels in [0, 1]
    log_mse              mean over items of log(mse + 1e-4): what PSNR measures, every picture counting alike
    perceptual           `PerceptualLoss`
    quantizer            the quantizer's own loss
    perceptual_backbone  a model of torchvision with `.features` (mobilenet_v2, vgg16, ...), or "timm/NAME"
    perceptual_weights   file of its state dict, .pth or .safetensors; without it timm asks the Hub
    """

    l1: float = 0.0
    mse: float = 1.0
    log_mse: float = 0.0
    perceptual: float = 0.0
    quantizer: float = 1.0
    perceptual_backbone: str = "mobilenet_v2"
    perceptual_weights: str | None = None

    def __post_init__(self) -> None:
        for name in ("l1", "mse", "log_mse", "perceptual", "quantizer"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"weight of {name} is {getattr(self, name)}: expected at least 0")


@dataclass(frozen=True, eq=False)
class LossTerms:
    """Scalars; `total` is the weighted sum without the quantizer's loss, `perceptual` None when left out."""

    total: Tensor
    mse: Tensor
    perceptual: Tensor | None


def reconstruction_loss(
    images: Tensor, targets: Tensor, weights: LossWeights, perceptual: PerceptualLoss | None = None
) -> LossTerms:
    """The weighted terms of (B, 3, H, W) images, not clamped, against targets in [0, 1], in float32."""
    difference = images.float() - targets.float()
    errors = difference.square().flatten(1).mean(1)
    mse = errors.mean()
    total = weights.mse * mse
    if weights.l1:
        total = total + weights.l1 * difference.abs().mean()
    if weights.log_mse:
        total = total + weights.log_mse * (errors + _LOG_FLOOR).log().mean()
    distance = None
    if perceptual is not None:
        distance = perceptual(images, targets)
        total = total + weights.perceptual * distance
    return LossTerms(total, mse.detach(), None if distance is None else distance.detach())


class PerceptualLoss(nn.Module):
    """Squared distance of a frozen classifier's features, each position at length 1, mean over scales.

    After LPIPS (Zhang et al. 2018, arXiv 1801.03924), without its learned weights of channels. Features are
    taken before each halving of the resolution, down to 1/16.

    backbone  a model of torchvision with `.features`, or "timm/NAME"
    weights   file of its state dict

    ValueError or OSError, naming the remedy, when the weights are not there: features are never random.
    """

    def __init__(self, backbone: str, weights: str | None) -> None:
        super().__init__()
        if backbone.startswith(_TIMM):
            self.backbone = _timm_features(backbone.removeprefix(_TIMM), weights)
        else:
            self.backbone = _TorchvisionFeatures(backbone, weights)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stays in eval mode: batch statistics must not move."""
        return super().train(False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """() distance of (B, 3, H, W) images from targets in [0, 1]; no gradient reaches the targets."""
        seen = self._features(images)
        with torch.no_grad():
            wanted = self._features(targets)
        distances = [(_unit(a) - _unit(b)).square().sum(1).mean() for a, b in zip(seen, wanted, strict=True)]
        return torch.stack(distances).mean()

    def _features(self, images: Tensor) -> Sequence[Tensor]:
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        return self.backbone((images - mean) / std)


class _TorchvisionFeatures(nn.Module):
    """The last map of each resolution down to 1/16 of a `.features` sequence."""

    def __init__(self, name: str, weights: str | None) -> None:
        super().__init__()
        models = require("torchvision.models", "image")
        if name not in models.list_models():
            raise ValueError(
                f"perceptual_backbone {name!r} is unknown to torchvision; for timm write timm/NAME"
            )
        if weights is None:
            raise ValueError(
                f"the perceptual loss needs weights of {name}: set perceptual_weights to the file of a "
                "torchvision state dict, or the weight of `perceptual` to 0"
            )
        model = models.get_model(name, weights=None)
        if not isinstance(getattr(model, "features", None), nn.Sequential):
            raise ValueError(f"perceptual_backbone {name!r} has no `.features`; try mobilenet_v2 or vgg16")
        _load_state(model, weights, name)
        self.layers = model.features

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image
        maps: list[Tensor] = []
        for layer in self.layers:
            before, x = x, layer(x)
            if x.shape[-1] < before.shape[-1] and before is not image:
                maps.append(before)
            if x.shape[-1] * 16 < image.shape[-1]:
                return maps
        return [*maps, x]


def _timm_features(name: str, weights: str | None) -> nn.Module:
    timm = require("timm", "image")
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(_no_file(name, weights))
    overlay = None if weights is None else {"file": weights}
    try:
        return timm.create_model(name, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"the perceptual loss cannot load timm's {name} ({error}): set perceptual_weights to the file of "
            "its state dict, or the weight of `perceptual` to 0"
        ) from error


def _load_state(model: nn.Module, weights: str, name: str) -> None:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(_no_file(name, weights))
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"perceptual_weights {weights} is not a state dict of {name}: {error}") from error


def _no_file(name: str, weights: str) -> str:
    return (
        f"perceptual_weights {weights}: no such file; give the state dict of {name}, or set the weight of "
        "`perceptual` to 0"
    )


def _unit(features: Tensor) -> Tensor:
    features = features.float()
    return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()
