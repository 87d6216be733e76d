"""Losses by hand, and a perceptual loss that is never made of random features."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tokenzoo.image.losses import LossWeights, PerceptualLoss, image_objectives
from tokenzoo.image.titok import TiTok
from tokenzoo.zoo.objective import Step
from tokenzoo.zoo.quantizer import Quantized


def terms_of(weights: LossWeights, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Every term by name, unweighted; the quantizer's is 7."""
    quantized = Quantized(torch.zeros(1), torch.zeros(1), torch.tensor(7.0), None)
    step = Step(targets, images, quantized, TiTok.__new__(TiTok))
    found = {}
    for term in image_objectives(weights):
        term.prepare(SimpleNamespace(device=torch.device("cpu")))
        found[term.name] = term(step)
    return found


def test_the_terms_by_hand() -> None:
    targets = torch.zeros(2, 3, 4, 4)
    images = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 0.1)])
    terms = terms_of(LossWeights(l1=1.0, mse=2.0, log_mse=0.5), images, targets)
    logs = (math.log(0.25 + 1e-4) + math.log(0.01 + 1e-4)) / 2
    expected = {"l1": 0.3, "mse": 0.13, "log_mse": logs, "quantizer": 7.0}
    assert terms.keys() == expected.keys()
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A state dict of torchvision's SqueezeNet, random: what matters here is that it is read."""
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet.pth")
    return tmp_path / "squeezenet.pth"


def test_features_come_from_the_file(weights: Path, tmp_path: Path) -> None:
    loss = PerceptualLoss("squeezenet1_1", str(weights))
    images, targets = torch.rand(2, 3, 64, 64, requires_grad=True), torch.rand(2, 3, 64, 64)
    assert float(loss(targets, targets)) == 0
    distance = loss(images, targets)
    distance.backward()
    assert distance.item() > 0 and images.grad is not None and images.grad.abs().sum() > 0
    assert not loss.train().training and not any(p.requires_grad for p in loss.parameters())

    from safetensors.torch import save_file

    state = torch.load(weights, weights_only=True)
    save_file(state, tmp_path / "same.safetensors")
    again = PerceptualLoss("squeezenet1_1", str(tmp_path / "same.safetensors"))
    assert torch.equal(again(images, targets), distance)


def test_the_perceptual_term_reads_its_weights(weights: Path) -> None:
    images, targets = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    asked = LossWeights(
        mse=0.0, perceptual=3.0, perceptual_backbone="squeezenet1_1", perceptual_weights=str(weights)
    )
    terms = terms_of(asked, images, targets)
    assert terms.keys() == {"perceptual", "quantizer"}
    loss = PerceptualLoss("squeezenet1_1", str(weights))
    assert torch.equal(terms["perceptual"], loss(images, targets))


def test_missing_weights_name_the_remedy(weights: Path, tmp_path: Path) -> None:
    remedy = "or (set )?the weight of `perceptual` to 0"
    with pytest.raises(
        ValueError, match=f"needs weights of mobilenet_v2: set perceptual_weights to .*{remedy}"
    ):
        PerceptualLoss("mobilenet_v2", None)
    with pytest.raises(FileNotFoundError, match=f"nowhere.pth: no such file; .*mobilenet_v2, {remedy}"):
        PerceptualLoss("mobilenet_v2", str(tmp_path / "nowhere.pth"))
    with pytest.raises(ValueError, match=r"squeezenet\.pth is not a state dict of mobilenet_v2"):
        PerceptualLoss("mobilenet_v2", str(weights))
    with pytest.raises(ValueError, match="'mobilenet' is unknown to torchvision"):
        PerceptualLoss("mobilenet", str(weights))
    with pytest.raises(ValueError, match=r"'resnet18' has no `\.features`"):
        PerceptualLoss("resnet18", str(weights))


def test_timm_backbones_need_their_file(tmp_path: Path) -> None:
    import timm

    with pytest.raises(FileNotFoundError, match="no such file; give the state dict of resnet10t"):
        PerceptualLoss("timm/resnet10t", str(tmp_path / "nowhere.pth"))
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "resnet.pth")
    loss = PerceptualLoss("timm/resnet10t", str(tmp_path / "resnet.pth"))
    images, targets = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    again = PerceptualLoss("timm/resnet10t", str(tmp_path / "resnet.pth"))
    assert float(loss(images, targets)) == float(again(images, targets)) > 0
    assert isinstance(loss.backbone, nn.Module)
