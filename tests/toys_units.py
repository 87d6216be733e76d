"""Units at a size for the contract test: a HuBERT like the base one, and a WavLM like the large one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from tokenzoo.audio.speech_encoder import SpeechEncoderSize
from tokenzoo.audio.units import Units, UnitsConfig

SMALL_HUBERT = SpeechEncoderSize(
    width=16,
    heads=2,
    hidden=32,
    layer=2,
    conv_width=8,
    conv_kernels=(4, 2),
    conv_strides=(2, 2),
    position_kernel=6,
    position_groups=2,
)
SMALL_WAVLM = replace(
    SMALL_HUBERT, kind="wavlm", conv_norm="layer", conv_bias=True, norm_first=True, buckets=8, max_distance=16
)


@dataclass(frozen=True, kw_only=True)
class SmallUnitsConfig(UnitsConfig):
    encoder: SpeechEncoderSize = SMALL_HUBERT
    num_codes: int = 12


class SmallUnits(Units):
    """The centres spread as the vectors do, or all would be the same one."""

    config_type = SmallUnitsConfig

    def __init__(self, config: UnitsConfig) -> None:
        super().__init__(config)
        with torch.no_grad():
            self.quantizer.codebook.normal_()


@dataclass(frozen=True, kw_only=True)
class SmallWavLmUnitsConfig(SmallUnitsConfig):
    tokenizer_type: ClassVar[str] = "small-wavlm-units"

    encoder: SpeechEncoderSize = field(default_factory=lambda: SMALL_WAVLM)
    normalise: bool = True


class SmallWavLmUnits(SmallUnits):
    config_type = SmallWavLmUnitsConfig
