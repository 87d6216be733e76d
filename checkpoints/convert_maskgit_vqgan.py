"""MaskGIT's VQGAN as TiTok uses it: configuration and tensor names in ours.

Knows names only. Source of the layout: bytedance/1d-tokenizer 942a96f, modeling/modules/maskgit_vqgan.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "maskgit-vqgan"

# Official name | ours.
RENAMES: Renames = (
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("encoder.down.*.block.**", "encoder.down.*.**"),
)
# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "quantize.embedding.weight",
        "encoder.down.0.block.0.conv1.weight",
        "encoder.mid.0.conv1.weight",
        "decoder.up.0.block.0.conv1.weight",
    }
)
# TiTok's official code hard-codes the size of the codebook.
NUM_CODES = 1024


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are MaskGIT's VQGAN; the official file has no configuration."""
    # Taming's VQGAN and its kin have these names too, and a convolution around their quantizer.
    is_taming = any(name.rpartition("quant_conv.")[1] for name in tensor_names)
    return len(SIGNATURE.difference(tensor_names)) <= 1 and not is_taming


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the one in the official code (modeling/titok.py).

    Raises ValueError naming what is missing.
    """
    needed = {"channel_mult", "hidden_channels", "num_res_blocks", "z_channels"}
    if missing := sorted(needed - set(config)):
        raise ValueError(f"configuration without {', '.join(missing)}: expected that of MaskGIT's VQGAN")
    return {
        "num_codes": NUM_CODES,
        "network": {
            "channels": config["hidden_channels"],
            "multipliers": config["channel_mult"],
            "blocks": config["num_res_blocks"],
            "latent_dim": config["z_channels"],
        },
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; none is dropped, and one nobody knows keeps its name."""
    return {name: rename(name, RENAMES) for name in names}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, (*reversed_renames(RENAMES[:1]), ("encoder.down.*.**", "encoder.down.*.block.**")))
