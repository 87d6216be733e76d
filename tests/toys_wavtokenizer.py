"""WavTokenizer at a size for the contract test: 4 samples a token."""

from __future__ import annotations

from dataclasses import dataclass

from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig
from tokenzoo.audio.vocos import VocosConfig
from tokenzoo.audio.wavtokenizer import WavTokenizer, WavTokenizerConfig

ENCODER = SeanetConfig(filters=2, ratios=(2, 2))
DECODER = VocosConfig(width=64, inner=48, layers=2, n_fft=16)
PREPROCESS = AudioPreprocess(16_000)


@dataclass(frozen=True)
class SmallWavTokenizerConfig(WavTokenizerConfig):
    num_codes: int = 32
    latent_dim: int = 6
    encoder: SeanetConfig = ENCODER
    decoder: VocosConfig = DECODER
    preprocess: AudioPreprocess = PREPROCESS


class SmallWavTokenizer(WavTokenizer):
    config_type = SmallWavTokenizerConfig
