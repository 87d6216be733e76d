"""What a reconstructed image is trained to be: close in pixels, and close in the features of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..zoo.objective import Objective, QuantizerLoss, Step
from ..zoo.optional import require
from .lpips import LpipsHeads
from .teacher import IMAGENET_MEAN, IMAGENET_STD, timm_features
from .torch_files import read_tensors

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
    lpips                file of the heads of LPIPS for vgg16, alexnet or squeezenet1_1; without it all
                         channels count alike

    None for `mse` and `quantizer` is what the family says (`ImageTokenizer.loss_defaults`), else 1: 1e-6 for
    the divergence of continuous tokenizers, and no pixels where a flow is trained.
    """

    l1: float = 0.0
    mse: float | None = None
    log_mse: float = 0.0
    perceptual: float = 0.0
    quantizer: float | None = None
    perceptual_backbone: str = "mobilenet_v2"
    perceptual_weights: str | None = None
    lpips: str | None = None

    def __post_init__(self) -> None:
        for name in ("l1", "mse", "log_mse", "perceptual", "quantizer"):
            weight = getattr(self, name)
            if weight is not None and not weight >= 0:
                raise ValueError(f"weight of {name} is {weight}: expected at least 0")

    def settled(self, defaults: Mapping[str, float]) -> LossWeights:
        """Without None: a weight that is not said is that of `defaults`, else 1."""
        open_ones = [name for name in ("mse", "quantizer") if getattr(self, name) is None]
        return replace(self, **{name: defaults.get(name, 1.0) for name in open_ones})

    @property
    def of_pixels(self) -> list[str]:
        """The terms that compare pixels, of those that are not left out."""
        return [name for name in ("l1", "mse", "log_mse", "perceptual") if getattr(self, name)]


class PixelError(Objective):
    """Mean absolute error of pixels."""

    name = "l1"

    def forward(self, step: Step) -> Tensor:
        return (step.rebuilt.float() - step.signal.float()).abs().mean()


class SquaredError(Objective):
    """Mean squared error of pixels."""

    name = "mse"

    def forward(self, step: Step) -> Tensor:
        return squared_errors(step).mean()


class LogSquaredError(Objective):
    """What PSNR measures: the logarithm of each picture's squared error, every picture counting alike."""

    name = "log_mse"

    def forward(self, step: Step) -> Tensor:
        return (squared_errors(step) + _LOG_FLOOR).log().mean()


class PerceptualError(Objective):
    """`PerceptualLoss` of a backbone whose weights are read when training starts."""

    name = "perceptual"

    def __init__(self, weight: float, backbone: str, weights: str | None, lpips: str | None) -> None:
        super().__init__(weight)
        self._source = (backbone, weights, lpips)
        # In a tuple it is no submodule: its weights stay out of checkpoints and out of `parameters()`.
        self._loss: tuple[PerceptualLoss, ...] = ()

    def prepare(self, module: Any) -> None:
        self._loss = (PerceptualLoss(*self._source).to(module.device),)

    def forward(self, step: Step) -> Tensor:
        (loss,) = self._loss
        return loss(step.rebuilt, step.signal)


def image_objectives(weights: LossWeights) -> list[Objective]:
    """The terms of these weights that are not 0, and the quantizer's own."""
    weights = weights.settled({})
    backbone = (weights.perceptual_backbone, weights.perceptual_weights, weights.lpips)
    terms = [
        PixelError(weights.l1),
        SquaredError(weights.mse or 0.0),
        LogSquaredError(weights.log_mse),
        PerceptualError(weights.perceptual, *backbone),
    ]
    # That one stays at weight 0: without it DDP would miss the gradients of codebooks.
    return [*(term for term in terms if term.weight), QuantizerLoss(weights.quantizer or 0.0)]


def squared_errors(step: Step) -> Tensor:
    """(B,) mean squared error of each picture, in float32."""
    return (step.rebuilt.float() - step.signal.float()).square().flatten(1).mean(1)


class PerceptualLoss(nn.Module):
    """Squared distance of a frozen classifier's features, each position at length 1, mean over scales.

    After LPIPS (Zhang et al. 2018, arXiv 1801.03924), without its learned weights of channels. Features are
    taken before each halving of the resolution, down to 1/16. With the heads of LPIPS it is LPIPS itself.

    backbone  a model of torchvision with `.features`, or "timm/NAME"
    weights   file of its state dict
    lpips     file of the heads; see `LpipsHeads`

    ValueError or OSError, naming the remedy, when the weights are not there: features are never random.
    """

    def __init__(self, backbone: str, weights: str | None, lpips: str | None = None) -> None:
        super().__init__()
        self.heads = None if lpips is None else LpipsHeads(backbone, lpips)
        if backbone.startswith(_TIMM):
            self.backbone = _timm_features(backbone.removeprefix(_TIMM), weights)
        else:
            taps = None if self.heads is None else self.heads.taps
            self.backbone = _TorchvisionFeatures(backbone, weights, taps)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stays in eval mode: batch statistics must not move."""
        return super().train(False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """() distance of (B, 3, H, W) images from targets in [0, 1]; no gradient reaches the targets."""
        seen = self._features(images)
        with torch.no_grad():
            wanted = self._features(targets)
        if self.heads is not None:
            return self.heads(seen, wanted).mean()
        distances = [(_unit(a) - _unit(b)).square().sum(1).mean() for a, b in zip(seen, wanted, strict=True)]
        return torch.stack(distances).mean()

    def _features(self, images: Tensor) -> Sequence[Tensor]:
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return self.backbone((images - mean) / std)


class _TorchvisionFeatures(nn.Module):
    """The last map of each resolution down to 1/16 of a `.features` sequence, or those after given layers."""

    def __init__(self, name: str, weights: str | None, taps: Sequence[int] | None = None) -> None:
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
        self.taps = taps

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image
        maps: list[Tensor] = []
        if self.taps is not None:
            for place, layer in enumerate(self.layers[: self.taps[-1] + 1]):
                x = layer(x)
                if place in self.taps:
                    maps.append(x)
            return maps
        for layer in self.layers:
            before, x = x, layer(x)
            if x.shape[-1] < before.shape[-1] and before is not image:
                maps.append(before)
            if x.shape[-1] * 16 < image.shape[-1]:
                return maps
        return [*maps, x]


def _timm_features(name: str, weights: str | None) -> nn.Module:
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(_no_file(name, weights))
    return timm_features(name, weights)


def _load_state(model: nn.Module, weights: str, name: str) -> None:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(_no_file(name, weights))
    state = read_tensors(path, f"the state dict of {name}")
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
