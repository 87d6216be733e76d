"""The two parts that units are put together from: an encoder in the layout of transformers, and centres."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .error import CheckpointError, listed
from .files import Checkpoint, find_folder, read_folder
from .hub import HubUnreachable, parse_id, read_repo
from .pickles import Pickle
from .weights import WEIGHTS_FILE, read_weights

PICKLED_WEIGHTS = "pytorch_model.bin"
# Where our encoder keeps the model of transformers, and our quantizer the centres.
ENCODER_PREFIX = "encoder.model."
CENTRES_NAME = "quantizer.codebook"
# How a checkpoint of a model with a head calls the encoder.
_PREFIXES = ("hubert.", "wavlm.")
# The vector that masks frames in training.
_MASK = "masked_spec_embed"
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_POSITIONS = "encoder.pos_conv_embed.conv"
_SPELLINGS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
# What our encoder does not do, and what it must therefore find.
_FIXED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "adapter_attn_dim": None,
}
# Their name | ours, with the value that transformers assumes.
_SIZES: tuple[tuple[str, str, Any], ...] = (
    ("hidden_size", "width", 768),
    ("num_attention_heads", "heads", 12),
    ("intermediate_size", "hidden", 3072),
    ("conv_bias", "conv_bias", False),
    ("feat_extract_norm", "conv_norm", "group"),
    ("do_stable_layer_norm", "norm_first", False),
    ("num_conv_pos_embeddings", "position_kernel", 128),
    ("num_conv_pos_embedding_groups", "position_groups", 16),
    ("layer_norm_eps", "norm_eps", 1e-5),
    ("num_buckets", "buckets", 320),
    ("max_bucket_distance", "max_distance", 800),
)


@dataclass(frozen=True, eq=False)
class EncoderParts:
    """An encoder up to one layer.

    size     fields of our `SpeechEncoderSize`
    tensors  under our names
    source   where it comes from, with the sha if on the Hub
    """

    size: dict[str, Any]
    tensors: dict[str, Tensor]
    source: str


def read_encoder(encoder: str | os.PathLike[str], layer: int | None) -> EncoderParts:
    """A HuBERT or WavLM of transformers, a folder or a Hub id, without the layers beyond `layer`; None: all.

    Weights are safetensors, or else the pickle `pytorch_model.bin`, read as every pickle here: tensors and
    plain containers only. CheckpointError for another model, and for a layer that it does not have.
    """
    checkpoint = _read(encoder)
    place = {"source": checkpoint.source, "revision": checkpoint.revision}
    size = _size(checkpoint.config, layer, place)
    plain = {_without_prefix(name): tensor for name, tensor in checkpoint.tensors.items()}
    kept = {
        name: t for name, t in _folded(plain).items() if _is_used(name, size["layer"], size["norm_first"])
    }
    return EncoderParts(
        size,
        {ENCODER_PREFIX + name: tensor for name, tensor in kept.items()},
        f"{checkpoint.source}@{checkpoint.revision}" if checkpoint.revision else checkpoint.source,
    )


def read_centres(centres: str | os.PathLike[str] | Tensor) -> Tensor:
    """Centres (K, D) float32 of a k-means: a tensor, or a `.npy` or `.safetensors` file with nothing else.

    CheckpointError for a pickle, however it is called, and for anything but a finite table of floats.
    """
    if isinstance(centres, Tensor):
        return _checked(centres, "the centres", {})
    path = Path(centres)
    place = {"source": path.parent, "file": path.name}
    if not path.is_file():
        raise CheckpointError("no such file", **place, remedy="check the name")
    if path.suffix == ".safetensors":
        tensors = read_weights(path)
        if len(tensors) != 1:
            raise CheckpointError(
                f"holds {len(tensors)} tensors ({listed(sorted(tensors))})", **place, remedy="save one alone"
            )
        return _checked(next(iter(tensors.values())), "the tensor", place)
    if path.suffix != ".npy":
        raise CheckpointError(
            "centres are read from .npy and .safetensors alone: a joblib pickle runs what it holds",
            **place,
            remedy="export cluster_centers_ once, as the docstring of tokenzoo.audio.units shows",
        )
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise CheckpointError(
            f"not a readable .npy file of numbers ({error})", **place, remedy="export it again"
        ) from error
    if array.dtype.kind != "f":
        raise CheckpointError(f"holds {array.dtype}, expected floats", **place, remedy="export it again")
    return _checked(torch.from_numpy(array.astype(np.float32)), "the array", place)


def _checked(table: Tensor, what: str, place: Mapping[str, Any]) -> Tensor:
    if table.ndim != 2 or not table.is_floating_point() or not table.numel():
        raise CheckpointError(
            f"{what} is {table.dtype} {tuple(table.shape)}, expected floats (K, D), one row a centre",
            **place,
            remedy="export cluster_centers_ of the k-means",
        )
    if not bool(torch.isfinite(table).all()):
        raise CheckpointError(f"{what} holds NaN or infinity", **place, remedy="export it again")
    return table.detach().to("cpu", torch.float32)


def _read(encoder: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint of a folder or a Hub id; the pickle only where there is nothing else."""
    folder = find_folder(encoder)
    if folder is not None:
        has_plain = (folder / WEIGHTS_FILE).is_file()
        return read_folder(folder, weights=WEIGHTS_FILE if has_plain else Pickle(PICKLED_WEIGHTS))
    hub_id = parse_id(str(encoder))
    try:
        return read_repo(hub_id.repo, hub_id.revision)
    except HubUnreachable:
        raise
    except CheckpointError as error:
        if PICKLED_WEIGHTS not in str(error):
            raise
    return read_repo(hub_id.repo, hub_id.revision, weights=Pickle(PICKLED_WEIGHTS))


