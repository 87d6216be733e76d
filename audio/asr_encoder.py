"""What a speech recognizer hears: the encoder of a Whisper (Radford et al. 2022, arXiv 2212.04356), frozen.

Source: openai/whisper, whisper/model.py (AudioEncoder).
"""

from __future__ import annotations

import os
from typing import Self

import torch
from torch import Tensor, nn

from ..zoo.transformer import TransformerSize
from .log_mel import LogMel
from .whisper_encoder import WhisperEncoder, WhisperSize

SAMPLE_RATE_HZ = 16_000
NORM_EPS = 1e-5


class AsrEncoder(nn.Module):
    """Speech to the features of a recognizer, 50 a second; gradients run back to the sound.

    A sound is heard as long as it is. (Whisper itself, and the official LM-SPT, fill it up to 30 seconds.)
    The loudest band of a sound counts in all of it: what lies 80 dB under it, silence above all, has no
    gradient of its own.
    """

    def __init__(self, *, mels: int, width: int, layers: int, heads: int, positions: int) -> None:
        super().__init__()
        self.log_mel = LogMel(SAMPLE_RATE_HZ, mels)
        self.encoder = WhisperEncoder(
            WhisperSize(
                mels=mels,
                blocks=TransformerSize(width=width, layers=layers, heads=heads),
                first_stride=1,
                positions=positions,
                memory_kernel=0,
                norm_eps=NORM_EPS,
            )
        )
        self.norm = nn.LayerNorm(width)

    @classmethod
    def from_whisper(cls, whisper: str | os.PathLike[str]) -> Self:
        """Frozen, in eval mode, on the CPU.

        whisper  folder or Hub id of a Whisper in the layout of transformers, or a folder in CTranslate2's
        """
        from ..checkpoints import weights, whisper_parts

        parts = whisper_parts.read_whisper_encoder(whisper)
        with torch.device("meta"):
            encoder = cls(**parts.size)
        weights.load_strict(encoder, parts.tensors, source=parts.source, file=None)
        return encoder.requires_grad_(False).eval()

    @property
    def layers(self) -> int:
        return len(self.encoder.blocks)

    @property
    def max_samples(self) -> int:
        """The longest sound there are positions for: 30 seconds."""
        return self.encoder.size.positions * self.encoder.size.stride * self.log_mel.hop

    def forward(self, sound: Tensor, layers: tuple[int, ...] = ()) -> tuple[Tensor, ...]:
        """Features after these blocks, counted from 1; after the last of all, and by default, normalised.

        sound    (B, S) float in [-1, 1] at 16 kHz
        returns  (B, N, D) float a layer, N about S / 320: hidden_states[layer] of transformers

        Raises ValueError for a sound of more than 30 seconds, or too short to be mirrored.
        """
        wanted = layers or (self.layers,)
        if not all(1 <= layer <= self.layers for layer in wanted):
            raise ValueError(f"layers {layers}: expected 1 ... {self.layers}")
        found: dict[int, Tensor] = {}
        mel = self.log_mel(sound).to(self.norm.weight.dtype)
        for layer, features in enumerate(self.encoder.each_block(mel), start=1):
            if layer in wanted:
                found[layer] = self.norm(features) if layer == self.layers else features
            if layer == max(wanted):
                break
        return tuple(found[layer] for layer in wanted)
