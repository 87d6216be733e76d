"""Windows of long spectrograms: in batches of bounded size through the encoder, and joined again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Frames that go through the encoder at once: eight windows of 30 s.
FRAMES_AT_ONCE = 24_000


@dataclass(frozen=True)
class Window:
    """Frames `start` to `end` of the spectrogram of one item."""

    item: int
    start: int
    end: int

    @property
    def frames(self) -> int:
        return self.end - self.start


def batches(windows: list[Window], mixed: bool) -> list[list[Window]]:
    """Longest first, in batches of at most FRAMES_AT_ONCE, padding included; of one length unless `mixed`."""
    found: list[list[Window]] = []
    for window in sorted(windows, key=lambda window: -window.frames):
        batch = found[-1] if found else []
        fits = bool(batch) and (len(batch) + 1) * batch[0].frames <= FRAMES_AT_ONCE
        if fits and (mixed or batch[0].frames == window.frames):
            batch.append(window)
        else:
            found.append([window])
    return found


def joined(parts: list[Tensor], *, cut: int) -> Tensor:
    """Latents (N, D) of consecutive windows, without `cut` at each seam: half of what two of them share."""
    last = len(parts) - 1
    return torch.cat(
        [part[cut * (place > 0) : len(part) - cut * (place < last)] for place, part in enumerate(parts)]
    )
