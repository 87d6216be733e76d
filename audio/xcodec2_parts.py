"""The networks of X-Codec 2: a semantic and an acoustic encoder side by side, a transformer that makes sound.

Source: xcodec2 0.1.5, modeling_xcodec2.py and vq/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.attention import attention
from .bigcodec_parts import AliasFreeEncoder
from .istft import IstftHead
from .vocos import ResnetBlock
from .w2v_bert import W2vBert

if TYPE_CHECKING:
    from .xcodec2 import DecoderSize, XCodec2Config

NORM_EPS = 1e-6
# Windows of the inverse Fourier transform are so many hops long.
HOPS_PER_WINDOW = 4


class XCodec2Encoder(nn.Module):
    """Sound and its log-mel features to latents: (B, 1, N * hop) and (B, N, 160) float -> (B, D, N) float.

    What is said comes from w2v-BERT, which the official training leaves as it is; how it sounds from
    convolutions.
    """

    def __init__(self, config: XCodec2Config) -> None:
        super().__init__()
        self.semantic = W2vBert(config.semantic).requires_grad_(False)
        self.adapter = SemanticAdapter(config.semantic.width)
        self.acoustic = AliasFreeEncoder(
            config.acoustic_channels, config.acoustic_strides, config.acoustic_features
        )
        self.mix = nn.Linear(config.features, config.features)

    def forward(self, sound: Tensor, features: Tensor) -> Tensor:
        semantic = self.adapter(self.semantic(features).transpose(1, 2))
        both = torch.cat([semantic, self.acoustic(sound)], dim=1)
        return self.mix(both.transpose(1, 2)).transpose(1, 2)


class SemanticAdapter(nn.Module):
    """(B, W, N) float -> (B, W, N) float: four convolutions, the middle two residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv1d(width, width, 3, padding=1, bias=False)
        self.conv1 = nn.Conv1d(width, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1)
        self.conv_out = nn.Conv1d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # The official ReLU works in place, so that the shortcut carries what comes out of it.
        x = F.relu(self.conv_in(x))
        return self.conv_out(x + self.conv2(F.relu(self.conv1(x))))


class XCodec2Decoder(nn.Module):
    """Quantized latents to sound: (B, D, N) float -> (B, 1, N * hop) float, unclamped.

    Attention sees the whole item, and the group norms take their statistics over it.
    """

    def __init__(self, size: DecoderSize, features: int, hop_samples: int) -> None:
        super().__init__()
        width = size.width
        self.project = nn.Linear(features, width)
        self.conv_in = nn.Conv1d(width, width, 7, padding=3)
        self.before = nn.Sequential(ResnetBlock(width), ResnetBlock(width))
        self.layers = nn.Sequential(*(DecoderLayer(size) for _ in range(size.layers)))
        self.after = nn.Sequential(ResnetBlock(width), ResnetBlock(width))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = IstftHead(width, HOPS_PER_WINDOW * hop_samples, hop_samples)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.before(self.conv_in(self.project(latents.transpose(1, 2)).transpose(1, 2)))
        x = self.after(self.layers(x.transpose(1, 2)).transpose(1, 2))
        return self.head(self.norm(x.transpose(1, 2)))


class DecoderLayer(nn.Module):
    """RMS norm, attention, RMS norm, MLP; each half residual. (B, N, W) float -> (B, N, W) float.

    The official code turns queries and keys by rotary embeddings, but by the number of the head instead of
    the position. Both are turned alike then, their products stay what they were, and nothing is turned here.
    """

    def __init__(self, size: DecoderSize) -> None:
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.attention_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.RMSNorm(width, eps=NORM_EPS),
            nn.Linear(width, size.hidden, bias=False),
            nn.SiLU(),
            nn.Linear(size.hidden, width, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3)
        query, key, value = qkv.unbind(2)
        x = x + self.out(attention(query, key, value).transpose(1, 2).flatten(2))
        return x + self.mlp(x)
