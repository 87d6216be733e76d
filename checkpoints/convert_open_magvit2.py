"""Open-MAGVIT2 of TencentARC/SEED-Voken: configuration and tensor names in ours.

Knows names only. Source of the layout: TencentARC/SEED-Voken b9a17ea, src/Open_MAGVIT2/models/lfqgan.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .renames import Renames, rename, reversed_renames
from .seed_voken import best_copies

TOKENIZER_TYPE = "open-magvit2"

# Official name | ours.
RENAMES: Renames = (
    ("*.mid_block.**", "*.mid.**"),
    ("decoder.adaptive.*.**", "decoder.up.*.adaptive.**"),
    ("decoder.up.*.upsample.conv1.*", "decoder.up.*.upsample.*"),
)
# One may be missing, so that the strict load can say which.
SIGNATURE = frozenset(
    {
        "encoder.mid_block.0.conv1.weight",
        "decoder.mid_block.0.conv1.weight",
        "decoder.adaptive.0.gamma.weight",
        "decoder.adaptive.0.beta.weight",
    }
)
# Weight of the entropy terms in every official recipe (lossconfig.params.codebook_weight).
ENTROPY_LOSS_WEIGHT = 0.1
# Tokens along a side of the images that official models are trained on, whatever ddconfig.resolution says.
SIDE_TOKENS = 16


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether the tensors are an Open-MAGVIT2; the official repositories have no configuration."""
    return len(SIGNATURE.difference(tensor_names)) <= 1 and (not config or "ddconfig" in config)


def convert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration, as plain values, of model.init_args in an official yaml.

    Raises ValueError naming what is missing.
    """
    if missing := sorted({"ddconfig", "embed_dim"} - set(config)):
        raise ValueError(f"configuration without {', '.join(missing)}: expected model.init_args")
    sizes = config["ddconfig"]
    image_size = SIDE_TOKENS << (len(sizes["ch_mult"]) - 1)
    return {
        "bits": config["embed_dim"],
        "sample_entropy_weight": ENTROPY_LOSS_WEIGHT * config.get("sample_minimization_weight", 1.0),
        "code_entropy_weight": ENTROPY_LOSS_WEIGHT * config.get("batch_maximization_weight", 1.0),
        "conv": {
            "channels": sizes["ch"],
            "multipliers": sizes["ch_mult"],
            "blocks": sizes["num_res_blocks"],
        },
        "preprocess": {"size": image_size, "interpolation": "bilinear"},
    }


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor that is read, the average where there is one; losses are dropped."""
    return {copy: rename(name, RENAMES) for copy, name in best_copies(names).items()}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))
