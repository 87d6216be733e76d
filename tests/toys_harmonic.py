"""The harmonic codec at a size for the contract test."""

from __future__ import annotations

from dataclasses import dataclass

from tokenzoo.audio.harmonic import HarmonicCodec, HarmonicConfig


@dataclass(frozen=True)
class SmallHarmonicConfig(HarmonicConfig):
    hop_samples: int = 160
    subframes: int = 2
    latent_dim: int = 12
    num_codebooks: int = 3
    num_codes: int = 16
    width: int = 16
    expand: int = 2
    encoder_depth: int = 1
    decoder_depth: int = 2
    fine_width: int = 12
    fine_depth: int = 1


class SmallHarmonic(HarmonicCodec):
    config_type = SmallHarmonicConfig
