"""Tiny HuBERT and WavLM checkpoints in the layouts that transformers has and had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8],
    "conv_kernel": [4, 2],
    "conv_stride": [2, 2],
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
}
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def tiny_speech(kind: str, *, large: bool) -> Any:
    """transformers' own model, random, in eval mode."""
    import transformers

    name = {"hubert": "Hubert", "wavlm": "WavLM"}[kind]
    sizes = SIZES | (LARGE if large else BASE)
    if kind == "wavlm":
        sizes |= {"num_buckets": 8, "max_bucket_distance": 16}
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # at its own start most of a random model hardly shows
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def write_speech(model: Any, folder: Path, *, layout: str = "safetensors") -> Path:
    """A folder as on the Hub: "safetensors" names today's, "pickle" the older ones (weight_g, weight_v), with
    the prefix of a model that has a head."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))
    tensors = {name: values.contiguous() for name, values in model.state_dict().items()}
    if layout == "safetensors":
        save_file(tensors, folder / "model.safetensors")
        return folder
    spelled = {
        ".parametrizations.weight.original0": ".weight_g",
        ".parametrizations.weight.original1": ".weight_v",
    }
    for new, old in spelled.items():
        tensors = {name.replace(new, old): values for name, values in tensors.items()}
    prefix = model.config.model_type
    torch.save({f"{prefix}.{name}": values for name, values in tensors.items()}, folder / "pytorch_model.bin")
    return folder
