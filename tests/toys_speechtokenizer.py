"""SpeechTokenizer at a size for the contract test: 4 samples a token, 3 codebooks."""

from __future__ import annotations

from dataclasses import dataclass

from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig
from tokenzoo.audio.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig

SEANET = SeanetConfig(filters=2, ratios=(2, 2), bidirectional=True, activation="snake")
PREPROCESS = AudioPreprocess(16_000, mix="first")


@dataclass(frozen=True)
class SmallSpeechTokenizerConfig(SpeechTokenizerConfig):
    num_codebooks: int = 3
    num_codes: int = 16
    latent_dim: int = 6
    semantic_dim: int = 5
    seanet: SeanetConfig = SEANET
    preprocess: AudioPreprocess = PREPROCESS


class SmallSpeechTokenizer(SpeechTokenizer):
    config_type = SmallSpeechTokenizerConfig
