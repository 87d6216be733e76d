"""The S3 tokenizers in pieces: the official windows, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .stream import AudioStream

if TYPE_CHECKING:
    from .s3 import S3Tokenizer


class S3Stream(AudioStream):
    """Windows of 30 s, as `S3Tokenizer` encodes a long sound: late by up to 30 s.

    The ids are those of the whole, except where it has not been as loud yet as it will be: what lies 80 dB
    under the loudest place so far is cut off, not under the loudest of all.
    """

    tokenizer: S3Tokenizer

    def _restart(self) -> None:
        super()._restart()
        self._frames = 0  # of the spectrogram, since the sound began
        self._decades: Tensor | None = None  # (B, M, F), from where the next window begins
        self._loudest: Tensor | None = None  # (B, 1, 1)
        self._windows = 0  # encoded so far

    def _encode_ready(self) -> Tensor | None:
        if self._samples is None:
            return None
        mel = self.tokenizer.config.log_mel
        if not self._frames and self._samples.shape[-1] >= max(mel.min_samples, mel.window):
            self._samples = _mirrored_before(self._samples, mel.border)
            self._listen(mel.frames(self._given))
        elif self._frames:
            self._listen(mel.frames(self._given))
        return self._encode_windows(last=False)

    def _encode_rest(self) -> Tensor | None:
        if self._samples is None or not self._given:
            return None
        mel = self.tokenizer.config.log_mel
        if not self._frames:
            self._samples = F.pad(self._samples, (0, max(0, mel.min_samples - self._samples.shape[-1])))
            self._samples = _mirrored_before(self._samples, mel.border)
        self._samples = _mirrored_before(self._samples.flip(-1), mel.border).flip(-1)
        self._listen(self.tokenizer.config.frames(self._given))
        return self._encode_windows(last=True)

    def _decode_ready(self, ids: Tensor) -> Tensor | None:
        """Never called: the stream has no decoder."""

    def _decode_rest(self) -> Tensor | None:
        """Nothing: the stream has no decoder."""

    def _listen(self, frames: int) -> None:
        """Frames out of the samples, as many as are complete, up to `frames` since the sound began."""
        assert self._samples is not None
        mel = self.tokenizer.config.log_mel
        some = mel.decades(self._samples[:, 0])[..., : frames - self._frames]
        if not some.shape[-1]:
            return
        self._frames += some.shape[-1]
        self._samples = self._samples[..., some.shape[-1] * mel.hop :]
        loudest = some.amax(dim=(1, 2), keepdim=True)
        self._loudest = loudest if self._loudest is None else torch.maximum(self._loudest, loudest)
        self._decades = some if self._decades is None else torch.cat([self._decades, some], dim=-1)

    def _encode_windows(self, *, last: bool) -> Tensor | None:
        """Ids of the windows that are complete; a window is the last one only if nothing comes after it."""
        config, parts = self.tokenizer.config, []
        while self._decades is not None:
            held = self._decades.shape[-1]
            is_final = last and held <= config.window_frames
            if not is_final and held <= config.window_frames:
                break
            window = config.log_mel.scaled(self._decades[..., : config.window_frames], self._loudest)
            latents = self.tokenizer.encoder(window.to(self.tokenizer.dtype))
            cut = self.tokenizer.overlap.encode_tokens
            latents = latents[:, cut * (self._windows > 0) : latents.shape[1] - cut * (not is_final)]
            parts.append(self._quantized(self._tokens(latents)))
            self._windows += 1
            step = config.window_frames - config.overlap_frames
            self._decades = None if is_final else self._decades[..., step:]
        return torch.cat(parts, dim=1) if parts else None


def _mirrored_before(samples: Tensor, border: int) -> Tensor:
    """(B, 1, S) with the mirror image of its beginning before it."""
    return torch.cat([samples[..., 1 : border + 1].flip(-1), samples], dim=-1)