def _size(config: Mapping[str, Any], layer: int | None, place: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of our `SpeechEncoderSize` out of a config.json of transformers."""

    def refused(reason: str, remedy: str) -> CheckpointError:
        return CheckpointError(reason, **place, file="config.json", remedy=remedy)

    kind = config.get("model_type")
    if kind not in ("hubert", "wavlm"):
        raise refused(f"a model of type {kind!r}", "give a HuBERT or a WavLM in the layout of transformers")
    odd = [f"{name}={config[name]!r}" for name, value in _FIXED.items() if config.get(name, value) != value]
    widths = config.get("conv_dim", [512] * 7)
    if odd or not isinstance(widths, list) or len(set(widths)) != 1:
        told = ", ".join(odd) or f"conv_dim={widths!r}"
        raise refused(f"has {told}", "only the architecture of the published models is known here")
    layers = config.get("num_hidden_layers", 12)
    layer = int(layers) if layer is None else layer
    if not 1 <= layer <= layers:
        raise refused(f"has {layers} layers, and layer {layer} was asked for", f"give 1 ... {layers}")
    size = {ours: config.get(theirs, assumed) for theirs, ours, assumed in _SIZES}
    return size | {
        "kind": kind,
        "layer": layer,
        "conv_width": widths[0],
        "conv_kernels": tuple(config.get("conv_kernel", (10, 3, 3, 3, 3, 2, 2))),
        "conv_strides": tuple(config.get("conv_stride", (5, 2, 2, 2, 2, 2, 2))),
    }


def _without_prefix(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)


def _folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The convolution of positions without its weight norm, whose lengths are those of the taps (axis 2)."""
    folded = dict(tensors)
    for length_name, direction_name in _SPELLINGS:
        length = folded.get(f"{_POSITIONS}.{length_name}")
        direction = folded.get(f"{_POSITIONS}.{direction_name}")
        if length is not None and direction is not None and length.shape == (1, 1, *direction.shape[2:]):
            del folded[f"{_POSITIONS}.{length_name}"], folded[f"{_POSITIONS}.{direction_name}"]
            folded[f"{_POSITIONS}.weight"] = torch._weight_norm(direction, length, 2)  # pyright: ignore
    return folded


def _is_used(name: str, layer: int, norm_first: bool) -> bool:
    """Whether the vectors of `layer` depend on this tensor. The last norm of a pre-norm model comes after all
    layers."""
    found = _LAYER.match(name)
    if found:
        return int(found[1]) < layer
    return name != _MASK and not (norm_first and name.startswith("encoder.layer_norm."))
