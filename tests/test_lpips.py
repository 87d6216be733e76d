"""LPIPS with its heads: the formula by hand, and heads that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokenzoo.image.losses import LossWeights, PerceptualLoss
from tokenzoo.image.lpips import TAPS, LpipsHeads

from .test_losses import terms_of

WIDTHS = (64, 128, 256, 384, 384, 512, 512)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """SqueezeNet and heads for it, both random: what matters here is the formula."""
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet.pth")
    heads = {f"lin{place}.model.1.weight": torch.rand(1, width, 1, 1) for place, width in enumerate(WIDTHS)}
    torch.save(heads, tmp_path / "squeeze.pth")
    return tmp_path / "squeezenet.pth", tmp_path / "squeeze.pth"


def by_hand(images: Tensor, targets: Tensor, backbone: Path, heads: Path) -> Tensor:
    """As the paper's equation 1 and the official scaling have it, layer by layer."""
    from torchvision import models

    model = models.squeezenet1_1(weights=None).eval()
    model.load_state_dict(torch.load(backbone, weights_only=True))
    weights = torch.load(heads, weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    one, other = ((2 * each - 1 - shift) / scale for each in (images, targets))
    total = torch.zeros(len(images))
    for place, layer in enumerate(model.features):
        one, other = layer(one), layer(other)
        if place in TAPS["squeezenet1_1"]:
            head = weights[f"lin{TAPS['squeezenet1_1'].index(place)}.model.1.weight"]
            unit = [each / (each.square().sum(1, keepdim=True).sqrt() + 1e-10) for each in (one, other)]
            total = total + ((unit[0] - unit[1]).square() * head).sum(1).mean((1, 2))
    return total.mean()


def test_the_formula_by_hand(files: tuple[Path, Path]) -> None:
    backbone, heads = files
    loss = PerceptualLoss("squeezenet1_1", str(backbone), str(heads))
    images, targets = torch.rand(2, 3, 64, 64, requires_grad=True), torch.rand(2, 3, 64, 64)
    distance = loss(images, targets)
    torch.testing.assert_close(distance, by_hand(images, targets, backbone, heads), rtol=1e-4, atol=1e-6)
    assert float(loss(targets, targets)) == 0
    distance.backward()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad.any()
    flat = torch.zeros(1, 3, 64, 64, requires_grad=True)
    loss(flat, targets[:1]).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def test_a_recipe_asks_for_it(files: tuple[Path, Path]) -> None:
    backbone, heads = files
    asked = LossWeights(
        mse=0.0,
        perceptual=1.0,
        perceptual_backbone="squeezenet1_1",
        perceptual_weights=str(backbone),
        lpips=str(heads),
    )
    images, targets = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    expected = by_hand(images, targets, backbone, heads)
    torch.testing.assert_close(terms_of(asked, images, targets)["perceptual"], expected, rtol=1e-4, atol=1e-6)


def test_heads_that_do_not_fit_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    backbone, heads = files
    with pytest.raises(
        ValueError, match="lpips of 'mobilenet_v2': there are heads for alexnet, squeezenet1_1"
    ):
        LpipsHeads("mobilenet_v2", str(heads))
    with pytest.raises(ValueError, match="expected the heads of vgg16, lin0"):
        LpipsHeads("vgg16", str(heads))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such file; give the heads of LPIPS"):
        PerceptualLoss("squeezenet1_1", str(backbone), str(tmp_path / "nowhere.pth"))
