"""Mimi at a size for the contract test: 8 samples a token, a window of 3 latents."""

from __future__ import annotations

from dataclasses import dataclass

from tokenzoo.audio.causal_transformer import CausalTransformerConfig
from tokenzoo.audio.mimi import Mimi, MimiConfig
from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig

SEANET = SeanetConfig(
    filters=2,
    ratios=(2, 2),
    last_kernel=3,
    true_skip=True,
    causal=True,
    pad_mode="constant",
    lstm_layers=0,
)
TRANSFORMER = CausalTransformerConfig(width=12, layers=2, heads=2, hidden=16, window=3, layer_scale=0.5)
PREPROCESS = AudioPreprocess(16_000, mix="first")


@dataclass(frozen=True)
class SmallMimiConfig(MimiConfig):
    num_codes: int = 32
    codebooks: int = 5
    code_dim: int = 4
    seanet: SeanetConfig = SEANET
    transformer: CausalTransformerConfig = TRANSFORMER
    preprocess: AudioPreprocess = PREPROCESS


class SmallMimi(Mimi):
    config_type = SmallMimiConfig
