"""EnCodec at a size for the contract test: 4 samples a token, causal, and in segments of 12 samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from tokenzoo.audio.encodec import Encodec, EncodecConfig
from tokenzoo.audio.preprocess import AudioPreprocess
from tokenzoo.audio.seanet import SeanetConfig


@dataclass(frozen=True)
class SmallEncodecConfig(EncodecConfig):
    num_codebooks: int = 3
    num_codes: int = 16
    latent_dim: int = 6
    seanet: SeanetConfig = field(
        default_factory=lambda: SeanetConfig(filters=2, ratios=(2, 2), residual_layers=2, causal=True)
    )
    preprocess: AudioPreprocess = field(default_factory=lambda: AudioPreprocess(16_000))


class SmallEncodec(Encodec):
    """The codes spread as wide as the latents of random weights do, or all would be the same one."""

    config_type = SmallEncodecConfig

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__(config)
        for depth, stage in enumerate(self.quantizer.stages):
            with torch.no_grad():
                stage.codebook.normal_(std=0.2 * 0.5**depth)  # pyright: ignore


@dataclass(frozen=True)
class SmallSegmentedEncodecConfig(SmallEncodecConfig):
    tokenizer_type: ClassVar[str] = "small-segmented-encodec"

    # A residual block of one channel and one sample would have nothing to norm.
    seanet: SeanetConfig = field(
        default_factory=lambda: SeanetConfig(filters=4, ratios=(2, 2), group_norm=True)
    )
    segment_seconds: float | None = 0.00075
    segment_overlap: float = 0.25
    normalise: bool = True


class SmallSegmentedEncodec(SmallEncodec):
    """A segment of 12 samples every 9."""

    config_type = SmallSegmentedEncodecConfig
