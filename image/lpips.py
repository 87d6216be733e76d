"""LPIPS proper (Zhang et al. 2018, arXiv 1801.03924): distances of features, weighed as people weigh them.

Source: richzhang/PerceptualSimilarity, lpips 0.1: three backbones of torchvision, and for each the heads that
were fitted to judgements (weights/v0.1/vgg.pth and so on, a few kilobytes).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from .torch_files import read_tensors

# Layers of torchvision's `.features` after which the official code looks.
TAPS = {
    "alexnet": (1, 4, 7, 9, 11),
    "squeezenet1_1": (1, 4, 7, 9, 10, 11, 12),
    "vgg16": (3, 8, 15, 22, 29),
}


class LpipsHeads(nn.Module):
    """The weights of channels at each tap: maps of two images to their distance.

    ValueError when the file holds no heads, or those of another backbone.
    """

    def __init__(self, backbone: str, file: str) -> None:
        super().__init__()
        if backbone not in TAPS:
            raise ValueError(f"lpips of {backbone!r}: there are heads for {', '.join(TAPS)}")
        self.taps = TAPS[backbone]
        state = read_tensors(Path(file).expanduser(), "the heads of LPIPS")
        names = [f"lin{place}.model.1.weight" for place in range(len(self.taps))]
        if sorted(state) != sorted(names):
            raise ValueError(
                f"{file} holds {', '.join(sorted(state)[:4])}: expected the heads of {backbone}, "
                f"{', '.join(names)}"
            )
        for place, name in enumerate(names):
            self.register_buffer(f"head{place}", state[name].float())

    def forward(self, seen: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """(B,) sum over taps of the mean over places; maps (B, C, h, w)."""
        found = []
        for place, (one, other) in enumerate(zip(seen, wanted, strict=True)):
            error = (_unit(one) - _unit(other)).square()
            found.append((error * self.get_buffer(f"head{place}")).sum(1).mean((1, 2)))
        return torch.stack(found).sum(0)


def _unit(features: Tensor) -> Tensor:
    features = features.float()
    # The root before the small number is added, as officially; a map of zeros must not make NaN gradients.
    norm = features.square().sum(1, keepdim=True).clamp(min=1e-20).sqrt()
    return features / (norm + 1e-10)
