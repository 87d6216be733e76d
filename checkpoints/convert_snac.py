"""SNAC: configuration and tensor names in ours.

Source of the layout: hubertsiuzdak/snac f49016a, snac/snac.py and snac/layers.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from . import dac_names
from .dac_names import fold
from .renames import Renames, rename, reversed_renames
from .weight_norm import folded_name

__all__ = ["TOKENIZER_TYPE", "convert_config", "convert_names", "fold", "official_name", "recognise"]

TOKENIZER_TYPE = "snac"

# Official name, weight norm folded | ours.
RENAMES: Renames = (
    *dac_names.codebooks("quantizer.residual.stages.*.inner"),
    *(
        row
        for side, official in (("encoder", "encoder.block"), ("decoder", "decoder.model"))
        for row in (
            (f"{official}.*.norm.*", f"{side}.*.norm.*"),
            (f"{official}.*.to_qkv.weight", f"{side}.*.qkv.weight"),
            (f"{official}.*.to_out.weight", f"{side}.*.out.weight"),
        )
    ),
    ("decoder.model.*.block.*.linear.weight", "decoder.*.*.linear.weight"),
    *dac_names.NETWORKS,
)
# The rates of rotary positions are constants.
DROPPED_SUFFIX = ".rel_pos.inv_freq"
# What DAC does not have: the noise of a block of the decoder.
NOISE = re.compile(r"decoder\.model\.\d+\.block\.2\.linear\.weight")


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a SNAC."""
    names = {folded_name(name) for name in tensor_names}
    return len(dac_names.SIGNATURE - names) <= 1 and any(map(NOISE.fullmatch, names))


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the arguments of the official SNAC.

    Absent entries have the official defaults. Raises ValueError for a model without noise or depthwise
    convolutions, or with latents of another width than the encoder's: none is published.
    """
    for name in ("noise", "depthwise"):
        if not config.get(name, True):
            raise ValueError(f"{name} is false: expected true, as in every published SNAC")
    strides, channels = list(config.get("encoder_rates", [3, 3, 7, 7])), config.get("encoder_dim", 64)
    widest = channels << len(strides)
    if config.get("latent_dim") not in (None, widest):
        raise ValueError(f"latent_dim {config['latent_dim']}: expected {widest}, the width of the encoder")
    return {
        "encoder_channels": channels,
        "encoder_strides": strides,
        "decoder_channels": config.get("decoder_dim", 1536),
        "decoder_strides": list(config.get("decoder_rates", [7, 7, 3, 3])),
        "window_size": config.get("attn_window_size", 32) or 0,
        "frames": list(config.get("vq_strides", [8, 4, 2, 1])),
        "num_codes": config.get("codebook_size", 4096),
        "code_dim": config.get("codebook_dim", 8),
        "preprocess": {"sample_rate_hz": config.get("sampling_rate", 44_100)},
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor but the constants; one nobody knows keeps its name."""
    return {name: rename(folded_name(name), RENAMES) for name in names if not name.endswith(DROPPED_SUFFIX)}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, weight norm folded, for messages about it."""
    return rename(name, reversed_renames(RENAMES))
