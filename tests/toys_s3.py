"""The S3 tokenizers at a size for the contract test: 4 or 8 samples a token, windows of 8 or 16 frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from tokenzoo.audio.log_mel import LogMel
from tokenzoo.audio.s3 import S3Config, S3Tokenizer
from tokenzoo.zoo.transformer import TransformerSize


@dataclass(frozen=True, kw_only=True)
class SmallS3Config(S3Config):
    """v1: a table of positions, and codes."""

    log_mel: LogMel = field(default_factory=lambda: LogMel(mels=4, window=8, hop=2))
    blocks: TransformerSize = field(default_factory=lambda: TransformerSize(width=8, layers=2, heads=2))
    first_stride: int = 1
    positions: int = 6
    memory_kernel: int = 0
    num_codes: int = 12
    levels: tuple[int, ...] = ()
    window_frames: int = 8
    overlap_frames: int = 4


class SmallS3(S3Tokenizer):
    """The codes are as long as the latents, or all would be the same one."""

    config_type = SmallS3Config

    def __init__(self, config: S3Config) -> None:
        super().__init__(config)
        with torch.no_grad():
            if self.encoder.project is None:
                self.quantizer.codebook.normal_(std=config.blocks.width**-0.5)  # pyright: ignore
            else:
                self.encoder.project.weight.mul_(20)


@dataclass(frozen=True, kw_only=True)
class SmallS3V2Config(SmallS3Config):
    """v2: rotary positions, a memory, and features that are rounded."""

    tokenizer_type: ClassVar[str] = "small-s3tokenizer-v2"

    first_stride: int = 2
    positions: int = 0
    memory_kernel: int = 3
    num_codes: int = 0
    levels: tuple[int, ...] = (3, 3, 3)
    window_frames: int = 16
    overlap_frames: int = 8


class SmallS3V2(SmallS3):
    config_type = SmallS3V2Config
