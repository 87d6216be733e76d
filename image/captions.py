"""Captions to features, by the frozen text tower of a CLIP (Radford et al. 2021, arXiv 2103.00020).

The one file that imports transformers. The tower is fetched on first use and lies in no checkpoint of ours.
"""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..checkpoints.error import CheckpointError
from ..zoo.config import check_range
from ..zoo.optional import require

if TYPE_CHECKING:
    from ..checkpoints.files import Checkpoint

TOKENIZER_FILES = ("vocab.json", "merges.txt")
# Old checkpoints hold this table, which is no weight.
_POSITION_IDS = "text_model.embeddings.position_ids"
# Settings by which transformers fetches code; a tower is numbers.
_CODE = ("attn_implementation", "auto_map")


@dataclass(frozen=True)
class TextTowerConfig:
    """A frozen CLIP text tower.

    repo      Hub id, or a folder of this machine
    revision  sha of the commit; None for a folder
    weights   file there, a safetensors; the pickle of the default tower is read too, with weights_only
    length    T, positions that every caption fills
    dim       E, features of a position
    """

    repo: str = "openai/clip-vit-large-patch14-336"
    revision: str | None = "ce19dc912ca5cd21c8a653c79e251e808ccabcd1"
    weights: str = "pytorch_model.bin"
    length: int = 77
    dim: int = 768

    def __post_init__(self) -> None:
        check_range("length", self.length, 3, 4096)
        check_range("dim", self.dim, 1, 16384)
        if self.revision is not None and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision={self.revision!r}: expected the sha of a commit (branches move), None for a folder"
            )


@dataclass(frozen=True, eq=False)
class _Tower:
    """No module, so that what holds it does not list the weights among its own."""

    model: Any
    tokenizer: Any


class CaptionEncoder(nn.Module):
    """B captions -> (B, T, E) float: what the tower's last norm gives at all positions, unprojected.

    The tower has no place in the state dict or among the parameters, and gets no gradient, but moves with the
    module. `TaTiTok` and `TexTok` hold one.

    Source: bytedance/1d-tokenizer, utils/train_utils.py, which reads the tower of open_clip.
    """

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.config = config
        self._tower: _Tower | None = None
        self._is_mock = False

    def mock(self) -> None:
        """Random features from now on, the same for the same caption: beside random weights any will do."""
        self._is_mock = True

    @torch.no_grad()
    def forward(self, captions: Sequence[str], *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """device and dtype are those of the model around it: a tower that is not here yet goes there."""
        if self._is_mock or not captions:
            return self._random(captions).to(device, dtype)
        if self._tower is None:
            self._tower = _load(self.config)
            self._tower.model.to(device, dtype)
        ids = caption_ids(self._tower.tokenizer, captions, self.config.length)
        return self._tower.model(input_ids=ids.to(device)).last_hidden_state

    def _random(self, captions: Sequence[str]) -> Tensor:
        shape = (self.config.length, self.config.dim)
        seeds = [zlib.crc32(caption.encode()) for caption in captions]
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn) if drawn else torch.zeros(0, *shape)

    def _apply(self, fn: Any, recurse: bool = True) -> CaptionEncoder:
        """What `to`, `cuda` and `half` call."""
        if self._tower is not None:
            self._tower.model._apply(fn, recurse)
        return super()._apply(fn, recurse)


def caption_ids(tokenizer: Any, captions: Sequence[str], length: int) -> Tensor:
    """Ids as open_clip makes them: (B, length) int64, begin, text, end, then zeros.

    No mask hides the padding and the decoder reads every position, so it matters: transformers would pad with
    the end token. Entities of HTML are resolved twice, as there; its repair of broken Unicode is left out.
    """
    clean = [html.unescape(html.unescape(caption)).strip() for caption in captions]
    rows = tokenizer(clean, truncation=True, max_length=length)["input_ids"] if clean else []
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = torch.tensor(found)
    return ids


def _load(config: TextTowerConfig) -> _Tower:
    """The tower on the CPU, in float32; CheckpointError where it is not what the configuration says."""
    transformers = require("transformers", "transformers")
    checkpoint = _read(config)
    stated = checkpoint.config.get("text_config") or checkpoint.config
    settings = transformers.CLIPTextConfig.from_dict(
        {key: value for key, value in stated.items() if not any(word in key for word in _CODE)}
    )
    place = {"source": checkpoint.source, "revision": checkpoint.revision}
    found = (settings.max_position_embeddings, settings.hidden_size)
    if found != (config.length, config.dim):
        raise CheckpointError(
            f"a text tower of (positions, features) {found}; expected {(config.length, config.dim)}",
            **place,
            remedy="name the tower that this tokenizer was trained with",
        )
    text = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("text_model.") and name != _POSITION_IDS
    }
    model, report = transformers.CLIPTextModel.from_pretrained(
        None, config=settings, state_dict=text, dtype=torch.float32, output_loading_info=True
    )
    if wrong := sorted(map(str, {*report["missing_keys"], *report["unexpected_keys"]})):
        raise CheckpointError(
            f"not the weights of a CLIP text tower: {', '.join(wrong[:8])} missing or unexpected",
            **place,
            file=checkpoint.file,
            remedy="download it again, or name another repository",
        )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    return _Tower(model.eval().requires_grad_(False), tokenizer)


def _read(config: TextTowerConfig) -> Checkpoint:
    from ..checkpoints.files import find_folder, read_folder
    from ..checkpoints.hub import read_repo
    from ..checkpoints.pickles import PICKLE_SUFFIXES, Pickle

    weights: str | Pickle = config.weights
    if config.weights.endswith(PICKLE_SUFFIXES):
        if config != TextTowerConfig(length=config.length, dim=config.dim):
            raise CheckpointError(
                "a pickle, which is read of the default text tower alone",
                source=config.repo,
                revision=config.revision,
                file=config.weights,
                remedy="name a tower whose weights are safetensors",
            )
        weights = Pickle(config.weights)
    folder = find_folder(config.repo)
    if folder is not None:
        return read_folder(folder, weights=weights)
    if config.revision is None:
        raise CheckpointError(
            "a text tower on the Hub without a revision",
            source=config.repo,
            remedy="name the sha of a commit",
        )
    return read_repo(config.repo, config.revision, weights=weights, extra_files=TOKENIZER_FILES)
