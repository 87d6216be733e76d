"""w2v-BERT 2.0 (Barrault et al. 2023, arXiv 2312.05187) as far as a layer: a conformer over log-mel features.

Source: transformers' Wav2Vec2BertModel. Written anew, because there every pair of positions costs a vector,
0.6 GB a layer for half a minute of sound; here it costs a number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..zoo.config import check_range

FEATURES = 160


@dataclass(frozen=True)
class W2vBertSize:
    """Sizes of the conformer.

    width, layers, heads, hidden  features, number of layers, attention heads, width inside the MLPs
    kernel                        of the causal convolution, in frames
    left, right                   farther to either side all distances count as this one
    """

    width: int = 1024
    layers: int = 16
    heads: int = 16
    hidden: int = 4096
    kernel: int = 31
    left: int = 64
    right: int = 8

    def __post_init__(self) -> None:
        check_range("width", self.width, 1, 16384)
        check_range("layers", self.layers, 1, 256)
        check_range("heads", self.heads, 1, 256)
        check_range("hidden", self.hidden, 1, 65536)
        check_range("kernel", self.kernel, 1, 1024)
        check_range("left", self.left, 0, 65536)
        check_range("right", self.right, 0, 65536)
        if self.width % self.heads:
            raise ValueError(f"width={self.width} with heads={self.heads}: expected a multiple of the heads")


class W2vBert(nn.Module):
    """Normalised log-mel features to hidden states: (B, N, 160) float -> (B, N, width) float."""

    def __init__(self, size: W2vBertSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(FEATURES)
        self.project = nn.Linear(FEATURES, size.width)
        self.layers = nn.ModuleList(ConformerLayer(size) for _ in range(size.layers))

    def forward(self, features: Tensor) -> Tensor:
        x = self.project(self.norm(features))
        for layer in self.layers:
            x = layer(x)
        return x


class ConformerLayer(nn.Module):
    """(B, N, W) float -> (B, N, W) float: half an MLP, attention, convolution, half an MLP, each residual."""

    def __init__(self, size: W2vBertSize) -> None:
        super().__init__()
        self.mlp1 = _mlp(size)
        self.attention_norm = nn.LayerNorm(size.width)
        self.attention = RelativeAttention(size)
        self.convolution = ConvolutionModule(size)
        self.mlp2 = _mlp(size)
        self.norm = nn.LayerNorm(size.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.mlp1(x)
        x = x + self.attention(self.attention_norm(x))
        x = x + self.convolution(x)
        return self.norm(x + 0.5 * self.mlp2(x))


class RelativeAttention(nn.Module):
    """Attention whose scores also hold a product of the query with a vector of the clipped distance
    (Shaw et al. 2018, arXiv 1803.02155). (B, N, W) float -> (B, N, W) float."""

    def __init__(self, size: W2vBertSize) -> None:
        super().__init__()
        self.heads, self.left, self.right = size.heads, size.left, size.right
        self.query, self.key, self.value, self.out = (nn.Linear(size.width, size.width) for _ in range(4))
        self.distances = nn.Embedding(size.left + size.right + 1, size.width // size.heads)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        bias = self._of_distances(query * query.shape[-1] ** -0.5)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _of_distances(self, query: Tensor) -> Tensor:
        """(B, H, N, D) queries -> (B, H, N, N): each with the vector of its distance to every key."""
        places = torch.arange(query.shape[2], device=query.device)
        distance = (places - places[:, None]).clamp(-self.left, self.right) + self.left
        each = query @ self.distances.weight.T
        return each.gather(-1, distance.expand(*each.shape[:2], -1, -1))


class ConvolutionModule(nn.Module):
    """A causal depthwise convolution behind a gate: (B, N, W) float -> (B, N, W) float."""

    def __init__(self, size: W2vBertSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width)
        self.gate = nn.Conv1d(size.width, 2 * size.width, 1, bias=False)
        self.depthwise = nn.Conv1d(size.width, size.width, size.kernel, groups=size.width, bias=False)
        self.depthwise_norm = nn.LayerNorm(size.width)
        self.out = nn.Conv1d(size.width, size.width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.gate(self.norm(x).transpose(1, 2)), dim=1)
        x = self.depthwise(F.pad(x, (self.depthwise.kernel_size[0] - 1, 0)))
        x = F.silu(self.depthwise_norm(x.transpose(1, 2)))
        return self.out(x.transpose(1, 2)).transpose(1, 2)


def _mlp(size: W2vBertSize) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(size.width),
        nn.Linear(size.width, size.hidden),
        nn.SiLU(),
        nn.Linear(size.hidden, size.width),
    )
