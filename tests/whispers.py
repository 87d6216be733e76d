"""A tiny Whisper encoder in the layouts that the recognizer is read from."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

SIZES: dict[str, Any] = {
    "num_mel_bins": 8,
    "d_model": 16,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
    "max_source_positions": 300,
    "max_target_positions": 8,
    "vocab_size": 12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_TYPES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.float16: 4}


def tiny_whisper() -> Any:
    """transformers' own model, random, in eval mode."""
    import transformers

    torch.manual_seed(0)
    model = transformers.WhisperModel(transformers.WhisperConfig(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # at its own start most of a random model hardly shows
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def save_transformers(model: Any, folder: Path, *, prefix: str = "model.") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))
    tensors = {prefix + name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def save_ctranslate2(model: Any, folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """As ct2-transformers-converter lays it out: query, key and value in one, the encoder's alone."""
    encoder, tensors = model.encoder.state_dict(), {}
    for old, new in (("conv1", "conv1"), ("conv2", "conv2")):
        for kind in ("weight", "bias"):
            tensors[f"encoder/{new}/{kind}"] = encoder[f"{old}.{kind}"]
    tensors["encoder/position_encodings/encodings"] = encoder["embed_positions.weight"]
    norms = {"layer_norm": "layer_norm"}
    for layer in range(SIZES["encoder_layers"]):
        old, new = f"layers.{layer}", f"layer_{layer}"
        norms |= {f"{old}.self_attn_layer_norm": f"{new}/self_attention/layer_norm"}
        norms |= {f"{old}.final_layer_norm": f"{new}/ffn/layer_norm"}
        for there, here in (("fc1", "ffn/linear_0"), ("fc2", "ffn/linear_1")):
            for kind in ("weight", "bias"):
                tensors[f"encoder/{new}/{here}/{kind}"] = encoder[f"{old}.{there}.{kind}"]
        query, key, value = (f"{old}.self_attn.{part}_proj" for part in "qkv")
        joint = f"encoder/{new}/self_attention/linear_0"
        tensors[f"{joint}/weight"] = torch.cat([encoder[f"{each}.weight"] for each in (query, key, value)])
        no_bias = torch.zeros(SIZES["d_model"])
        tensors[f"{joint}/bias"] = torch.cat([encoder[f"{query}.bias"], no_bias, encoder[f"{value}.bias"]])
        for kind in ("weight", "bias"):
            found = encoder[f"{old}.self_attn.out_proj.{kind}"]
            tensors[f"encoder/{new}/self_attention/linear_1/{kind}"] = found
    for old, new in norms.items():
        tensors |= {
            f"encoder/{new}/gamma": encoder[f"{old}.weight"],
            f"encoder/{new}/beta": encoder[f"{old}.bias"],
        }
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    stored["encoder/num_heads"] = torch.tensor(SIZES["encoder_attention_heads"], dtype=torch.int16)
    stored["decoder/embeddings/weight"] = torch.zeros(3, 4)
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(ctranslate2_file(stored))
    return folder


def ctranslate2_file(tensors: dict[str, Tensor], *, version: int = 6) -> bytes:
    parts = [struct.pack("<I", version), _text("WhisperSpec"), struct.pack("<II", 3, len(tensors))]
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor.numpy()).tobytes()
        shape = struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
        parts += [_text(name), shape, struct.pack("<BI", _TYPES[tensor.dtype], len(raw)), raw]
    return b"".join([*parts, struct.pack("<I", 1), _text("decoder/projection/weight"), _text("decoder/x")])


def _text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"
