"""Whisper's encoder with the changes that the S3 tokenizers make to it: rotary positions, and a memory.

Source: openai/whisper, whisper/model.py; xingchensong/S3Tokenizer 0.3.0, model.py and model_v2.py.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.attention import attention
from ..zoo.transformer import MLP_RATIO, TransformerSize

ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class WhisperSize:
    """Sizes of the encoder.

    mels           bands of the spectrogram
    blocks         width, layers and heads of the transformer
    first_stride   of the first convolution; the second halves the frames again
    positions      rows of the table of positions that is added at the start; 0: rotary ones in every block
    memory_kernel  tokens that the memory beside each attention spans (an odd number); 0: no memory
    norm_eps       of the norm before each attention; the one before the MLP has 1e-5
    """

    mels: int
    blocks: TransformerSize
    first_stride: int
    positions: int
    memory_kernel: int
    norm_eps: float

    @property
    def stride(self) -> int:
        """Frames of the spectrogram for each vector that comes out."""
        return 2 * self.first_stride

    def count(self, frames: int) -> int:
        """Vectors that come out of so many frames."""
        halved = (frames + self.first_stride - 1) // self.first_stride
        return (halved + 1) // 2


class WhisperEncoder(nn.Module):
    """Log-mel spectrograms to vectors: two convolutions with GELU, then pre-norm blocks; no norm at the end.

    mel      (B, M, T) float; zeros after the shorter items
    frames   (B,) int64, how many of them belong to each item; None: all
    returns  (B, N, D) float, N = size.count(T); rows beyond size.count(frames) are meaningless, the others
             are what the item gives alone

    Raises ValueError for more vectors than there are rows in the table of positions.
    """

    def __init__(self, size: WhisperSize) -> None:
        super().__init__()
        width = size.blocks.width
        self.size = size
        self.conv1 = nn.Conv1d(size.mels, width, 3, stride=size.first_stride, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        if size.positions:
            self.register_buffer("positions", sinusoids(size.positions, width))
        self.blocks = nn.ModuleList(WhisperBlock(size) for _ in range(size.blocks.layers))

    def forward(self, mel: Tensor, frames: Tensor | None = None) -> Tensor:
        (last,) = collections.deque(self.each_block(mel, frames), maxlen=1)
        return last

    def each_block(self, mel: Tensor, frames: Tensor | None = None) -> Iterator[Tensor]:
        """What each block gives, one after another; see the class."""
        first, second = self.size.first_stride, 2
        x = F.gelu(self.conv1(_hide(mel, frames)))
        frames = None if frames is None else (frames + first - 1) // first
        x = F.gelu(self.conv2(_hide(x, frames))).transpose(1, 2)
        frames = None if frames is None else (frames + second - 1) // second
        count = x.shape[1]
        turns = None
        if self.size.positions:
            if count > self.size.positions:
                raise ValueError(
                    f"{count} vectors: this encoder knows {self.size.positions} positions; encode pieces"
                )
            x = x + self.positions[:count]  # pyright: ignore[reportIndexIssue]
        else:
            turns = rotary_turns(count, self.size.blocks.width // self.size.blocks.heads, x)
        keep = None if frames is None else torch.arange(count, device=x.device) < frames[:, None]
        for block in self.blocks:
            x = block(x, keep, turns)
            yield x


class WhisperBlock(nn.Module):
    """Pre-norm block: attention, then an MLP with exact GELU; each half residual.

    x      (B, N, D) float
    keep   (B, N) bool, True where a vector is there; None: everywhere
    turns  (2, N, head width) cosines and sines of rotary positions, or None
    """

    def __init__(self, size: WhisperSize) -> None:
        super().__init__()
        width = size.blocks.width
        self.norm1 = nn.LayerNorm(width, eps=size.norm_eps)
        self.attention = WhisperAttention(size)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, x: Tensor, keep: Tensor | None, turns: Tensor | None) -> Tensor:
        x = x + self.attention(self.norm1(x), keep, turns)
        return x + self.mlp(self.norm2(x))


class WhisperAttention(nn.Module):
    """Multi-head self-attention whose keys have no bias, and the memory of FSMN (arXiv 1512.08301) beside it.

    The memory is a convolution of each feature of the values over time, plus the values; it is added to what
    attention gives.
    """

    def __init__(self, size: WhisperSize) -> None:
        super().__init__()
        width, kernel = size.blocks.width, size.memory_kernel
        self.heads = size.blocks.heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.memory = None
        if kernel:
            self.memory = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)

    def forward(self, x: Tensor, keep: Tensor | None, turns: Tensor | None) -> Tensor:
        value = self.value(x)
        query, key, heads = (self._heads(each) for each in (self.query(x), self.key(x), value))
        if turns is not None:
            query, key = turned(query, turns), turned(key, turns)
        mixed = self.out(attention(query, key, heads, keep=keep).transpose(1, 2).flatten(-2))
        if self.memory is None:
            return mixed
        # Where nothing is, attention's result is read by nobody, but the convolution would read the values.
        told = value if keep is None else value * keep[..., None]
        return mixed + _remembered(told, self.memory) + told

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _remembered(x: Tensor, memory: nn.Conv1d) -> Tensor:
    """A convolution of each feature over time: (B, N, D) -> (B, N, D).

    It is taken as one of pictures a row high, features last: on a CPU that has a fast path, several times
    faster than a convolution of one dimension.
    """
    picture = x.transpose(1, 2).unsqueeze(2)
    padding = (0, memory.kernel_size[0] // 2)
    mixed = F.conv2d(picture, memory.weight.unsqueeze(2), padding=padding, groups=memory.groups)
    return mixed.squeeze(2).transpose(1, 2)


def sinusoids(positions: int, width: int) -> Tensor:
    """Whisper's table of positions: (positions, width) float32, sines then cosines."""
    rates = ROTARY_BASE ** -(torch.arange(width // 2) / max(width // 2 - 1, 1))
    angles = torch.arange(positions)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def rotary_turns(count: int, width: int, like: Tensor) -> Tensor:
    """Cosines and sines of the first `count` positions: (2, count, width), of the dtype and device of `like`.

    The angles of feature j and of feature j + width / 2 are the same.
    """
    rates = 1.0 / ROTARY_BASE ** (torch.arange(0, width, 2, device=like.device).float() / width)
    angles = torch.outer(torch.arange(count, device=like.device).float(), rates)
    return torch.stack([angles.cos(), angles.sin()]).repeat(1, 1, 2).to(like.dtype)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Rotary positions, each pair of features half a width apart: (B, H, N, D) -> the same."""
    cosine, sine = turns
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-right, left], dim=-1) * sine


def _hide(x: Tensor, frames: Tensor | None) -> Tensor:
    """(B, C, T) with zeros where an item has ended: a convolution must not read what padding became."""
    if frames is None:
        return x
    return x * (torch.arange(x.shape[2], device=x.device) < frames[:, None])[:, None]
