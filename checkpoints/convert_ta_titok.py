"""Official TA-TiTok repositories: their configuration and tensor names in ours.

Knows names only. Source of the layout: bytedance/1d-tokenizer 942a96f, modeling/tatitok.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from . import convert_titok
from .renames import Renames, rename, reversed_renames

TOKENIZER_TYPE = "ta-titok"

RENAMES: Renames = (
    ("decoder.text_guidance_proj.*", "decoder.text_embed.project.*"),
    ("decoder.text_guidance_positional_embedding", "decoder.text_embed.positions"),
    *convert_titok.RENAMES,
    *convert_titok.PATCH_HEAD,
)
# A statistic of training with clustering, which nothing reads afterwards.
DROPPED = "quantize.embed_prob"
SIGNATURE = convert_titok.SIGNATURE | {"decoder.text_guidance_proj.weight"}


def recognise(config: Mapping[str, Any] | None, tensor_names: Collection[str]) -> bool:
    """Whether a folder holds an official TA-TiTok."""
    if len(SIGNATURE.difference(tensor_names)) > 1:
        return False
    if not any(name.startswith(convert_titok.FOREIGN_PREFIX) for name in tensor_names):
        return False
    return not config or convert_titok.has_settings(config)


def convert_config(
    config: Mapping[str, Any], *, sizes: Mapping[str, Mapping[str, int]] = convert_titok.SIZES
) -> dict[str, Any]:
    """Our configuration, as plain values, of an official config.json; see `convert_titok.convert_config`."""
    converted = convert_titok.convert_config(config, sizes=sizes)
    settings = config["model"]["vq_model"]
    tower = {
        ours: settings[official]
        for official, ours in (("text_context_length", "length"), ("text_embed_dim", "dim"))
        if official in settings
    }
    return {**converted, "text_tower": tower}


def convert_names(names: Collection[str]) -> dict[str, str]:
    """Our name of every official tensor but the dropped one; one that nobody knows keeps its name."""
    return {name: rename(name, RENAMES) for name in names if name != DROPPED}


def official_name(name: str) -> str:
    """The name that one of our tensors has in official files, for messages about them."""
    return rename(name, reversed_renames(RENAMES))
