"""The S3 tokenizers of CosyVoice: configuration and tensor names in ours.

Knows the state dict of the s3tokenizer package, which is also what `s3_onnx` makes of the released ONNX
files. Source of the layout: s3tokenizer 0.3.0, model.py, model_v2.py, model_v3.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames
from .s3_onnx import from_onnx as from_onnx

TOKENIZER_TYPE = "s3tokenizer"

# Official name | ours.
RENAMES: Renames = (
    ("encoder.positional_embedding", "encoder.trunk.positions"),
    ("quantizer._codebook.embed", "quantizer.codebook"),
    ("quantizer._codebook.project_down.*", "encoder.project.*"),
    ("encoder.blocks.*.attn.fsmn_block.*", "encoder.trunk.blocks.*.attention.memory.*"),
    ("encoder.blocks.*.attn.**", "encoder.trunk.blocks.*.attention.**"),
    ("encoder.blocks.*.attn_ln.*", "encoder.trunk.blocks.*.norm1.*"),
    ("encoder.blocks.*.mlp_ln.*", "encoder.trunk.blocks.*.norm2.*"),
    ("encoder.**", "encoder.trunk.**"),
)
# The projection of v2 and v3, or the codebook of v1.
QUANTIZERS = ("quantizer._codebook.project_down.", "quantizer._codebook.embed")
# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "encoder.conv1.weight",
        "encoder.conv2.weight",
        "encoder.blocks.0.attn.query.weight",
        "encoder.blocks.0.attn_ln.weight",
    }
)
FOREIGN = "encoder.ln_post.weight"
# What sets the versions apart, in the names that the package has for them.
FROM_V2 = {"positions": 0, "memory_kernel": 31, "num_codes": 0, "levels": [3] * 8}


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are an S3 tokenizer; the official files have no configuration."""
    has_quantizer = any(name.startswith(QUANTIZERS) for name in tensor_names)
    if len(SIGNATURE.difference(tensor_names)) + (not has_quantizer) > 1:
        return False
    # Whisper itself has the same encoder, and a norm after it.
    return FOREIGN not in tensor_names


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the package's `ModelConfig` and of the model's name.

    Raises ValueError for a name that does not say which version it is.
    """
    name = str(config.get("name"))
    if name not in ("speech_tokenizer_v1", "speech_tokenizer_v1_25hz") and not name.startswith(
        ("speech_tokenizer_v2", "speech_tokenizer_v3")
    ):
        raise ValueError(f"name {name!r}: expected speech_tokenizer_v1, _v1_25hz, _v2_25hz or _v3_25hz")
    from_v1 = {
        "positions": config.get("n_audio_ctx", 1500),
        "memory_kernel": 0,
        "num_codes": config.get("n_codebook_size", 4096),
        "levels": [],
    }
    return {
        "log_mel": {"mels": config.get("n_mels", 128)},
        "blocks": {
            "width": config.get("n_audio_state", 1280),
            "layers": config.get("n_audio_layer", 12 if "_v3" in name else 6),
            "heads": config.get("n_audio_head", 20),
        },
        "first_stride": 1 if name == "speech_tokenizer_v1" else 2,
        **(from_v1 if "_v1" in name else FROM_V2),
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; one nobody knows keeps its name."""
    return {name: rename(name, RENAMES) for name in names}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))
