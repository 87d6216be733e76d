"""The decoder of Vocos (Siuzdak 2023, arXiv 2306.00814) as WavTokenizer has it: at one frame rate throughout.

Residual blocks and attention see the whole item; ConvNeXt blocks and an inverse Fourier transform make sound.
Source: jishengpeng/WavTokenizer, decoder/models.py and decoder/modules.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..zoo.config import check_range
from .istft import IstftHead

GROUPS = 32
EPSILON = 1e-6


@dataclass(frozen=True)
class VocosConfig:
    """Sizes of the decoder.

    width       features D of a frame, a multiple of 32
    inner       features inside a ConvNeXt block
    layers      number of ConvNeXt blocks
    conditions  rows of scales and shifts in each norm, of which the first is used
    n_fft       window of the inverse Fourier transform, in samples
    """

    width: int = 768
    inner: int = 2304
    layers: int = 12
    conditions: int = 4
    n_fft: int = 1280

    def __post_init__(self) -> None:
        check_range("width", self.width, GROUPS, 8192)
        check_range("inner", self.inner, 1, 1 << 16)
        check_range("layers", self.layers, 1, 256)
        check_range("conditions", self.conditions, 1, 1024)
        check_range("n_fft", self.n_fft, 2, 1 << 16)
        if self.width % GROUPS:
            raise ValueError(f"width={self.width}: expected a multiple of {GROUPS}")


class VocosDecoder(nn.Module):
    """Latents to sound, one hop a frame.

    latent_dim   features of a latent
    hop_samples  samples of a frame
    """

    def __init__(self, config: VocosConfig, latent_dim: int, hop_samples: int) -> None:
        super().__init__()
        self.backbone = VocosBackbone(config, latent_dim)
        self.head = IstftHead(config.width, config.n_fft, hop_samples)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, latent_dim, N) float, N of at least 1 -> (B, 1, N * hop) float, unclamped."""
        return self.head(self.backbone(latents))


class VocosBackbone(nn.Module):
    """Latents to the features that the head reads: (B, latent_dim, N) float -> (B, N, width) float."""

    def __init__(self, config: VocosConfig, latent_dim: int) -> None:
        super().__init__()
        width = config.width
        self.embed = nn.Conv1d(latent_dim, width, 7, padding=3)
        self.norm = ConditionedNorm(config.conditions, width)
        self.convnext = nn.Sequential(*(ConvNextBlock(config) for _ in range(config.layers)))
        self.final_layer_norm = nn.LayerNorm(width, eps=EPSILON)
        # The official order of initialisation: what follows keeps torch's own.
        self.apply(_initialise)
        self.pos_net = nn.Sequential(
            ResnetBlock(width),
            ResnetBlock(width),
            AttentionBlock(width),
            ResnetBlock(width),
            ResnetBlock(width),
            nn.GroupNorm(GROUPS, width, eps=EPSILON),
        )

    def forward(self, latents: Tensor) -> Tensor:
        frames = self.pos_net(self.embed(latents)).transpose(1, 2)
        return self.final_layer_norm(self.convnext(self.norm(frames)))


class ResnetBlock(nn.Module):
    """Two convolutions over time with a shortcut: (B, width, N) -> (B, width, N).

    The group norms take their statistics over the whole item. X-Codec 2 has these blocks too.
    """

    def __init__(self, width: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width, eps=EPSILON)
        self.conv1 = nn.Conv1d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, width, eps=EPSILON)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(frames)))
        return frames + self.conv2(self.dropout(functional.silu(self.norm2(hidden))))


class AttentionBlock(nn.Module):
    """Attention of one head over the whole item, with a shortcut: (B, width, N) -> (B, width, N)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=EPSILON)
        self.q = nn.Conv1d(width, width, 1)
        self.k = nn.Conv1d(width, width, 1)
        self.v = nn.Conv1d(width, width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, frames: Tensor) -> Tensor:
        normed = self.norm(frames).transpose(1, 2)
        # (B, 1 head, N, width), each row in one piece: of a single frame CUDA's kernels refuse any other.
        query, key, value = (
            functional.linear(normed, part.weight[:, :, 0], part.bias)[:, None]
            for part in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return frames + self.proj_out(mixed[:, 0].transpose(1, 2))


class ConvNextBlock(nn.Module):
    """A depthwise convolution and a wide layer of each frame: (B, N, width) -> (B, N, width)."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        width = config.width
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = ConditionedNorm(config.conditions, width)
        self.pwconv1 = nn.Linear(width, config.inner)
        self.pwconv2 = nn.Linear(config.inner, width)
        self.gamma = nn.Parameter(torch.full((width,), 1 / config.layers))

    def forward(self, frames: Tensor) -> Tensor:
        mixed = self.dwconv(frames.transpose(1, 2)).transpose(1, 2)
        hidden = functional.gelu(self.pwconv1(self.norm(mixed)))
        return frames + self.gamma * self.pwconv2(hidden)


class ConditionedNorm(nn.Module):
    """Layer norm whose scale and shift are one row of a table: (..., width) -> (..., width).

    The rows stood for the bitrates of the codec that Vocos decoded. WavTokenizer has one bitrate and uses
    row 0; the others are kept because the checkpoints hold them.
    """

    def __init__(self, conditions: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(conditions, width))
        self.shift = nn.Parameter(torch.zeros(conditions, width))

    def forward(self, frames: Tensor) -> Tensor:
        return functional.layer_norm(frames, frames.shape[-1:], self.scale[0], self.shift[0], EPSILON)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
