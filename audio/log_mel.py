"""The log-mel spectrogram of Whisper: what speech encoders of its line listen to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.precision import without_autocast, working_dtype
from ..zoo.config import check_range

# Slaney's scale: linear to 1 kHz, 3 mels to 200 Hz; logarithmic above, 27 mels for a factor of 6.4.
LINEAR_HZ = 200 / 3
BREAK_HZ = 1000.0
LOG_STEP = math.log(6.4) / 27
# Whisper's: power below this counts as this, and so does all that lies 80 dB under the loudest.
FLOOR = 1e-10
RANGE_DECADES = 8.0
# Frames transformed at once, 30 s at 100 a second: the spectrum of an hour would take gigabytes.
BLOCK_FRAMES = 3000


@dataclass(frozen=True)
class LogMel:
    """Whisper's log-mel spectrogram, weightless.

    sample_rate_hz  of the sound
    mels            M bands of Slaney's scale, up to half the sample rate
    window          samples of a frame (Hann), an even number
    hop             samples from one frame to the next, less than half a window

    Source: openai/whisper, whisper/audio.py, log_mel_spectrogram; the filters are computed, not shipped.
    """

    sample_rate_hz: int = 16_000
    mels: int = 128
    window: int = 400
    hop: int = 160

    def __post_init__(self) -> None:
        check_range("sample_rate_hz", self.sample_rate_hz, 1, 768_000)
        check_range("mels", self.mels, 1, 1024)
        check_range("window", self.window, 4, 1 << 16)
        check_range("hop", self.hop, 1, self.window // 2 - 1)
        if self.window % 2:
            raise ValueError(f"window={self.window}: expected an even number")

    @property
    def border(self) -> int:
        """Samples that are mirrored at each end, so that a frame stands around its place."""
        return self.window // 2

    @property
    def min_samples(self) -> int:
        """The shortest sound that can be mirrored."""
        return self.border + 1

    def frames(self, samples: int) -> int:
        """Frames of so many samples; Whisper drops the last, which is not full."""
        return samples // self.hop

    def __call__(self, sound: Tensor) -> Tensor:
        """The spectrogram of whole sounds, each by itself.

        sound    (..., S) float in [-1, 1]
        returns  (..., M, S // hop) float32 or wider, about -1 ... 1.5. Pad a batch afterwards, with zeros:
                 what lies 80 dB under the loudest of an item counts as that

        Raises ValueError for a sound too short to be mirrored.
        """
        samples = sound.shape[-1]
        if samples < self.min_samples:
            raise ValueError(
                f"sound of {samples} samples: its log-mel spectrogram mirrors {self.border} at each end, so "
                f"{self.min_samples} or more are needed; put silence after it"
            )
        flat = F.pad(sound.reshape(-1, samples), (self.border, self.border), mode="reflect")
        mel = self.scaled(self.decades(flat)[..., : self.frames(samples)])
        return mel.reshape(*sound.shape[:-1], *mel.shape[1:])

    def decades(self, sound: Tensor) -> Tensor:
        """log10 of the mel power of all frames that fit, from the first sample on: (B, S) -> (B, M, F)."""
        with without_autocast(sound.device):
            sound = sound.to(working_dtype(sound))
            filters = mel_filters(self.sample_rate_hz, self.window, self.mels).to(sound)
            hann = torch.hann_window(self.window, dtype=sound.dtype, device=sound.device)
            frames, blocks = max(0, (sound.shape[1] - self.window) // self.hop + 1), []
            for start in range(0, frames, BLOCK_FRAMES):
                end = min(start + BLOCK_FRAMES, frames) - 1
                some = sound[:, start * self.hop : end * self.hop + self.window]
                spectrum = torch.stft(
                    some, self.window, self.hop, window=hann, center=False, return_complex=True
                )
                # abs() ** 2, as the official code has it: the last bit of real^2 + imag^2 is another.
                blocks.append((filters @ spectrum.abs() ** 2).clamp(min=FLOOR).log10())
            return torch.cat(blocks, dim=-1) if blocks else sound.new_zeros(len(sound), self.mels, 0)

    def scaled(self, decades: Tensor, loudest: Tensor | None = None) -> Tensor:
        """Decades (B, M, F) as Whisper scales them; loudest (B, 1, 1) of each item, by default in these."""
        if decades.shape[-1]:
            loudest = decades.amax(dim=(1, 2), keepdim=True) if loudest is None else loudest
            decades = torch.maximum(decades, loudest - RANGE_DECADES)
        return (decades + 4) / 4


@lru_cache(maxsize=8)
def mel_filters(sample_rate_hz: int, window: int, mels: int) -> Tensor:
    """Triangles of equal area on Slaney's scale: (mels, window // 2 + 1) float32, for power spectra.

    As librosa.filters.mel with its defaults; computed in float64, on the CPU.
    """
    with torch.inference_mode(False), torch.device("cpu"):  # the cached must also do for a call that learns
        edges = _hz(torch.linspace(0, _mel(sample_rate_hz / 2), mels + 2, dtype=torch.float64))
        bins = torch.linspace(0, sample_rate_hz / 2, window // 2 + 1, dtype=torch.float64)
        widths = edges.diff()[:, None]
        rising = (bins - edges[:-2, None]) / widths[:-1]
        falling = (edges[2:, None] - bins) / widths[1:]
        triangles = torch.minimum(rising, falling).clamp(min=0)
        return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


def _mel(hz: float) -> float:
    return hz / LINEAR_HZ if hz < BREAK_HZ else BREAK_HZ / LINEAR_HZ + math.log(hz / BREAK_HZ) / LOG_STEP


def _hz(mel: Tensor) -> Tensor:
    above = mel - BREAK_HZ / LINEAR_HZ
    return torch.where(above < 0, mel * LINEAR_HZ, BREAK_HZ * torch.exp(LOG_STEP * above))
