"""Pictures of CLIP embeddings, by the frozen pipeline of Stable unCLIP (after arXiv 2204.06125).

It is a folder of the diffusers library, is fetched on first use, and lies in no checkpoint of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..zoo.config import check_range
from ..zoo.optional import require


@dataclass(frozen=True)
class UnclipConfig:
    """A StableUnCLIPImg2ImgPipeline of diffusers.

    repo      Hub id, or a folder of this machine
    revision  sha, branch or tag on the Hub, resolved to a sha before anything is fetched; None means main
    size      pixels along one side of what it paints
    """

    repo: str = "stabilityai/stable-diffusion-2-1-unclip"
    revision: str | None = None
    size: int = 768

    def __post_init__(self) -> None:
        check_range("size", self.size, 8, 8192)


@dataclass(frozen=True, eq=False)
class _Held:
    """No module, so that what holds it does not list the weights among its own."""

    pipeline: Any


class UnclipPainter(nn.Module):
    """CLIP embeddings (B, E) to images (B, 3, size, size) float in [0, 1], without gradient.

    The pipeline has no place in the state dict or among the parameters, but moves with the module.
    """

    def __init__(self, config: UnclipConfig) -> None:
        super().__init__()
        self.config = config
        self._held: _Held | None = None
        self._is_mock = False

    def mock(self) -> None:
        """Noise in place of pictures from now on: beside random weights nothing need be fetched."""
        self._is_mock = True

    @torch.no_grad()
    def forward(
        self, embeddings: Tensor, generators: list[torch.Generator], *, steps: int, guidance: float
    ) -> Tensor:
        """generators  one per item, for the noise to paint away and the little that the embedding gets."""
        if self._is_mock:
            shape = (3, self.config.size, self.config.size)
            noise = [torch.rand(shape, generator=each) for each in generators]
            return torch.stack(noise).to(embeddings.device)
        pipeline = self._pipeline(embeddings)
        return pipeline(
            prompt=[""] * len(embeddings),
            image_embeds=embeddings,
            height=self.config.size,
            width=self.config.size,
            num_inference_steps=steps,
            guidance_scale=guidance,
            noise_level=0,
            generator=generators,
            output_type="pt",
        ).images

    def _pipeline(self, beside: Tensor) -> Any:
        """The pipeline, made on first use where this tensor is."""
        if self._held is None:
            self._held = _Held(_load(self.config))
            self._held.pipeline.to(beside.device, beside.dtype)
        return self._held.pipeline

    def _apply(self, fn: Any, recurse: bool = True) -> UnclipPainter:
        """What `to`, `cuda` and `half` call."""
        if self._held is not None:
            for part in self._held.pipeline.components.values():
                if isinstance(part, nn.Module):
                    part._apply(fn, recurse)
        return super()._apply(fn, recurse)


def _load(config: UnclipConfig) -> Any:
    """The pipeline on the CPU, in float32, from a folder, or from the Hub at one sha."""
    from ..checkpoints.files import find_folder
    from ..checkpoints.hub import resolve

    pipelines = require("diffusers", "diffusers").StableUnCLIPImg2ImgPipeline
    require("transformers", "transformers")
    folder = find_folder(config.repo)
    if folder is not None:
        pipeline = pipelines.from_pretrained(folder, local_files_only=True)
    else:
        pipeline = pipelines.from_pretrained(config.repo, revision=resolve(config.repo, config.revision))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
