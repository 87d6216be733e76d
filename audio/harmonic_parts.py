"""Encoder and decoder of the harmonic codec: spectra in, a buzz and a hiss that are filtered out.

Both work on whole frames, so all the work is at the rate of the tokens or a few times that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.precision import without_autocast, working_dtype

KERNEL = 7
# Windows of the spectra that the encoder reads: one that tells overtones apart, up to a quarter of the rate
# of the samples, and short ones that tell when.
PITCH_WINDOW = 1024
# Magnitudes below are silence; and what brings their logarithms to about -2 ... 2.
FLOOR, LOG_SCALE, LOG_SHIFT = 1e-3, 0.5, 1.0
# The decoder's pitch is this times two to the power of what its network says, between two limits.
MIDDLE_HZ, LOWEST_HZ, HIGHEST_HZ = 190.0, 52.0, 512.0
# Frames of hiss, drawn once; a prime, so that nothing falls in step with it.
HISS_FRAMES = 1009
# exp of more than this is no gain of a filter.
MAX_LOG_GAIN = 4.0
_TURN = 1 << 32


@dataclass(frozen=True, eq=False)
class PitchGuess:
    """Of fine frames: log2_hz (B, M) float, and voicing (B, M), logits of being voiced."""

    log2_hz: Tensor
    voicing: Tensor


class FrameBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, arXiv 2201.03545) over time: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, expand: int) -> None:
        super().__init__()
        # In two dimensions, for channels that lie last are then mixed in place, three times as fast.
        self.depthwise = nn.Conv2d(width, width, (KERNEL, 1), padding=(KERNEL // 2, 0), groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expand * width)
        self.down = nn.Linear(expand * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, frames: Tensor) -> Tensor:
        mixed = self.depthwise(frames.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        return frames + self.scale * self.down(F.gelu(self.up(self.norm(mixed))))


class SpectrumEncoder(nn.Module):
    """Sound (B, 1, N * hop) to latents (B, D, N): a linear map of log spectra, and a learned correction.

    width, depth, expand  of the blocks that correct; the correction starts at zero
    """

    def __init__(
        self, hop_samples: int, subframes: int, width: int, depth: int, expand: int, latent_dim: int
    ) -> None:
        super().__init__()
        self.hop_samples, self.subframes = hop_samples, subframes
        self.fine_window = 4 * hop_samples // subframes
        features = PITCH_WINDOW // 4 + 1 + subframes * (self.fine_window // 2 + 1)
        self.linear = nn.Linear(features, latent_dim)
        self.embed = nn.Linear(features, width)
        self.embed_norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(FrameBlock(width, expand) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.correction = nn.Linear(width, latent_dim)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, sound: Tensor) -> Tensor:
        features = self.features(sound[:, 0]).to(self.embed.weight.dtype)
        hidden = self.blocks(self.embed_norm(self.embed(features)))
        return (self.linear(features) + self.correction(self.norm(hidden))).transpose(1, 2)

    def features(self, sound: Tensor) -> Tensor:
        """Log magnitudes around each token: (B, N * hop) float -> (B, N, features)."""
        with without_autocast(sound.device):
            sound = sound.to(working_dtype(sound))
            tokens = sound.shape[1] // self.hop_samples
            fine = self.hop_samples // self.subframes
            coarse = spectra(sound, PITCH_WINDOW, self.hop_samples, tokens)[..., : PITCH_WINDOW // 4 + 1]
            short = spectra(sound, self.fine_window, fine, tokens * self.subframes)
            scaled = coarse.abs() * (self.fine_window / PITCH_WINDOW)
            both = torch.cat([scaled, short.abs().unflatten(1, (tokens, self.subframes)).flatten(2)], dim=2)
            return (both + FLOOR).log() * LOG_SCALE + LOG_SHIFT


class HarmonicDecoder(nn.Module):
    """Latents (B, D, N) to sound (B, 1, N * hop), by fine frames, `subframes` a token.

    What a pulse train of the pitch that the latents tell and a hiss are worth at each frequency is learned;
    so phase, which costs others most of their capacity, comes by itself. The idea is that of vocoders, with
    neural nets first in DDSP (Engel et al. 2020, arXiv 2001.04643).
    """

    def __init__(
        self,
        *,
        sample_rate_hz: int,
        hop_samples: int,
        subframes: int,
        latent_dim: int,
        width: int,
        depth: int,
        fine_width: int,
        fine_depth: int,
        expand: int,
    ) -> None:
        super().__init__()
        self.sample_rate_hz, self.subframes = sample_rate_hz, subframes
        self.fine_hop = hop_samples // subframes
        self.window = 4 * self.fine_hop
        self.bins = self.window // 2 + 1
        self.embed = nn.Conv1d(latent_dim, width, 3, padding=1)
        self.embed_norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(FrameBlock(width, expand) for _ in range(depth)))
        self.split_norm = nn.LayerNorm(width)
        self.split = nn.Linear(width, subframes * fine_width)
        self.fine = nn.Sequential(*(FrameBlock(fine_width, expand) for _ in range(fine_depth)))
        self.norm = nn.LayerNorm(fine_width)
        self.pitch = nn.Linear(fine_width, 2)
        self.filters = nn.Linear(fine_width, 3 * self.bins)
        nn.init.zeros_(self.pitch.weight)
        nn.init.zeros_(self.pitch.bias)

    def forward(self, latents: Tensor) -> Tensor:
        features = self.features(latents)
        return self.synthesise(features, self.guess_pitch(features))

    def features(self, latents: Tensor) -> Tensor:
        """(B, D, N) -> (B, M, fine_width), M = N * subframes."""
        frames = self.embed_norm(self.embed(latents).transpose(1, 2))
        fine = self.split(self.split_norm(self.blocks(frames))).unflatten(2, (self.subframes, -1))
        return self.norm(self.fine(fine.flatten(1, 2)))

    def guess_pitch(self, features: Tensor) -> PitchGuess:
        raw = self.pitch(features)
        raw = raw.to(working_dtype(raw))
        return PitchGuess(raw[..., 0] + math.log2(MIDDLE_HZ), raw[..., 1])

    def synthesise(self, features: Tensor, guess: PitchGuess) -> Tensor:
        """Features (B, M, fine_width) -> (B, 1, M * fine_hop). The pitch gets no gradient: what spectra say
        of it, once it is off by a few hertz, is wrong more often than not."""
        raw = self.filters(features)
        with without_autocast(raw.device):
            raw = raw.to(working_dtype(raw))
            count = raw.shape[1]
            hz = (2 ** guess.log2_hz.detach()).clamp(LOWEST_HZ, HIGHEST_HZ).to(raw.dtype)
            buzz = pulses(hz, guess.voicing > 0, self.sample_rate_hz, self.fine_hop)
            buzzing = spectra(buzz, self.window, self.fine_hop, count)
            order = torch.arange(count, device=raw.device) % HISS_FRAMES
            hissing = hiss(self.bins).to(raw.device, buzzing.dtype)[order] * math.sqrt(self.window * 3 / 16)
            log_buzz, log_hiss, phase = raw.chunk(3, dim=2)
            filtered = torch.polar(gain(log_buzz), phase) * buzzing + gain(log_hiss) * hissing
            sound = overlap_add(torch.fft.irfft(filtered, self.window), self.fine_hop)
        return sound[:, None].to(features.dtype)


def gain(log_gain: Tensor) -> Tensor:
    """Filters start at -35 dB, about the level of speech."""
    return (log_gain - 4.0).clamp(max=MAX_LOG_GAIN).exp()


def spectra(sound: Tensor, window: int, hop_samples: int, count: int) -> Tensor:
    """Of Hann windows around `count` hops: (B, count * hop) float -> (B, count, window // 2 + 1) complex."""
    before = (window - hop_samples) // 2
    padded = F.pad(sound, (before, window - hop_samples - before))
    hann = torch.hann_window(window, dtype=sound.dtype, device=sound.device)
    if not padded.numel() or not count:  # which the transform refuses
        return sound.new_zeros(
            len(sound), count, window // 2 + 1, dtype=torch.promote_types(sound.dtype, torch.complex64)
        )
    return torch.fft.rfft(padded.unfold(1, window, hop_samples)[:, :count] * hann)


def overlap_add(frames: Tensor, hop_samples: int) -> Tensor:
    """The inverse of `spectra`: frames (B, M, 4 * hop) -> (B, M * hop). The ends fade: nothing is known of
    what lies beyond them."""
    window = frames.shape[2]
    hann = torch.hann_window(window, dtype=frames.dtype, device=frames.device)
    length = (frames.shape[1] - 1) * hop_samples + window
    total = F.fold((frames * hann).transpose(1, 2), (1, length), (1, window), stride=(1, hop_samples))
    cut = (window - hop_samples) // 2
    # Squared Hann windows a quarter apart add up to 3 / 2.
    return total[:, 0, 0, cut : cut + frames.shape[1] * hop_samples] / 1.5


@torch.no_grad()
def pulses(hz: Tensor, voiced: Tensor, sample_rate_hz: int, hop_samples: int) -> Tensor:
    """A band-limited pulse train of unit power, all overtones in phase: hz and voiced (B, M) -> (B, M * hop).

    The phase starts at zero wherever a voice begins, so a piece of a sound that begins before the voice does
    sounds as in the whole. Phases are sums of integers: exact, and the same on every device.
    """
    # Steps of 2.5 cents: what differs in the last bit between a batch and a single, or two devices, does not
    # add up to another phase.
    hz = 2 ** ((hz.log2() * 480).round() / 480)
    rate = (hz * (_TURN / sample_rate_hz)).round().long()
    # Half way between frames, and straight lines from there to there.
    edges = F.pad(rate, (1, 0), value=0) + F.pad(rate, (0, 1), value=0)
    edges[:, 1:-1] //= 2
    ramp = torch.arange(hop_samples, device=hz.device)
    every = (edges[:, :-1, None] + edges.diff(dim=1)[..., None] * ramp // hop_samples).flatten(1)
    turns = every.cumsum(1) - every  # before each sample
    # The last unvoiced frame, -1 where there is none yet, and what had been turned when it was over.
    frame = torch.arange(hz.shape[1], device=hz.device).expand_as(hz)
    silent = torch.where(voiced, -1, frame).cummax(1).values
    before = turns.gather(1, ((silent + 1) * hop_samples).clamp(max=turns.shape[1] - 1))
    turns = turns - before.repeat_interleave(hop_samples, dim=1)
    angle = (turns % _TURN).to(hz.dtype) * (2 * math.pi / _TURN)
    # cos(a) + cos(2a) + ... + cos(Ka), Dirichlet's kernel.
    overtones = (0.4875 * _TURN / every.to(hz.dtype)).floor()
    half = torch.sin(angle / 2)
    at_pulse = half.abs() < 1e-4
    kernel = torch.sin((overtones + 0.5) * angle) / (2 * half.masked_fill(at_pulse, 1.0)) - 0.5
    return torch.where(at_pulse, overtones, kernel) * (2 / overtones).sqrt()


@lru_cache(maxsize=8)
def hiss(bins: int) -> Tensor:
    """(HISS_FRAMES, bins) complex64 of unit variance in each part, on the CPU: the same in every sound."""
    with torch.inference_mode(False), torch.device("cpu"):
        drawn = torch.randn(HISS_FRAMES, bins, 2, generator=torch.Generator().manual_seed(0))
        return torch.view_as_complex(drawn)
