"""Codecs that fill a sound up with zeros to more than its length: whole hops get one token too many."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .audio_tokenizer import AudioTokenizer


class ExtraHopTokenizer(AudioTokenizer):
    """Sound with 1 ... hop zeros after it, as the official BigCodec and X-Codec 2 have it.

    The ids are official; decode cuts the zeros off, so that a round trip gives back what went in.
    """

    def num_tokens(self, extent: Sequence[int]) -> int:
        """S // hop + 1; an empty sound has none."""
        (samples,) = extent
        return int(samples) // self.config.hop_samples + 1 if samples else 0

    def default_extents(self, lengths: Tensor) -> Tensor:
        """(B, 1): the longest sounds of so many tokens, a sample short of whole hops."""
        return (lengths[:, None] * self.config.hop_samples - 1).clamp(min=0)
