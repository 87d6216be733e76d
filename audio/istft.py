"""From features to a waveform by the inverse short-time Fourier transform (Vocos, arXiv 2306.00814).

The padding is the one that vocoders call "same": N frames give exactly N hops of sound.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..kernels.precision import without_autocast, working_dtype

# Of a magnitude: exp may overflow early in training.
MAX_MAGNITUDE = 1e2


class IstftHead(nn.Module):
    """Features of a frame to its log magnitudes and phases, and these to sound.

    dim          width D of the features
    n_fft        size of a frame's window, even
    hop_samples  samples between frames; n_fft - hop_samples is even

    Source: gemelo-ai/vocos, ISTFTHead, which WavTokenizer and X-Codec 2 have too. Tensors `out.weight`,
    `out.bias` and `istft.window`, as there.
    """

    def __init__(self, dim: int, n_fft: int, hop_samples: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, n_fft + 2)
        self.istft = InverseStft(n_fft, hop_samples)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, D) float -> (B, 1, N * hop) float, unclamped, in the dtype of the features."""
        polar = self.out(features)
        with without_autocast(polar.device):
            polar = polar.to(working_dtype(polar))
            log_magnitude, phase = polar.chunk(2, dim=-1)
            sound = self.istft(torch.polar(log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase))
        return sound[:, None].to(features.dtype)


class InverseStft(nn.Module):
    """Frames of a spectrum to sound, by overlap-add with a Hann window.

    n_fft        size of the window, even
    hop_samples  samples between frames, at most half a window

    `torch.istft` with `center` drops the first half window, and without it refuses windows that begin at
    zero; so the sum is taken here, and (n_fft - hop) / 2 samples are cut off at each end.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop_samples: int) -> None:
        super().__init__()
        check_window(n_fft, hop_samples)
        self.n_fft = n_fft
        self.hop_samples = hop_samples
        # A buffer of the state dict, because the official checkpoints hold it.
        self.register_buffer("window", torch.hann_window(n_fft))

    def forward(self, spectrum: Tensor) -> Tensor:
        """(B, N, n_fft / 2 + 1) complex, N of at least 1 -> (B, N * hop) float."""
        frames = torch.fft.irfft(spectrum, self.n_fft)
        window = self.window.to(frames.dtype)
        weight = self._overlap_add(window.square().expand(1, frames.shape[1], -1))
        return self._overlap_add(frames * window) / weight

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(B, N, n_fft) -> (B, N * hop): the sum of the shifted frames, without the ends."""
        cut = (self.n_fft - self.hop_samples) // 2
        length = (frames.shape[1] - 1) * self.hop_samples + self.n_fft
        kernel, stride = (1, self.n_fft), (1, self.hop_samples)
        total = functional.fold(frames.transpose(1, 2), (1, length), kernel, stride=stride)
        return total[:, 0, 0, cut : length - cut]


def check_window(n_fft: int, hop_samples: int) -> None:
    """ValueError unless frames of n_fft samples, hop_samples apart, overlap enough and evenly."""
    if n_fft % 2 or hop_samples % 2 or not 0 < hop_samples <= n_fft // 2:
        raise ValueError(
            f"n_fft={n_fft}, hop_samples={hop_samples}: expected an even window, and an even hop of at most "
            "half of it"
        )
