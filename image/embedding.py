"""What SEED learns: the CLIP embedding of the picture that its codes stand for.

Source: SEED-2 (Ge et al. 2023, arXiv 2310.01218), whose second stage has the squared error to the image
embedding of Stable unCLIP; the official training code was not read. The Q-Former's contrastive first stage is
not here: start from its weights, or from the released ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..zoo.neural import NeuralTokenizer
from ..zoo.objective import Objective, Step
from ..zoo.optional import require
from .seed import Seed
from .unclip import UnclipConfig
from .visual_tokenizer import CLIP_MEAN, CLIP_STD


@dataclass(frozen=True)
class EmbeddingSettings:
    """Whose embedding is to be hit.

    weight     of the term
    encoder    Hub id or folder of a pipeline with a CLIP `image_encoder`; None: the one that paints
    revision   sha, branch or tag on the Hub, resolved to a sha before anything is fetched
    """

    weight: float = 1.0
    encoder: str | None = None
    revision: str | None = None


class Embedding(Objective):
    """Mean squared error of the embedding, each of length 1, times its width: 2 - 2 cos."""

    name = "embedding"
    settings_type = EmbeddingSettings

    def __init__(self, settings: EmbeddingSettings, tokenizer: NeuralTokenizer) -> None:
        super().__init__(settings.weight)
        if not isinstance(tokenizer, Seed):
            raise TypeError(f"the term embedding is for SEED: {tokenizer.facts.name} gives none")
        painter = tokenizer.config.unclip or UnclipConfig()
        if settings.encoder is None:
            self._source = (painter.repo, painter.revision)
        else:
            self._source = (settings.encoder, settings.revision)
        # No submodule: in no checkpoint.
        self._teacher: tuple[Any, ...] = ()

    def prepare(self, module: Any) -> None:
        teacher = _load(*self._source)
        width = module.tokenizer.config.embedding_dim
        if teacher.config.projection_dim != width:
            raise ValueError(
                f"{self._source[0]} has embeddings of width {teacher.config.projection_dim}: expected {width}"
            )
        self._teacher = (teacher.requires_grad_(False).eval().to(module.device),)

    def forward(self, step: Step) -> Tensor:
        (teacher,) = self._teacher
        signal = step.signal.float()
        size = teacher.config.image_size
        with torch.no_grad(), torch.autocast(signal.device.type, enabled=False):
            if signal.shape[2:] != (size, size):
                signal = F.interpolate(signal, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
            mean, std = (signal.new_tensor(each)[:, None, None] for each in (CLIP_MEAN, CLIP_STD))
            wanted = teacher(pixel_values=(signal - mean) / std).image_embeds
        return (2 - 2 * F.cosine_similarity(step.rebuilt.float(), wanted, dim=-1)).mean()


def _load(source: str, revision: str | None) -> Any:
    """The image encoder on the CPU, in float32, from a folder, or from the Hub at one sha."""
    from ..checkpoints.files import find_folder
    from ..checkpoints.hub import resolve

    models = require("transformers", "transformers").CLIPVisionModelWithProjection
    options: dict[str, Any] = {"subfolder": "image_encoder", "use_safetensors": True, "dtype": torch.float32}
    folder = find_folder(source)
    if folder is not None:
        return models.from_pretrained(folder, local_files_only=True, **options)
    return models.from_pretrained(source, revision=resolve(source, revision), **options)
