"""The binary autoencoder of ELM: configuration and tensor names in ours.

Knows names only. Source of the layout: Pepper-lll/LMforImageGeneration c2f29f0, bae/binaryae.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "elm-bae"

# Official name | ours.
RENAMES: Renames = (
    ("ae.encoder.blocks.*.conv_out.*", "encoder.blocks.*.nin_shortcut.*"),
    ("ae.generator.blocks.*.conv_out.*", "decoder.blocks.*.nin_shortcut.*"),
    ("ae.quantize.proj.0.*", "encoder.proj.*"),
    ("ae.quantize.embed.weight", "decoder.vectors"),
    ("ae.generator.**", "decoder.**"),
    ("ae.**", "**"),
)
# Discriminator, perceptual loss, and a head for the likelihood that nothing reads.
DROPPED = ("disc.", "perceptual.", "ae.generator.logsigma.")

REQUIRED = frozenset(
    {"codebook_size", "emb_dim", "nf", "ch_mult", "res_blocks", "img_size", "attn_resolutions"}
)
# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "ae.encoder.blocks.0.weight",
        "ae.quantize.proj.0.weight",
        "ae.quantize.embed.weight",
        "ae.generator.blocks.0.weight",
    }
)


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are a binary autoencoder of ELM; the official files have no configuration."""
    return len(SIGNATURE.difference(tensor_names)) <= 1


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of the official hyperparameters (hparams/defaults).

    Raises ValueError naming what is missing, and for the variant with tanh, of which no weights exist.
    """
    if missing := sorted(REQUIRED - set(config)):
        raise ValueError(f"configuration without {', '.join(missing)}: expected hyperparameters of ELM's BAE")
    if config.get("use_tanh") or config.get("gen_mul", 1.0) != 1.0:
        raise ValueError("use_tanh, or gen_mul other than 1: no official weights have it")
    sides = [config["img_size"] >> level for level in range(len(config["ch_mult"]))]
    return {
        "bits": config["codebook_size"],
        "features": config["emb_dim"],
        "code_weight": config.get("code_weight", 0.0),
        "norm_first": config.get("norm_first", False),
        "conv": {
            "channels": config["nf"],
            "multipliers": config["ch_mult"],
            "blocks": config["res_blocks"],
        },
        "attention": [level for level, side in enumerate(sides) if side in config["attn_resolutions"]],
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor that is read; one nobody knows keeps its name."""
    return {name: rename(name, RENAMES) for name in names if not name.startswith(DROPPED)}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))
