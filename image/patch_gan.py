"""A discriminator of patches, for image tokenizers."""

from __future__ import annotations

from torch import Tensor, nn

from ..zoo.adversary import Discriminator, Judgement


class PatchGan(Discriminator):
    """Convolutions that judge overlapping patches of 70 pixels (with three layers), one logit each.

    channels  of the first layer; doubled at each of the next, up to eight times as many
    layers    with stride 2

    Source: pix2pix (Isola et al. 2016, arXiv 1611.07004), with group norm in place of batch norm, so that the
    judgement of an image depends on no other and processes need not agree on statistics.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList([_stage(3, channels, stride=2, norm=False)])
        width = channels
        for place in range(1, layers + 1):
            wider = channels * min(2**place, 8)
            self.stages.append(_stage(width, wider, stride=2 if place < layers else 1, norm=True))
            width = wider
        self.head = nn.Conv2d(width, 1, 4, padding=1)

    def forward(self, signal: Tensor) -> list[Judgement]:
        """(B, 3, H, W) in about [0, 1], at least 32 pixels high and wide, to logits (B, 1, h, w)."""
        features = [2 * signal - 1]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return [Judgement(self.head(features[-1]), features[1:])]


def _stage(inputs: int, outputs: int, *, stride: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 4, stride, padding=1)]
    if norm:
        layers.append(nn.GroupNorm(min(32, outputs), outputs))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))
