"""IBQ of TencentARC/SEED-Voken: configuration and tensor names in ours.

Knows names only. Source of the layout: TencentARC/SEED-Voken b9a17ea, src/IBQ/models/ibqgan.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from . import conv_names
from .renames import Renames, rename, reversed_renames
from .seed_voken import best_copies

TOKENIZER_TYPE = "ibq"

CODEBOOK = "quantize.embedding.weight"
# Official name | ours.
RENAMES: Renames = ((CODEBOOK, "quantizer.codebook"), *conv_names.RENAMES)
# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        CODEBOOK,
        "quant_conv.weight",
        "encoder.mid.attn_1.q.weight",
        "decoder.mid.attn_1.q.weight",
    }
)
# Weight of both entropy terms in every official recipe (lossconfig.entropy_loss_weight).
ENTROPY_LOSS_WEIGHT = 0.05


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are an IBQ tokenizer; the official repositories have no configuration."""
    missing = SIGNATURE.difference(tensor_names)
    if config:
        return len(missing) <= 1 and "ddconfig" in config
    # A KL autoencoder has all but the codebook.
    return missing <= SIGNATURE - {CODEBOOK} and len(missing) <= 1


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of model.init_args in an official yaml.

    Raises ValueError naming what is missing.
    """
    if missing := sorted({"ddconfig", "n_embed", "embed_dim"} - set(config)):
        raise ValueError(f"configuration without {', '.join(missing)}: expected model.init_args")
    sizes = config["ddconfig"]
    sides = [sizes["resolution"] >> level for level in range(len(sizes["ch_mult"]))]
    attention = [level for level, side in enumerate(sides) if side in sizes["attn_resolutions"]]
    weight = ENTROPY_LOSS_WEIGHT if config.get("use_entropy_loss", False) else 0.0
    return {
        "num_codes": config["n_embed"],
        "latent_dim": config["embed_dim"],
        "features": sizes["z_channels"],
        "commitment_weight": config.get("beta", 0.25),
        "sample_entropy_weight": weight * config.get("sample_minimization_weight", 1.0),
        "code_entropy_weight": weight * config.get("batch_maximization_weight", 1.0),
        "entropy_temperature": config.get("entropy_temperature", 0.01),
        "conv": {
            "channels": sizes["ch"],
            "multipliers": sizes["ch_mult"],
            "blocks": sizes["num_res_blocks"],
            "encoder_attention": attention,
            "decoder_attention": attention,
        },
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor that is read, the average where there is one; losses are dropped."""
    return {copy: rename(name, RENAMES) for copy, name in best_copies(names).items()}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))
