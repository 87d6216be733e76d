"""The VQ of LlamaGen: configuration and tensor names in ours.

Knows names only. Source of the layout: FoundationVision/LlamaGen ce98ec4, tokenizer_image/vq_model.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "llamagen"

# Official name | ours. The decoder's levels are stored as they run, coarsest first.
RENAMES: Renames = (
    ("quantize.embedding.weight", "quantizer.codebook"),
    ("quant_conv.*", "encoder.quant_conv.*"),
    ("post_quant_conv.*", "decoder.post_quant_conv.*"),
    ("encoder.conv_blocks.*.res.**", "encoder.down.*.block.**"),
    ("encoder.conv_blocks.**", "encoder.down.**"),
    ("decoder.conv_blocks.*.res.**", "decoder.up.*.block.**"),
    ("decoder.conv_blocks.**", "decoder.up.**"),
)
# Which codes were used lately, a statistic of training.
DROPPED = "quantize.codebook_used"

# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "quantize.embedding.weight",
        "quant_conv.weight",
        "encoder.conv_blocks.0.res.0.conv1.weight",
        "decoder.conv_blocks.0.res.0.conv1.weight",
    }
)
# ReTok wraps the same networks around a row of queries.
FOREIGN_PREFIX = "s2to1encoder."


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a VQ of LlamaGen; the official files have no configuration."""
    if len(SIGNATURE.difference(tensor_names)) > 1:
        return False
    return not any(name.startswith(FOREIGN_PREFIX) for name in tensor_names)


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the official ModelArgs.

    config  absent entries have the official defaults; `ch` and `num_res_blocks`, which the official code
            hard-codes, may be there too

    Raises ValueError when the two networks have different levels.
    """
    multipliers = config.get("encoder_ch_mult", [1, 1, 2, 2, 4])
    if config.get("decoder_ch_mult", multipliers) != multipliers:
        raise ValueError(
            f"encoder_ch_mult {multipliers}, decoder_ch_mult {config['decoder_ch_mult']}: expected the same"
        )
    coarsest = [len(multipliers) - 1]
    return {
        "num_codes": config.get("codebook_size", 16384),
        "latent_dim": config.get("codebook_embed_dim", 8),
        "features": config.get("z_channels", 256),
        "l2": config.get("codebook_l2_norm", True),
        "commitment_weight": config.get("commit_loss_beta", 0.25),
        "conv": {
            "channels": config.get("ch", 128),
            "multipliers": multipliers,
            "blocks": config.get("num_res_blocks", 2),
            "encoder_attention": coarsest,
            "decoder_attention": coarsest,
        },
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor but the statistic of usage; one nobody knows keeps its name."""
    return {name: rename(name, RENAMES) for name in names if name != DROPPED}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))
