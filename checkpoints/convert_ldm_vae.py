"""KL autoencoders of latent diffusion, as MAR and TokenBridge store theirs: configuration and names in ours.

Knows names only. Source of the layout: YuqingWang1029/TokenBridge 3ede281, models/vae.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .conv_names import LOSS_PREFIX, RENAMES
from .renames import rename, reversed_renames

TOKENIZER_TYPE = "ldm-vae"

# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "quant_conv.weight",
        "post_quant_conv.weight",
        "encoder.mid.attn_1.q.weight",
        "decoder.mid.attn_1.q.weight",
    }
)
# VQGANs of the same make have them all and a codebook.
FOREIGN_PREFIX = "quantize."
# What the latents are multiplied by before they are generated or quantized (TokenBridge, reconstruction.py).
LATENT_SCALE = 0.2325


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a KL autoencoder; the official files have no configuration."""
    if len(SIGNATURE.difference(tensor_names)) > 1:
        return False
    if any(name.startswith(FOREIGN_PREFIX) for name in tensor_names):
        return False
    return not config or "embed_dim" in config


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the arguments of the official constructors.

    config  embed_dim and ch_mult; ch, num_res_blocks and resolution have the official defaults where absent.
            With `bits`, `quant_range` and `std_range` it is TokenBridge's quantization that is described

    Raises ValueError naming what is missing.
    """
    if missing := sorted({"embed_dim", "ch_mult"} - set(config)):
        raise ValueError(f"configuration without {' and '.join(missing)}: expected that of a KL autoencoder")
    sides = [config.get("resolution", 256) >> level for level in range(len(config["ch_mult"]))]
    base = {
        "latent_dim": config["embed_dim"],
        "conv": {
            "channels": config.get("ch", 128),
            "multipliers": config["ch_mult"],
            "blocks": config.get("num_res_blocks", 2),
            # The official encoder attends where maps are 16 places wide, the decoder in the middle only.
            "encoder_attention": [level for level, side in enumerate(sides) if side == 16],
        },
    }
    if "bits" not in config:
        return base
    return {
        "base_type": TOKENIZER_TYPE,
        "base": base,
        "levels": 2 ** config["bits"],
        "clip": config["quant_range"],
        "deviations": config["std_range"],
        "scale": [LATENT_SCALE],
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor; the discriminator's are dropped, one nobody knows keeps its name."""
    return {name: rename(name, RENAMES) for name in names if not name.startswith(LOSS_PREFIX)}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))
