"""The encoder of a Whisper, which hears speech for training: out of transformers' layout or CTranslate2's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .ctranslate2 import WEIGHTS_FILE as CTRANSLATE2_FILE
from .ctranslate2 import read_ctranslate2
from .error import CheckpointError
from .files import find_folder, read_folder
from .hub import parse_id, read_repo
from .renames import Renames, rename
from .weights import WEIGHTS_FILE

# transformers' name | ours, without the prefix of the encoder.
_TRANSFORMERS: Renames = (
    ("embed_positions.weight", "encoder.positions"),
    ("layers.*.self_attn.q_proj.*", "encoder.blocks.*.attention.query.*"),
    ("layers.*.self_attn.k_proj.*", "encoder.blocks.*.attention.key.*"),
    ("layers.*.self_attn.v_proj.*", "encoder.blocks.*.attention.value.*"),
    ("layers.*.self_attn.out_proj.*", "encoder.blocks.*.attention.out.*"),
    ("layers.*.self_attn_layer_norm.*", "encoder.blocks.*.norm1.*"),
    ("layers.*.final_layer_norm.*", "encoder.blocks.*.norm2.*"),
    ("layers.*.fc1.*", "encoder.blocks.*.mlp.0.*"),
    ("layers.*.fc2.*", "encoder.blocks.*.mlp.2.*"),
    ("layer_norm.*", "norm.*"),
    ("conv1.*", "encoder.conv1.*"),
    ("conv2.*", "encoder.conv2.*"),
)
# CTranslate2's, whose parts slashes divide, with "beta" and "gamma" for the tensors of a norm.
_CTRANSLATE2: Renames = (
    ("position_encodings.encodings", "embed_positions.weight"),
    ("layer_*.self_attention.layer_norm.*", "layers.*.self_attn_layer_norm.*"),
    ("layer_*.self_attention.linear_1.*", "layers.*.self_attn.out_proj.*"),
    ("layer_*.ffn.layer_norm.*", "layers.*.final_layer_norm.*"),
    ("layer_*.ffn.linear_0.*", "layers.*.fc1.*"),
    ("layer_*.ffn.linear_1.*", "layers.*.fc2.*"),
)
_NORM = {"beta": "bias", "gamma": "weight"}
# All three in one there.
_JOINT = ".self_attention.linear_0."
_PREFIXES = ("model.encoder.", "encoder.")


@dataclass(frozen=True, eq=False)
class WhisperParts:
    """The encoder of a Whisper.

    size     mels, width, layers, heads and positions
    tensors  under our names
    source   where it comes from, with the sha if on the Hub
    """

    size: dict[str, int]
    tensors: dict[str, Tensor]
    source: str


def read_whisper_encoder(whisper: str | os.PathLike[str]) -> WhisperParts:
    """The encoder of a folder or Hub id in the layout of transformers (model.safetensors), or of a folder in
    that of CTranslate2 (model.bin in a float type). CheckpointError for anything else."""
    folder = find_folder(whisper)
    if folder is not None and (folder / CTRANSLATE2_FILE).is_file() and not (folder / WEIGHTS_FILE).is_file():
        return _of_ctranslate2(folder)
    if folder is not None:
        checkpoint = read_folder(folder)
    else:
        hub_id = parse_id(str(whisper))
        checkpoint = read_repo(hub_id.repo, hub_id.revision)
    place = {"source": checkpoint.source, "revision": checkpoint.revision}
    config = checkpoint.config
    if config.get("model_type") != "whisper":
        raise CheckpointError(
            f"a model of type {config.get('model_type')!r}",
            **place,
            file="config.json",
            remedy="give a Whisper",
        )
    if config.get("activation_function", "gelu") != "gelu":
        raise CheckpointError(
            f"activation_function={config['activation_function']!r}", **place, remedy="Whisper's is 'gelu'"
        )
    tensors = _ours(_without_prefix(checkpoint.tensors))
    heads = config.get("encoder_attention_heads", 6)
    named = f"{checkpoint.source}@{checkpoint.revision}" if checkpoint.revision else checkpoint.source
    return WhisperParts(_size(tensors, heads, place), tensors, named)


def _of_ctranslate2(folder: Path) -> WhisperParts:
    """Likewise, of a folder that ct2-transformers-converter made."""
    raw = read_ctranslate2(folder / CTRANSLATE2_FILE, prefix="encoder/")
    place: dict[str, Any] = {"source": str(folder), "file": CTRANSLATE2_FILE}
    heads = raw.pop("encoder/num_heads", None)
    if heads is None or heads.numel() != 1:
        raise CheckpointError("no number of heads", **place, remedy="give the model.bin of a Whisper")
    if any(not tensor.is_floating_point() for tensor in raw.values()):
        raise CheckpointError(
            "quantized weights, which have no gradient worth the name",
            **place,
            remedy="convert with --quantization float16 or float32",
        )
    plain: dict[str, Tensor] = {}
    for name, tensor in raw.items():
        short, _, kind = name.removeprefix("encoder/").replace("/", ".").rpartition(".")
        full = f"{short}.{_NORM.get(kind, kind)}"
        if _JOINT in full:
            plain |= _divided(full, tensor)
        else:
            plain[rename(full, _CTRANSLATE2)] = tensor
    tensors = _ours(plain)
    return WhisperParts(_size(tensors, int(heads), place), tensors, str(folder))


def _divided(name: str, joint: Tensor) -> dict[str, Tensor]:
    """Query, key and value of one layer; Whisper's key has no bias, and the file holds zeros for it."""
    layer, _, kind = name.removeprefix("layer_").partition(_JOINT)
    parts = zip(("q_proj", "k_proj", "v_proj"), joint.tensor_split(3), strict=True)
    return {
        f"layers.{layer}.self_attn.{part}.{kind}": tensor
        for part, tensor in parts
        if (part, kind) != ("k_proj", "bias")
    }


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the encoder; the decoder is not needed."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        for prefix in _PREFIXES
        if name.startswith(prefix)
    }


def _ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {rename(name, _TRANSFORMERS): tensor for name, tensor in tensors.items()}


def _size(tensors: Mapping[str, Tensor], heads: int, place: Mapping[str, Any]) -> dict[str, int]:
    """What the shapes say; the strict load asks for the rest."""
    first = tensors.get("encoder.conv1.weight", torch.empty(0))
    positions = tensors.get("encoder.positions", torch.empty(0))
    has_heads = isinstance(heads, int) and heads > 0
    if first.ndim != 3 or positions.ndim != 2 or not has_heads or first.shape[0] % heads:
        raise CheckpointError(
            f"conv1 of shape {tuple(first.shape)}, positions {tuple(positions.shape)}, {heads} heads",
            **place,
            remedy="give a Whisper with its encoder",
        )
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.blocks.")}
    return {
        "mels": first.shape[1],
        "width": first.shape[0],
        "layers": len(layers),
        "heads": heads,
        "positions": positions.shape[0],
    }
